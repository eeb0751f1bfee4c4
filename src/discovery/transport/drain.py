"""The gate that every call passes: open, perhaps announced to close, then draining, then empty."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from discovery.errors import DrainingError

RETRY_AFTER = 1.0
"""Seconds after which a refused client may try again: by then another replica, or this one, answers."""


def draining_error() -> DrainingError:
    """Return what a client is told while the server stops."""
    return DrainingError("the server is stopping; try again", retry_after=RETRY_AFTER)


class Cancellable(Protocol):
    """What carries a call out: a task, or what stands for one."""

    def cancel(self) -> object:
        """Interrupt it."""
        ...

    def uncancel(self) -> int:
        """Take that back once; return how many others there were who interrupted it."""
        ...


class Visit:
    """One call, inside the gate for the length of a `with` block.

    `task` carries it out, and is None for as long as that is done without one.

    Raises:
        DrainingError: the gate is closed, or the grace period ended while inside.
    """

    __slots__ = ("_gate", "expelled", "task")

    def __init__(self, gate: DrainGate, task: Cancellable | None) -> None:
        self._gate = gate
        self.task = task
        self.expelled = False

    def __enter__(self) -> None:
        """Go in."""
        gate = self._gate
        if gate.draining:
            raise draining_error()
        gate.inside.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _traceback: object
    ) -> None:
        """Leave. A stream is closed where a task would be cancelled."""
        gate = self._gate
        gate.inside.discard(self)
        if gate.draining:
            gate.note_if_empty()
        if self.expelled and self._forgive() and kind in {asyncio.CancelledError, GeneratorExit}:
            raise draining_error() from None

    def expel(self) -> None:
        """Interrupt the call."""
        if self.task is not None and not self.expelled:
            self.expelled = True
            self.task.cancel()

    def _forgive(self) -> bool:
        """Take back the gate's own cancellation; return whether nobody else cancelled the task."""
        self.expelled = False
        return self.task is not None and self.task.uncancel() == 0


class DrainGate:
    """Counts the calls inside and, once draining, lets no more in.

    A call that is still inside when the grace period ends is interrupted, and leaves with DrainingError rather than
    with nothing, so that its client is told (promise 6 of the design).
    """

    def __init__(self) -> None:
        self.inside: set[Visit] = set()
        """The calls that are under way."""
        self._closed = asyncio.Event()
        self._empty = asyncio.Event()
        """Set once nobody is inside, nor will be."""
        self.leaving = False
        """Whether the server is about to stop. Calls are let in still, but who can should call elsewhere."""
        self.draining = False
        """Whether calls are refused."""

    def admit(self) -> Visit:
        """Return a visit of the current task."""
        return Visit(self, asyncio.current_task())

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
        self.draining = True
        self._closed.set()
        self.note_if_empty()

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
        for visit in self.inside:
            visit.expel()

    def note_if_empty(self) -> None:
        """Let whoever waits for the gate to be empty know if it is, and will be."""
        if not self.inside:
            self._empty.set()
