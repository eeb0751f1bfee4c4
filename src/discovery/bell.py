"""What one task waits for, again and again, without a queue for others; or somebody without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """Wakes the one who listens. Each watch has one, and an asyncio.Event would take a kilobyte."""

    __slots__ = ("_heard", "_wake")

    def __init__(self) -> None:
        self._heard: asyncio.Future[None] | None = None
        self._wake: Callable[[], object] | None = None

    def ring(self) -> None:
        """Wake whoever listens; if nobody does, nothing is remembered."""
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(None)
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def call(self, wake: Callable[[], object]) -> None:
        """Call `wake` when the bell rings next, and whoever was to be called before no more."""
        self._wake = wake

    def heard(self) -> asyncio.Future[None]:
        """Return what to await until the bell rings; whoever waited for it before is forgotten."""
        self._heard = asyncio.get_running_loop().create_future()
        return self._heard
