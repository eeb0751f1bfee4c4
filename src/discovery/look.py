"""Asking the store, now or later, for what it does not report: what watches are kept current with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from discovery.clock import MICROSECONDS, Instant
from discovery.errors import StoreUnavailableError

# In seconds: when to ask again a store that could not answer, and one that shows a lease that should have ended by now.
_ASK_AGAIN = 0.5
_SHORTEST_WAIT = 0.01
_LONGEST_WAIT = 1.0


class Look:
    """One question, asked by one task at a time, and again if it was called for meanwhile."""

    __slots__ = ("_about", "_again", "_ask", "_overdue", "_task", "_timer")

    def __init__(self, ask: Callable[..., Awaitable[None]], *about: object) -> None:
        """Ask with `ask`, which is given `about`. If it raises StoreUnavailableError, it is tried again soon."""
        self._ask = ask
        self._about = about
        self._again = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._overdue = _SHORTEST_WAIT

    def now(self) -> None:
        """Ask at once; if that is being done, then once more afterwards."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def at(self, end_us: int, now: Instant) -> None:
        """Ask when a lease ends, at `end_us` in Unix time, and at no time that was said before.

        If it should have ended by `now`, the store's clock is behind this one, by a little or by hours.
        """
        left = (end_us - now.unix_us) / MICROSECONDS
        if left > 0:
            self._overdue = _SHORTEST_WAIT
            self._after(max(left, _SHORTEST_WAIT))
        else:
            self._after(self._overdue)
            self._overdue = min(2 * self._overdue, _LONGEST_WAIT)

    def never(self) -> None:
        """Forget the time that was said."""
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Ask no more."""
        self.never()
        if self._task is not None:
            self._task.cancel()

    def _after(self, seconds: float) -> None:
        self.never()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.now)

    async def _run(self) -> None:
        while self._again:
            self._again = False
            try:
                await self._ask(*self._about)
            except StoreUnavailableError:
                self._after(_ASK_AGAIN)
                return
