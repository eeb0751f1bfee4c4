"""Sliding windows that a test winds, slows down and breaks."""

from __future__ import annotations

import asyncio
from math import floor

from discovery.clock import MICROSECONDS
from discovery.errors import StoreUnavailableError
from tests.support import ManualClock


class FakeWindows:
    """Counts as the script of `limits` does, to the microsecond, and lets others have their turn as a server would."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._windows: dict[str, tuple[float, int, int]] = {}
        self.asked: list[tuple[str, int]] = []
        self.failing = False
        self.hanging = False
        self.delay = 0.0

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int
    ) -> bool:
        await self._answer(key, amount)
        before, before_left, present, _ = self._window(key, expiry)
        if floor(before * before_left / expiry) + present + amount > limit:
            return False
        start, before, present = self._windows.get(key) or (self._now(), 0, 0)
        self._windows[key] = (start, before, present + amount)
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        await self._answer(key, 0)
        return self._window(key, expiry)

    async def _answer(self, key: str, amount: int) -> None:
        self.asked.append((key, amount))
        if self.hanging:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.delay)
        if self.failing:
            raise StoreUnavailableError("Redis failed: ConnectionError")

    def _window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        if key not in self._windows:
            return 0, 0.0, 0, 0.0
        start, before, present = self._windows[key]
        while self._now() >= start + expiry:
            start, before, present = start + expiry, present, 0
        self._windows[key] = (start, before, present)
        left = start + expiry - self._now()
        return before, left if before else 0.0, present, left + expiry

    def _now(self) -> float:
        return self._clock.now().monotonic_us / MICROSECONDS
