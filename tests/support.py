"""What tests of every kind share: a clock to wind, and values that are valid until a test changes them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog
from hypothesis import settings
from structlog.testing import capture_logs
from structlog.typing import EventDict

from discovery.clock import MICROSECONDS, Instant
from discovery.models import Registration

MESH = "mesh-1"


class ManualClock:
    """A Clock that stands still until it is wound."""

    def __init__(
        self, unix_us: int = 1_800_000_000_000_000, monotonic_us: int = 5_000_000_000
    ) -> None:
        self._now = Instant(unix_us, monotonic_us)

    def now(self) -> Instant:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass, on both scales."""
        passed = _microseconds(seconds)
        assert passed >= 0, "time does not go back; a wall clock does: step_wall"
        self._now = Instant(self._now.unix_us + passed, self._now.monotonic_us + passed)

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back, as an administrator or NTP does. No time passes."""
        self._now = replace(self._now, unix_us=self._now.unix_us + _microseconds(seconds))


def _microseconds(seconds: float) -> int:
    return round(seconds * MICROSECONDS)


def key(number: int) -> str:
    """Return a valid public key, another one for each positive number."""
    return base64.b64encode(number.to_bytes(32, "big")).decode()


KEY = key(1)
OTHER_KEY = key(2)


def registration(**changes: Any) -> Registration:
    """Return a valid registration, except for what `changes` spoils."""
    valid = Registration(
        mesh_id=MESH,
        pubkey=KEY,
        endpoints=("203.0.113.5:41820", "[2001:db8::5]:41820"),
        metadata={"region": "eu-west"},
    )
    return replace(valid, **changes)


@contextmanager
def captured_logs() -> Iterator[list[EventDict]]:
    """Collect what is logged by loggers that nobody configured, and leave structlog as it was."""
    try:
        with capture_logs() as lines:
            yield lines
    finally:
        structlog.reset_defaults()


def examples(count: int) -> settings:
    """Return the settings of a property test.

    Where CI is set, hypothesis loads its `ci` profile by itself, which draws the same examples in each run. There is
    no deadline for one example anywhere, because a busy machine would fail it now and then.
    """
    return settings(max_examples=count, deadline=None)


def shown(value: object) -> str:
    """Return the id of a parameter that may be long, or hold what a terminal should not be sent."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:50]}...{len(text)}"
