"""A call of many replies under way: what is between two of them, and who waits for the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, Self, cast, runtime_checkable

import betterproto

from discovery.errors import DiscoveryError
from discovery.transport.drain import Visit

if TYPE_CHECKING:
    from discovery.transport.pipeline import Call, Pipeline, Receive, Record


class Replies(Protocol):
    """What an RPC with many replies answers: a generator of them, or what can do the same."""

    def __aiter__(self) -> AsyncIterator[betterproto.Message]:
        """Iterate over the replies."""
        ...

    def __anext__(self) -> Awaitable[betterproto.Message]:
        """Return the next one."""
        ...

    def aclose(self) -> Awaitable[object]:
        """Make no more of them."""
        ...


@runtime_checkable
class Patient(Protocol):
    """Replies that can be waited for without a task."""

    async def join(self) -> None:
        """Have what is there now, if anything is, ready as the first."""
        ...

    def wait(self, wake: Callable[[], object]) -> bool:
        """Have `wake` called once, when there may be another reply; return False if there may be one already."""
        ...


class StreamedCall:
    """The replies to one call, from the first that is asked for until it is over; see Pipeline.stream.

    It does what a generator would. But who waits for a generator's next reply is a task, with the frames of all that it
    waits in, and of a watch that is most of what it takes. This can be left alone between two replies.
    """

    __slots__ = ("_call", "_pipeline", "_receive", "_record", "_replies", "_told", "_visit", "over")

    def __init__(self, pipeline: Pipeline, call: Call, receive: Receive, visit: Visit) -> None:
        self._pipeline = pipeline
        self._call = call
        self._receive = receive
        self._visit = visit
        self._record: Record | None = None
        self._replies: Replies | None = None
        self._told = False
        self.over = False
        """Whether there will be no more replies."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> betterproto.Message:
        """Return the next reply.

        Raises:
            DiscoveryError: the call's outcome. Nothing else is raised but cancellation.
        """
        if self.over:
            raise StopAsyncIteration
        await self.begin()
        try:
            self._note_delivery()
            reply = await cast("Replies", self._replies).__anext__()
            self._pipeline.check(self._call)
        except StopAsyncIteration:
            await self._end(None)
            raise
        except BaseException as error:
            await self._end(error)
            raise
        self._told = True
        return reply

    async def begin(self) -> None:
        """Let the call in, if that was not done before; it raises what asking for a reply does."""
        if self._record is not None:
            return
        receive = self._receive
        del self._receive  # what it takes is not needed any more
        self._record = record = self._pipeline.accounted(self._call)
        try:
            if self._visit.task is None:
                self._visit.task = asyncio.current_task()
            self._visit.__enter__()
            self._replies = replies = await self._pipeline.open(self._call, receive, record)
            if isinstance(patient := cast("object", replies), Patient):
                await patient.join()
        except BaseException as error:
            await self._end(error)
            raise

    def wait(self, wake: Callable[[], object]) -> bool:
        """See Patient. Nothing is under way meanwhile: whoever wants an end has to say so with `cancel`."""
        self._note_delivery()
        replies: object = self._replies
        return isinstance(replies, Patient) and replies.wait(wake)

    async def cancel(self) -> None:
        """End as a task's cancellation would.

        Raises:
            asyncio.CancelledError: always, unless it is because the server stops.
            DrainingError: it is.
        """
        await self._end(asyncio.CancelledError())
        raise asyncio.CancelledError

    async def aclose(self) -> None:
        """End the call early, if it is not over.

        Raises:
            DrainingError: it is because the server stops.
        """
        if self._record is not None and not self.over:
            await self._end(GeneratorExit())
        self.over = True

    def _note_delivery(self) -> None:
        """Whoever asks for the next reply has sent the one before."""
        if self._told and self._record is not None:
            self._told = False
            for observation in self._record.observations:
                observation.delivered()

    async def _end(self, error: BaseException | None) -> None:
        """End with `error`, or with what comes of it, which is raised."""
        self.over = True
        outcome = error
        try:
            if self._replies is not None:
                await self._replies.aclose()
        except BaseException as another:  # noqa: BLE001 - it takes the place of the first
            outcome = another
        try:
            self._visit.__exit__(None if outcome is None else type(outcome), outcome, None)
        except DiscoveryError as draining:
            outcome = draining
        if self._record is not None:
            self._record.close(outcome)
        if outcome is not None and outcome is not error:
            raise outcome
