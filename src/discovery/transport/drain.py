"""The gate that every call passes: open, perhaps announced to close, then draining, then empty."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

from discovery.errors import DrainingError

RETRY_AFTER = 1.0
"""Seconds after which a refused client may try again: by then another replica, or this one, answers."""


def draining_error() -> DrainingError:
    """Return what a client is told while the server stops."""
    return DrainingError("the server is stopping; try again", retry_after=RETRY_AFTER)


class DrainGate:
    """Counts the calls inside and, once draining, lets no more in.

    A call that is still inside when the grace period ends is interrupted, and leaves with DrainingError rather than
    with nothing, so that its client is told (promise 6 of the design).
    """

    def __init__(self) -> None:
        self._inside: set[asyncio.Task[object]] = set()
        self._expelled: set[asyncio.Task[object]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = asyncio.Event()
        self.leaving = False
        """Whether the server is about to stop. Calls are let in still, but who can should call elsewhere."""

    @property
    def draining(self) -> bool:
        """Whether calls are refused."""
        return self._closed.is_set()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Be inside for the length of the block.

        Raises:
            DrainingError: the gate is closed, or the grace period ended while inside.
        """
        if self.draining:
            raise draining_error()
        task = cast("asyncio.Task[object]", asyncio.current_task())  # calls run in tasks
        self._inside.add(task)
        self._empty.clear()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):  # a stream's generator is closed instead
            if not self._forgive(task):
                raise
            raise draining_error() from None
        finally:
            self._forgive(task)
            self._leave(task)

    def _forgive(self, task: asyncio.Task[object]) -> bool:
        """Take back the gate's own cancellation of `task`; return whether nobody else cancelled it."""
        if task not in self._expelled:
            return False
        self._expelled.discard(task)
        return task.uncancel() == 0

    def _leave(self, task: asyncio.Task[object]) -> None:
        self._inside.discard(task)
        if not self._inside:
            self._empty.set()

    def announce(self) -> None:
        """Say that the gate is about to close. Idempotent."""
        self.leaving = True

    async def stay_open(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as the gate is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    def close(self) -> None:
        """Let nobody in any more. Idempotent."""
        self.announce()
        self._closed.set()

    async def drain(self, grace: float) -> bool:
        """Let nobody in, wait up to `grace` seconds for those inside, then interrupt the rest.

        Return whether all left by themselves. Idempotent.
        """
        self.close()
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            self.expel()
            await self._empty.wait()
            return False
        return True

    def expel(self) -> None:
        """Interrupt the calls that are inside, and let nobody in any more."""
        self.close()
        for task in self._inside - self._expelled:
            self._expelled.add(task)
            task.cancel()
