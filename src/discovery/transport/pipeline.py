"""The one path of every call, whatever protocol it came by: drain, service, observers, log line.

An adapter builds a `Call` and says how to receive its message; what it gets is a reply, or a DiscoveryError. Nothing
about a call is decided or counted anywhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import betterproto
from structlog.typing import FilteringBoundLogger

from discovery.errors import Code, DiscoveryError, InternalError, UnimplementedError
from discovery.transport.drain import DrainGate
from discovery.validation import MAX_ID_LENGTH


@dataclass(frozen=True, slots=True)
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
    reply_metadata: dict[str, str] = field(default_factory=dict)
    """What the answer carries beside its message: the handler fills it, the adapter sends it."""


Receive = Callable[[], Awaitable[betterproto.Message]]
Handle = Callable[[betterproto.Message, Call], Awaitable[betterproto.Message]]
HandleStream = Callable[[betterproto.Message, Call], AsyncGenerator[betterproto.Message]]


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


@dataclass(slots=True)
class _Record:
    """What the log line says of a call once it is over."""

    observations: Sequence[Observation]
    code: Code = Code.OK
    message: betterproto.Message | None = None
    defect: Exception | None = None


class Pipeline:
    """Answers calls with `handlers` and, those that have many replies, with `streams`; both by path."""

    def __init__(
        self,
        handlers: Mapping[str, Handle],
        gate: DrainGate,
        log: FilteringBoundLogger,
        streams: Mapping[str, HandleStream] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._handlers = handlers
        self._streams = streams or {}
        self._gate = gate
        self._log = log
        self._observers = observers

    async def unary(self, call: Call, receive: Receive) -> betterproto.Message:
        """Answer a call of one request and one reply. `receive` returns its message, or raises DiscoveryError.

        Raises:
            DiscoveryError: the call's outcome, for the adapter to translate. Nothing else is raised but cancellation.
        """
        with self._accounted(call) as record, self._gate.admit():
            handle = _find(self._handlers, call)
            record.message = await receive()
            return await handle(record.message, call)

    async def stream(self, call: Call, receive: Receive) -> AsyncGenerator[betterproto.Message]:
        """Answer a call of one request and many replies; see `unary`. Close the generator to end the call early."""
        with self._accounted(call) as record, self._gate.admit():
            handle = _find(self._streams, call)
            record.message = await receive()
            async with aclosing(handle(record.message, call)) as replies:
                async for reply in replies:
                    yield reply
                    for observation in record.observations:
                        observation.delivered()

    def refuse(self, call: Call, error: DiscoveryError) -> None:
        """Account for a call that its adapter could not even pass on."""
        self._finish(call, _Record(self._observations(call), error.code), seconds=0)

    @contextmanager
    def _accounted(self, call: Call) -> Iterator[_Record]:
        """Account for the call when the block ends, and let no exception out that an adapter could not translate."""
        record, started = _Record(self._observations(call)), time.perf_counter()
        try:
            yield record
        except DiscoveryError as error:
            record.code = error.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            record.code = _reason_for_cancellation(call)
            raise
        except Exception as error:
            record.code, record.defect = Code.INTERNAL, error
            raise InternalError("internal error; the server's log has the details") from error
        finally:
            self._finish(call, record, time.perf_counter() - started)

    def _observations(self, call: Call) -> Sequence[Observation]:
        return [observer.started(call) for observer in self._observers]

    def _finish(self, call: Call, record: _Record, seconds: float) -> None:
        for observation in record.observations:
            observation.finished(record.code, seconds)
        self._log_call(call, record, seconds * 1000)

    def _log_call(self, call: Call, record: _Record, milliseconds: float) -> None:
        log = self._log.info if record.defect is None else self._log.error
        log(
            "request",
            method=_loggable(call.path.rpartition("/")[2]),
            protocol=call.protocol,
            mesh_id=_loggable(getattr(record.message, "mesh_id", None)),
            peer=call.peer,
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
    overdue = call.deadline is not None and time.monotonic() >= call.deadline
    return Code.DEADLINE_EXCEEDED if overdue else Code.CANCELLED


def _loggable(value: str | None) -> str | None:
    """Return `value` so that it can neither forge a line nor fill the disk; a valid id stays as it is."""
    return value and value[:MAX_ID_LENGTH].encode("unicode_escape").decode()
