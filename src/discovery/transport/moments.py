"""Moments: betterproto has them as `datetime`, and the models in microseconds of Unix time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from discovery.clock import MICROSECONDS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_MICROSECOND = timedelta(microseconds=1)


def to_datetime(unix_us: int) -> datetime:
    """Return the moment as the type betterproto has for a Timestamp, without rounding."""
    return EPOCH + timedelta(microseconds=unix_us)


def from_datetime(moment: datetime) -> int:
    """Return a Timestamp in microseconds of Unix time, without rounding."""
    return (moment - EPOCH) // _MICROSECOND


def to_text(unix_us: int) -> str:
    """Return RFC 3339 in UTC, with 0, 3 or 6 digits after the second."""
    seconds, rest = divmod(unix_us, MICROSECONDS)
    if not rest:
        return f"{_whole(seconds)}Z"
    fraction = f"{rest:06d}" if rest % 1000 else f"{rest // 1000:03d}"
    return f"{_whole(seconds)}.{fraction}Z"


@lru_cache(maxsize=16)  # what is told now is about now, and about a lifetime from now
def _whole(seconds: int) -> str:
    return (EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")
