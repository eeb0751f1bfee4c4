"""The one path of every call, whatever protocol it came by: drain, guards, service, observers, log line.

An adapter builds a `Call` and says how to receive its message; what it gets is a reply, or a DiscoveryError. Nothing
about a call is decided or counted anywhere else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import betterproto
from structlog.typing import FilteringBoundLogger

from discovery.errors import Code, DiscoveryError, InternalError, UnimplementedError
from discovery.models import NOBODY, Caller
from discovery.transport.begun import Begun, Later
from discovery.transport.calming import Hush, keep_hearing
from discovery.transport.drain import Cancellable, DrainGate, Visit
from discovery.transport.redaction import redacted
from discovery.transport.streamed import Replies, StreamedCall
from discovery.validation import MAX_ID_LENGTH


@dataclass(slots=True)  # frozen, it would take two and a half times as long to make
class Call:
    """One call as its protocol brought it.

    `path` is `/package.Service/Method`; `peer` the caller's IP address, if it has one; `deadline` is on
    `time.monotonic()`.
    """

    path: str
    protocol: str
    peer: str | None = None
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    deadline: float | None = None
    hush: Hush = keep_hearing
    """Stops hearing the caller for a while: a guard's answer to a flood."""
    reply_metadata: dict[str, str] = field(default_factory=dict)
    """What the answer carries beside its message: the handler fills it, the adapter sends it."""
    caller: Caller = NOBODY


Receive = Callable[[], Awaitable[betterproto.Message]]
Read = Callable[[], betterproto.Message]
"""What takes the place of Receive where all of a message is there already."""
Handle = Callable[[betterproto.Message, Call], Awaitable[betterproto.Message]]


HandleStream = Callable[[betterproto.Message, Call], Replies]


H = TypeVar("H")


class Observation(Protocol):
    """One call under way, as an observer sees it. Nothing here may raise or wait."""

    def delivered(self) -> None:
        """One of a stream's replies has been sent."""
        ...

    def finished(self, code: Code, seconds: float) -> None:
        """The call is over; called exactly once."""
        ...


class Observer(Protocol):
    """Is told of every call."""

    def started(self, call: Call) -> Observation:
        """Take note of a call that begins. It must not raise or wait."""
        ...


class Guard:
    """Lets calls in, or refuses them by raising a DiscoveryError. This one lets in everything.

    What a method returns, if anything, is waited for.
    """

    def admit(self, call: Call) -> Awaitable[None] | None:
        """Look at a call before its message is read."""

    def allow(self, call: Call, message: betterproto.Message) -> Awaitable[None] | None:
        """Look at a call before it is carried out."""

    def still_allow(self, call: Call) -> None:
        """Look at a call that goes on, before its next reply is sent."""


@dataclass(slots=True)  # see Call
class Account:
    """A call that is over. `reply` is the last one; `error` None if it went well, or the caller gave up: see `code`."""

    call: Call
    message: betterproto.Message | None
    reply: betterproto.Message | None
    error: DiscoveryError | None
    code: Code


_UNSERVED = "/unknown/unknown"
_EARLY = 0.002
"""Seconds by which a timer may come before its time: uvloop's go by whole milliseconds."""

Witness = Callable[[Account], None]
"""Is told of every call that is over. It must not raise or wait."""


class Record(Account):
    """The account of a call under way, true once it is closed."""

    __slots__ = ("_pipeline", "_started", "defect", "observations")

    def __init__(self, call: Call, observations: Sequence[Observation], pipeline: Pipeline) -> None:
        self._started = time.perf_counter()
        self._pipeline = pipeline
        self.call = call
        self.observations = observations
        self.message = self.reply = self.error = None
        self.code = Code.OK
        self.defect: Exception | None = None

    def close(self, error: BaseException | None) -> None:
        """Account for the call, which is over; with `error` if it ended with that.

        Raises:
            DiscoveryError: that is nothing that an adapter could translate, and this stands for it.
        """
        if error is not None:
            self._note(error)
        self._pipeline.finish(self, time.perf_counter() - self._started)
        if self.defect is not None and self.error is not None:
            raise self.error from self.defect

    def _note(self, error: BaseException) -> None:
        if isinstance(error, DiscoveryError):
            self.code, self.error = error.code, error
        elif isinstance(error, Exception):
            self.code, self.defect = Code.INTERNAL, error
            self.error = InternalError("internal error; the server's log has the details")
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.code = _reason_for_cancellation(self.call)


def _unread() -> betterproto.Message:
    """Stand in for a Read where there is a Receive."""
    raise NotImplementedError


