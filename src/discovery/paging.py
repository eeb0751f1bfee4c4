"""Pages of a list: how large they are, and the token that says where the next one begins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from discovery.errors import Violation
from discovery.validation import check_id

LARGEST_PAGE = 100
"""So many of the largest registrations there can be fit in the 4 MiB that gRPC clients take by default."""


def make_token(after: str) -> str:
    """Return the token of the page that begins behind `after`; empty if there is none. `read_token` reads it back."""
    return base64.urlsafe_b64encode(after.encode()).decode()


def read_token(token: str) -> str:
    """Return behind what the page of `token` begins.

    Raises:
        ValueError: it is no token that `make_token` makes.
    """
    after = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    if after and any(check_id("", after)):
        raise ValueError(token)
    return after


def check_page(size: int, token: str) -> Iterator[Violation]:
    """Check what a page was asked for with."""
    if size < 0:
        yield Violation("page_size", f"is {size}; must not be negative")
    try:
        read_token(token)
    except (ValueError, binascii.Error):
        yield Violation("page_token", "is not the next_page_token of a page before")
