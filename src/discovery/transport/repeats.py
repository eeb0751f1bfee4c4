"""What repeats: most heartbeats and lookups are, byte for byte, calls that were made before.

So what was read from such bytes is remembered, and with it, because it is the same object again, what others have found
out about it: see `Remembered`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import betterproto

from discovery.remembered import Latest

M = TypeVar("M", bound=betterproto.Message)

_LONGEST = 1024
"""Bytes of a message that is remembered, at most: with what is found out about them, all take some 10 MB."""

_Key = tuple[Callable[..., betterproto.Message], type[betterproto.Message], bytes]
_known = Latest[_Key, Any]()


def read_again(data: bytes, message_type: type[M], decode: Callable[[bytes, type[M]], M]) -> M:
    """Return `decode(data, message_type)`, which may be what an earlier call returned: nobody may change it.

    What `decode` raises is not remembered.
    """
    if len(data) > _LONGEST:
        return decode(data, message_type)
    key = (decode, message_type, data)
    known: M | None = _known.kept.get(key)
    if known is None:
        known = decode(data, message_type)
        _known.add(key, known)
    return known