class Pipeline:
    """Answers calls with `handlers` and, those that have many replies, with `streams`; both by path."""

    def __init__(
        self,
        handlers: Mapping[str, Handle],
        gate: DrainGate,
        log: FilteringBoundLogger,
        streams: Mapping[str, HandleStream] | None = None,
        observers: Sequence[Observer] = (),
        guards: Sequence[Guard] = (),
        witnesses: Sequence[Witness] = (),
    ) -> None:
        """Ask `guards` in their order before a message is read, and again before the call is carried out."""
        self._handlers = handlers
        self._streams = streams or {}
        self._gate = gate
        self._log = log.bind()  # a lazy logger would be looked up for each call
        self._logs_calls = self._log.is_enabled_for(logging.INFO)
        self._observers = observers
        self._guards = guards
        self._admitting = [guard for guard in guards if type(guard).admit is not Guard.admit]
        self._allowing = [guard for guard in guards if type(guard).allow is not Guard.allow]
        self._witnesses = witnesses

    def unary(self, call: Call, receive: Receive) -> Coroutine[Any, Any, betterproto.Message]:
        """Answer a call of one request and one reply. `receive` returns its message, or raises DiscoveryError.

        Raises:
            DiscoveryError: the call's outcome, for the adapter to translate. Nothing else is raised but cancellation.
        """
        return self._unary(call, self._gate.admit(), receive)

    def begin(self, call: Call, read: Read) -> Begun:
        """Do as `unary` does, but at once, outside of any task, and up to where the call has to wait."""
        visit = Visit(self._gate, None)
        return Begun(call, self._unary(call, visit, None, read), visit)

    def later(self, call: Call, read: Read) -> Later:
        """Do as `unary` does, once its outcome is asked for."""
        return Later(call, lambda: self._unary(call, self._gate.admit(), None, read))

    async def _unary(
        self, call: Call, visit: Visit, receive: Receive | None, read: Read = _unread
    ) -> betterproto.Message:
        record = self.accounted(call)
        try:
            with visit:
                handle = _find(self._handlers, call)
                for guard in self._admitting:
                    if (waiting := guard.admit(call)) is not None:
                        await waiting
                message = read() if receive is None else await receive()
                record.message = message
                for guard in self._allowing:
                    if (waiting := guard.allow(call, message)) is not None:
                        await waiting
                record.reply = reply = await handle(message, call)
        except BaseException as error:
            record.close(error)
            raise
        record.close(None)
        return reply

    def stream(
        self, call: Call, receive: Receive, carrier: Cancellable | None = None
    ) -> StreamedCall:
        """Answer a call of one request and many replies; see `unary`. Close what is returned to end the call early.

        When the server stops, the `carrier` is cancelled: without one, the task that asked for the first reply.
        """
        return StreamedCall(self, call, receive, Visit(self._gate, carrier))

    # -- What a StreamedCall asks for -------------------------------------------------------------

    def accounted(self, call: Call) -> Record:
        """Return what a call is accounted for with, from now on."""
        # Observers name things after paths, so those that clients make up are one.
        known = call.path in self._handlers or call.path in self._streams
        seen = call if known else replace(call, path=_UNSERVED)
        started = [observer.started(seen) for observer in self._observers]
        return Record(call, tuple(started), self)  # a watch keeps it, and a list is larger

    async def open(self, call: Call, receive: Receive, record: Record) -> Replies:
        """Let a call in; return its replies."""
        handle = _find(self._streams, call)
        for guard in self._admitting:
            if (waiting := guard.admit(call)) is not None:
                await waiting
        record.message = message = await receive()
        for guard in self._allowing:
            if (waiting := guard.allow(call, message)) is not None:
                await waiting
        return handle(message, call)

    def check(self, call: Call) -> None:
        """Look at a call that goes on, before its next reply is sent: see Guard.still_allow."""
        for guard in self._guards:
            guard.still_allow(call)

    def refuse(self, call: Call, error: DiscoveryError) -> None:
        """Account for a call that its adapter could not even pass on."""
        record = self.accounted(call)
        record.code, record.error = error.code, error
        self.finish(record, seconds=0)

    def finish(self, record: Record, seconds: float) -> None:
        """Account for a call that is over, after `seconds`."""
        for observation in record.observations:
            observation.finished(record.code, seconds)
        for witness in self._witnesses:
            witness(record)
        if record.defect is not None or self._logs_calls:
            self._log_call(record, seconds * 1000)

    def _log_call(self, record: Record, milliseconds: float) -> None:
        log = self._log.info if record.defect is None else self._log.error
        call = record.call
        log(
            "request",
            method=_loggable(call.path.rpartition("/")[2]),
            protocol=call.protocol,
            mesh_id=_loggable(getattr(record.message, "mesh_id", None)),
            peer=call.peer,
            **({"key": call.caller.key_name} if call.caller.key_name else {}),
            status=record.code.name,
            ms=round(milliseconds, 3),
            **({"exc_info": record.defect} if record.defect else {}),
        )


def _find(handlers: Mapping[str, H], call: Call) -> H:
    try:
        return handlers[call.path]
    except KeyError:
        raise UnimplementedError(f"{call.path} is not served by this version") from None


def _reason_for_cancellation(call: Call) -> Code:
    overdue = call.deadline is not None and time.monotonic() + _EARLY >= call.deadline
    return Code.DEADLINE_EXCEEDED if overdue else Code.CANCELLED


def _loggable(value: str | None) -> str | None:
    """Return `value` so that it can neither forge a line nor fill the disk; a valid id stays as it is."""
    return value and redacted(value)[:MAX_ID_LENGTH].encode("unicode_escape").decode()
