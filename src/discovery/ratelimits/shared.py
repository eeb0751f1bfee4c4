"""Rates that all replicas share, counted by a server that takes a round trip to ask."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Protocol

from discovery.clock import MICROSECONDS, Clock
from discovery.ratelimits.recent import Recent
from discovery.ratelimits.rules import Rule

ROOM = 8_192
"""For how many names a rule surely remembers what it need not ask for: at most 10 MB."""

_SHARE = 50
"""A replica takes at most one in so many of a rate's calls at once: what it may leave unused."""

_LONGEST_NAME = 253
_MILLISECOND = 0.001


class Windows(Protocol):
    """Sliding window counters. `limits.aio.storage.RedisStorage` is one."""

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int
    ) -> bool:
        """Count `amount` calls, all or none: whether `limit` in `expiry` seconds has room for them."""
        ...

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the calls counted in the window before and seconds until that is forgotten; the same for the present.

        The present window is over when all but `expiry` of its seconds are.
        """
        ...


class _Bucket:
    """What this replica knows of a name."""

    __slots__ = ("asking", "batch", "left", "refused_until_us")

    def __init__(self) -> None:
        self.asking = asyncio.Lock()
        self.batch = 0
        self.left = 0
        self.refused_until_us = 0


class SharedMeter:
    """Counts by `windows`, and asks them as seldom as it can.

    - Calls are taken in batches: one at first, then twice as many each time, up to a fiftieth of the rate. So whoever
      calls often costs a round trip for every hundred calls or so, and whoever calls seldom is charged for no more than
      it uses. The rate is never exceeded; up to a fiftieth of it for each replica may go unused.
    - Who is refused is refused until there is room, without asking again: a flood costs no round trips.
    - One caller asks for a name, others wait for what it brings.
    """

    def __init__(self, rule: Rule, windows: Windows, clock: Clock, room: int = ROOM) -> None:
        self._rate = rule.rate
        self._key = f"{rule.scope.value}/{','.join(sorted(rule.methods))}/{rule.rate}"
        self._largest = max(1, rule.rate.amount // _SHARE)
        self._windows = windows
        self._clock = clock
        self._buckets: Recent[int, _Bucket] = Recent(room)

    async def take(self, name: str) -> float:
        """See Meter. Raises what `windows` raise."""
        bucket = self._bucket(name)
        if (wait := self._known(bucket)) is not None:
            return wait
        async with bucket.asking:
            # Meanwhile another may have asked.
            if (wait := self._known(bucket)) is not None:
                return wait
            return await self._ask(bucket, f"{self._key}/{_printable(name)}")

    def _bucket(self, name: str) -> _Bucket:
        key = hash(name)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = _Bucket()
            self._buckets.put(key, bucket)
        return bucket

    def _known(self, bucket: _Bucket) -> float | None:
        """Return the answer, if it is known without asking."""
        if bucket.left:
            bucket.left -= 1
            return 0.0
        wait_us = bucket.refused_until_us - self._clock.now().monotonic_us
        return wait_us / MICROSECONDS if wait_us > 0 else None

    async def _ask(self, bucket: _Bucket, key: str) -> float:
        limit, seconds = self._rate
        for amount in dict.fromkeys((min(2 * bucket.batch or 1, self._largest), 1)):
            if await self._windows.acquire_sliding_window_entry(key, limit, seconds, amount):
                bucket.batch, bucket.left = amount, amount - 1
                return 0.0
        window = await self._windows.get_sliding_window(key, seconds)
        wait = _until_room(limit, seconds, *window)
        bucket.batch = 0
        bucket.refused_until_us = self._clock.now().monotonic_us + round(wait * MICROSECONDS)
        return wait


def _until_room(
    limit: int, seconds: int, before: int, before_left: float, present: int, present_left: float
) -> float:
    """Return the seconds until one more call has room.

    The calls of the window before count by the part of it that the period still covers, so they fade evenly.
    """
    if present < limit:
        fade = before_left - (limit - present) * seconds / before if before else 0.0
    else:
        # Once this window is the one before, the first of its calls fades at once.
        fade = present_left - seconds
    return max(fade, 0.0) + _MILLISECOND


def _printable(name: str) -> str:
    """Return a name that may be part of a key: itself, or a digest if it is long or strange."""
    if len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable():
        return name
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
