"""Moments as people write them in the keys file: RFC 3339, always with an offset."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

# Section 5.6. `fromisoformat` alone would let in much else that ISO 8601 knows.
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def parse_time(text: str) -> int:
    """Return a moment in microseconds, Unix time.

    Raises:
        ValueError: it is none; the message is the end of a sentence that begins with what it is for.
    """
    if not _RFC_3339.fullmatch(text):
        raise ValueError("must be a time with its offset, as in 2027-01-01T00:00:00Z")
    try:
        return (datetime.fromisoformat(text.upper()) - _EPOCH) // _MICROSECOND
    except ValueError:
        raise ValueError("must be a time that is in the calendar") from None


def format_time(unix_us: int) -> str:
    """Return a moment in RFC 3339, in UTC."""
    return (_EPOCH + unix_us * _MICROSECOND).isoformat().replace("+00:00", "Z")
