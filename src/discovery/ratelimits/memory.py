"""Rates within one process."""

from __future__ import annotations

from discovery.clock import Clock
from discovery.ratelimits.recent import Recent
from discovery.ratelimits.rules import Rate

ROOM = 32_768
"""How many names a rule surely remembers: at most 10 MB."""

_NANOSECONDS = 1_000_000_000


class MemoryMeter:
    """Counts by GCRA, the generic cell rate algorithm (ITU-T I.371): a token bucket in one number.

    The number is when the name will have all of its calls again. Each call moves it on by one interval, and is refused
    if that would be beyond one period from now. So a name may make all calls of a period at once, and after that has
    one more each interval. Integers, because a sum of 60,000 rounded intervals would be off by some.

    A name is kept as its hash: 64 bits that nobody outside can make collide, because each process has its own key.
    A name is forgotten once `room` others were used since: then it has all of its calls again.
    """

    def __init__(self, rate: Rate, clock: Clock, room: int = ROOM) -> None:
        period = rate.seconds * _NANOSECONDS
        self._interval = period // rate.amount
        self._most = period - self._interval
        self._clock = clock
        self._whole_at: Recent[int, int] = Recent(room)

    async def take(self, name: str) -> float:
        """See Meter. Never suspends."""
        now, key = self._clock.now().monotonic_us * 1000, hash(name)
        whole_at = self._whole_at.get(key)
        if whole_at is None or whole_at < now:
            whole_at = now
        early = whole_at - now - self._most
        if early > 0:
            return early / _NANOSECONDS
        self._whole_at.put(key, whole_at + self._interval)
        return 0.0
