"""Text for people: what others wrote is made harmless, and numbers are made short."""

from __future__ import annotations

from datetime import datetime

_SHOWN_OF_KEY = 10
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def clean(text: str) -> str:
    """Return `text` with all that a terminal might obey, or that hides something, written out as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def on_one_line(text: str) -> str:
    """Return `text` cleaned, each run of white space one space."""
    return clean(" ".join(text.split()))


def short_key(key: str) -> str:
    """Return enough of a public key to tell it from others."""
    return key if len(key) <= _SHOWN_OF_KEY else f"{key[:_SHOWN_OF_KEY]}…"


def rfc3339(moment: datetime) -> str:
    """Return a moment as RFC 3339 has it, in UTC: `2026-11-24T12:00:00Z`, with a fraction if there is one."""
    return moment.isoformat().replace("+00:00", "Z")


def duration(seconds: float, units: int = 2) -> str:
    """Return about how long that is, in its largest units, as many as two: `3d4h`, `5m10s`, `12s`."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    parts.append(f"{left}s")
    return "".join(parts[:units])


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago a moment was, or in how long it will be."""
    seconds = (now - moment).total_seconds()
    return f"in {duration(-seconds)}" if seconds < 0 else f"{duration(seconds)} ago"


def counted(number: int, noun: str) -> str:
    """Return `1 colony` or `2 colonies`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("ny") else f"{number} {noun}s"
