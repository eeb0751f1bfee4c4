"""What one task waits for, again and again, without a queue for others."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes the one task that listens. Each watch has one, and an asyncio.Event would take a kilobyte."""

    __slots__ = ("_heard",)

    def __init__(self) -> None:
        self._heard: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake whoever listens; if nobody does, nothing is remembered."""
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    def heard(self) -> asyncio.Future[None]:
        """Return what to await until the bell rings; whoever waited for it before is forgotten."""
        self._heard = asyncio.get_running_loop().create_future()
        return self._heard
