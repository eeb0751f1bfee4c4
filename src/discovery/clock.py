"""Where time comes from, so that a test can wind it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Protocol

MICROSECONDS = 1_000_000
"""In a second."""


@dataclass(slots=True)  # frozen, or a tuple, it would take nearly twice as long to make
class Instant:
    """One moment on both scales, each in whole microseconds.

    `unix_us` (Unix time) is for telling people when; an administrator or NTP may step it. `monotonic_us` only
    grows, from an arbitrary origin, and is what a lease's end is measured on.
    """

    unix_us: int
    monotonic_us: int


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> Instant:
        """Return the present moment."""
        ...


# Linux stops CLOCK_MONOTONIC while the machine is suspended: a lease would outlive its `expires_at` by a
# closed laptop lid. CLOCK_BOOTTIME goes on. Other systems' monotonic clock is the best they have.
_monotonic_ns = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic_ns
)


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Instant:
        """Return the present moment."""
        return Instant(time.time_ns() // 1000, _monotonic_ns() // 1000)
