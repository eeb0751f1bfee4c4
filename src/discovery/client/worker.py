"""What the registrars, the resolver and the directory share: a task in the background, and a state to observe."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from discovery.client.pacing import Pacing
from discovery.client.state import State

S = TypeVar("S", bound=State[Any])


class Worker(ABC, Generic[S]):
    """Works from where its `async with` block is entered to where it is left.

    No error of the network, the server or a disk comes out of it: they are in `state`. A defect, an exception that
    nobody foresaw, does: it goes to the event loop's exception handler at once, ends every `states()`, and is raised
    where the block is left.
    """

    def __init__(self, state: S, pacing: Pacing) -> None:
        self._state = state
        self._pacing = pacing
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._over = False

    @property
    def state(self) -> S:
        """How things are now."""
        return self._state

    async def states(self) -> AsyncGenerator[S]:
        """Yield the state now, and again whenever it has changed, until the work is over.

        A reader that is slower than the changes is given the latest. Any number may read at the same time.
        """
        seen: S | None = None
        while True:
            changed, state, over = self._changed, self._state, self._over
            if state is not seen:
                seen = state
                yield state
            if over:
                break
            await changed.wait()
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError(f"this {type(self).__name__} was started before")
        self._task = asyncio.create_task(self._run(), name=type(self).__name__)
        self._task.add_done_callback(self._finished)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None  # noqa: S101 - it was entered
        self._task.cancel()
        try:
            await asyncio.wait([self._task])
            await self._leave()
        finally:
            self._end()
        if not self._task.cancelled():
            self._task.result()

    @abstractmethod
    async def _run(self) -> None:
        """Work until cancelled."""

    async def _leave(self) -> None:
        """Do what is left to do after the work."""

    def _become(self, phase: object, **changes: Any) -> None:  # noqa: ANN401 - any field's
        """Change the state, and tell its readers if that makes a difference."""
        now_us = self._pacing.clock.now().unix_us
        since_us = self._state.since_us if phase is self._state.phase else now_us
        state = replace(self._state, phase=phase, since_us=since_us, **changes)
        if state != self._state:
            self._state = state
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _end(self) -> None:
        self._over = True
        self._tell()

    def _finished(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (defect := task.exception()) is None:
            return
        what = {"message": f"{type(self).__name__} failed", "exception": defect, "task": task}
        task.get_loop().call_exception_handler(what)
        self._end()
