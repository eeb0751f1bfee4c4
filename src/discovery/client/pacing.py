"""When to try again: backoff with full jitter, and waiting that a suspended machine does not stretch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from discovery.clock import MICROSECONDS, Clock, Instant, SystemClock
from discovery.errors import Code, DiscoveryError, TooLargeError

_TRANSIENT = {
    Code.ABORTED,
    Code.CANCELLED,
    Code.DEADLINE_EXCEEDED,
    Code.INTERNAL,
    Code.RESOURCE_EXHAUSTED,
    Code.UNAVAILABLE,
    Code.UNKNOWN,
}
# A server may ask for patience, but not, by a mistake, for silence.
_LONGEST_RETRY_AFTER = 300.0
# The event loop's timers stand still with the machine: how late, at most, they notice that time went on without them.
_SLICE = 10.0
# So little is not worth a timer: the two clocks are not rounded alike.
_NOTHING = 0.001
# How much earlier than its period a repeated call may come, so that those who began together drift apart.
_EARLIER = 0.1


def is_transient(error: DiscoveryError) -> bool:
    """Return whether the same call may succeed later though nothing is done about it but waiting."""
    return error.code in _TRANSIENT and error.reason != TooLargeError.reason


def elapsed(since: Instant, now: Instant) -> float:
    """Return the seconds from `since` to `now`, by the scale on which more has passed.

    Where the monotonic clock stops while a machine sleeps, the wall clock tells; where that was set back, the other.
    """
    passed_us = max(now.unix_us - since.unix_us, now.monotonic_us - since.monotonic_us)
    return passed_us / MICROSECONDS


class Backoff:
    """The waits between failed attempts: exponential, with full jitter.

    Each is random between nothing and a ceiling, which doubles up to `cap` ("Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015): clients that lost a server at the same instant do not return at the same instant.
    """

    def __init__(self, base: float, cap: float, spread: Callable[[], float]) -> None:
        """Begin with a ceiling of `base` seconds; `spread` gives random numbers in [0, 1)."""
        self._base = min(base, cap)
        self._cap = cap
        self._spread = spread
        self.reset()

    def reset(self) -> None:
        """Begin anew: an attempt succeeded."""
        self._ceiling = self._base

    def next(self, at_least: float | None = None) -> float:
        """Return for how many seconds to wait now.

        `at_least` is an error's `retry_after`. The jitter comes on top of it, or all whom a server tells to come back
        in ten seconds would do so.
        """
        wait = self._ceiling * self._spread()
        self._ceiling = min(2 * self._ceiling, self._cap)
        return wait + min(max(at_least or 0.0, 0.0), _LONGEST_RETRY_AFTER)


@dataclass(frozen=True, slots=True)
class Pacing:
    """How the background work of this library is timed. The defaults suit programs; a test winds its own clock.

    `base` is the first and `cap` the last ceiling of a wait after a failure, in seconds. `spread` gives random numbers
    in [0, 1).
    """

    base: float = 1.0
    cap: float = 30.0
    clock: Clock = field(default_factory=SystemClock)
    spread: Callable[[], float] = random.random

    def backoff(self, cap: float | None = None) -> Backoff:
        """Return new waits between attempts, of up to `cap` seconds if that is to be another than usual."""
        return Backoff(self.base, self.cap if cap is None else cap, self.spread)

    def soon(self, period: float) -> float:
        """Return a wait for what is to happen each `period` seconds: up to a tenth less."""
        return period * (1 - _EARLIER * self.spread())

    async def wait(
        self, seconds: float, wake: asyncio.Event, *, since: Instant | None = None
    ) -> None:
        """Wait until `wake` is set, or `seconds` have passed `since` then or else from now on."""
        start = since or self.clock.now()
        while not wake.is_set():
            left = seconds - elapsed(start, self.clock.now())
            if left < _NOTHING:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _SLICE)):
                    await wake.wait()
