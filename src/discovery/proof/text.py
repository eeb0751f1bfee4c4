"""Bytes as text: the padded base64 of RFC 4648 section 4, as `wg` prints keys."""

from __future__ import annotations

import base64
import binascii


def encode(raw: bytes) -> str:
    """Return the base64 of `raw`; `decode` reads it back."""
    return base64.b64encode(raw).decode()


def decode(text: str, size: int) -> bytes:
    """Return the `size` bytes that `text` stands for.

    There is one text for each value: base64 with stray bits behind its last byte is refused.

    Raises:
        ValueError: it is no such text. The message does not repeat it: it may be a secret with a typing error.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != size or encode(raw) != text:
        raise ValueError(f"not the base64 of {size} bytes")
    return raw
