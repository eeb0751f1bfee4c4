"""A circuit breaker for what counts elsewhere: slow or lost, it costs calls little, and the log one line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from discovery.clock import MICROSECONDS, Clock
from discovery.errors import StoreUnavailableError
from discovery.ratelimits.shared import Windows

T = TypeVar("T")

ANSWER = 0.2
"""How long an answer may take, in seconds."""

PAUSE = 5
"""How long nobody asks after a failure, in seconds; then one caller tries, and the others go on without."""


class Circuit:
    """Windows that answer in time, or raise StoreUnavailableError."""

    def __init__(self, windows: Windows, clock: Clock, log: FilteringBoundLogger) -> None:
        """`windows` may raise StoreUnavailableError, or take forever."""
        self._windows = windows
        self._clock = clock
        self._log = log
        self._retry_at_us: int | None = None

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int
    ) -> bool:
        """See Windows."""
        return await self._ask(
            lambda: self._windows.acquire_sliding_window_entry(key, limit, expiry, amount)
        )

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """See Windows."""
        return await self._ask(lambda: self._windows.get_sliding_window(key, expiry))

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        self._hold_back()
        try:
            async with asyncio.timeout(ANSWER) as limit:
                answer = await ask()
        except (StoreUnavailableError, TimeoutError) as failure:
            self._open(failure)
            raise _unavailable() from failure
        except asyncio.CancelledError:
            # On a busy loop the caller's patience may end in the same turn.
            if limit.expired():
                self._open(TimeoutError())
            raise
        self._close()
        return answer

    def _hold_back(self) -> None:
        if self._retry_at_us is None:
            return
        now_us = self._clock.now().monotonic_us
        if now_us < self._retry_at_us:
            raise _unavailable()
        self._retry_at_us = now_us + PAUSE * MICROSECONDS

    def _open(self, failure: Exception) -> None:
        if self._retry_at_us is None:
            self._log.warning("rate_limits_lost", error=str(failure) or type(failure).__name__)
        self._retry_at_us = self._clock.now().monotonic_us + PAUSE * MICROSECONDS

    def _close(self) -> None:
        if self._retry_at_us is not None:
            self._log.info("rate_limits_back")
        self._retry_at_us = None


def _unavailable() -> StoreUnavailableError:
    return StoreUnavailableError("rate limits cannot be checked now", retry_after=PAUSE)
