"""When a key is to expire, as people say it."""

from __future__ import annotations

from discovery.auth import parse_time
from discovery.clock import MICROSECONDS, Instant
from discovery.errors import ConfigError
from discovery.settings.duration import parse_duration


def parse_expiry(text: str, now: Instant) -> int:
    """Return the moment, in microseconds of Unix time, that an RFC 3339 time or a duration from `now` names.

    Raises:
        ConfigError: it names none.
    """
    try:
        if "-" in text:
            return parse_time(text)
        return now.unix_us + round(parse_duration(text) * MICROSECONDS)
    except ValueError as error:
        raise ConfigError(f"--expires {error}") from None
