"""Every call leaves one line in the log, whatever becomes of it, and only errors that its client can be told."""

from __future__ import annotations

import asyncio
import io
import json
import shlex
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import betterproto
import pytest
import structlog
from structlog.testing import LogCapture

from discovery._gen.coral.discovery.v1 import (
    HealthRequest,
    LookupColonyRequest,
    LookupColonyResponse,
    RegisterColonyRequest,
)
from discovery.config import LogFormat
from discovery.errors import (
    Code,
    DiscoveryError,
    DrainingError,
    InternalError,
    MalformedMessageError,
    MeshIdTakenError,
    NotRegisteredError,
    OtherError,
    StoreUnavailableError,
    UnimplementedError,
)
from discovery.logs import set_up_logs
from discovery.transport import pipeline as pipeline_module
from discovery.transport.drain import DrainGate
from discovery.transport.pipeline import Call, Pipeline
from discovery.transport.status import status_of

PATH = "/coral.discovery.v1.DiscoveryService/LookupColony"
CALL = Call(PATH, "grpc", peer="203.0.113.5")
REQUEST = LookupColonyRequest("mesh-1")
REPLY = LookupColonyResponse(mesh_id="mesh-1")
AWAITS = 3

Act = Callable[[], object]


class Rig:
    """A pipeline around a handler that is a fake, and what it logged."""

    def __init__(self, log: Any = None) -> None:
        self.captured = LogCapture()
        self.gate = DrainGate()
        self.request: betterproto.Message = REQUEST
        self.received = 0
        self.stream_closed = False
        self.outcome: BaseException | None = None
        self.act_at: tuple[int, Act] = (-1, lambda: None)
        self._awaited = 0
        self.pipeline = Pipeline(
            {PATH: self._handle}, self.gate, log or self._capturing(), {PATH: self._stream}
        )

    def _capturing(self) -> Any:
        return structlog.wrap_logger(
            None,
            processors=[self.captured],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )

    async def _await(self) -> None:
        """Stand for whatever a call waits for; at one of these, a test may act."""
        at, act = self.act_at
        if self._awaited == at:
            act()
        self._awaited += 1
        await asyncio.sleep(0)

    async def receive(self) -> betterproto.Message:
        self.received += 1
        await self._await()
        return self.request

    async def _handle(self, request: betterproto.Message, call: Call) -> betterproto.Message:
        await self._await()
        if self.outcome is not None:
            raise self.outcome
        await self._await()
        return REPLY

    async def _stream(
        self, request: betterproto.Message, call: Call
    ) -> AsyncGenerator[betterproto.Message]:
        try:
            await self._await()
            yield REPLY
            if self.outcome is not None:
                raise self.outcome
            await self._await()
            yield REPLY
        finally:
            self.stream_closed = True

    async def unary(self, call: Call = CALL) -> betterproto.Message:
        return await self.pipeline.unary(call, self.receive)

    async def stream(self, call: Call = CALL) -> list[betterproto.Message]:
        return [reply async for reply in self.pipeline.stream(call, self.receive)]

    def line(self) -> dict[str, Any]:
        """Return the one line that was logged."""
        [line] = self.captured.entries
        return dict(line)

    def nothing_leaked(self) -> bool:
        return not self.gate.inside


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[float]], None]:
    """Return a function that says what the pipeline's stopwatch shows, reading by reading."""

    def show(readings: Iterable[float]) -> None:
        fake = SimpleNamespace(perf_counter=iter(readings).__next__, monotonic=time.monotonic)
        monkeypatch.setattr(pipeline_module, "time", fake)

    return show


# What the log says


async def test_a_call_is_answered_and_logged(
    rig: Rig, clock: Callable[[Iterable[float]], None]
) -> None:
    clock([10.0, 10.0123456])

    assert await rig.unary() is REPLY

    assert rig.line() == {
        "event": "request",
        "log_level": "info",
        "method": "LookupColony",
        "protocol": "grpc",
        "mesh_id": "mesh-1",
        "peer": "203.0.113.5",
        "status": "OK",
        "ms": 12.346,
    }
    assert rig.nothing_leaked()


async def test_a_caller_without_an_address_is_logged_without_one(rig: Rig) -> None:
    await rig.unary(Call(PATH, "connect"))

    assert (rig.line()["peer"], rig.line()["protocol"]) == (None, "connect")


async def test_a_request_without_a_mesh_is_logged_without_one(rig: Rig) -> None:
    rig.request = HealthRequest()
    await rig.unary()

    assert rig.line()["mesh_id"] is None


@pytest.mark.parametrize(
    "error",
    [
        NotRegisteredError("mesh-1"),
        MeshIdTakenError("mesh-1", 0),
        StoreUnavailableError("no store"),
        MalformedMessageError("no message"),
        *(OtherError(code, "", "") for code in Code),
    ],
    ids=lambda error: f"{type(error).__name__}-{error.code.name}",
)
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_an_error_reaches_the_client_and_its_status_the_log(
    rig: Rig, error: DiscoveryError, kind: str
) -> None:
    rig.outcome = error

    with pytest.raises(type(error)) as raised:
        await getattr(rig, kind)()

    assert raised.value is error
    assert rig.line()["status"] == error.code.name
    assert rig.line()["mesh_id"] == "mesh-1"
    assert "exc_info" not in rig.line()
    assert rig.nothing_leaked()


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_message_that_cannot_be_received_is_logged_without_a_mesh(
    rig: Rig, kind: str
) -> None:
    async def receive() -> betterproto.Message:
        raise MalformedMessageError("no message")

    rig.receive = receive  # type: ignore[method-assign]

    with pytest.raises(MalformedMessageError):
        await getattr(rig, kind)()

    assert rig.line()["status"] == "INTERNAL"
    assert rig.line()["mesh_id"] is None


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_method_that_is_not_served_is_unimplemented(rig: Rig, kind: str) -> None:
    with pytest.raises(UnimplementedError):
        await getattr(rig, kind)(Call("/a.Service/Other", "grpc"))

    assert rig.received == 0
    assert (rig.line()["method"], rig.line()["status"]) == ("Other", "UNIMPLEMENTED")
    assert rig.nothing_leaked()


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_draining_server_refuses_calls_without_reading_them(rig: Rig, kind: str) -> None:
    await rig.gate.drain(0)

    with pytest.raises(DrainingError):
        await getattr(rig, kind)()

    assert rig.received == 0
    assert rig.line()["status"] == "UNAVAILABLE"


async def test_what_an_adapter_refuses_is_logged_too(rig: Rig) -> None:
    rig.pipeline.refuse(CALL, UnimplementedError("no such encoding"))

    line = rig.line()
    assert (line["method"], line["status"]) == ("LookupColony", "UNIMPLEMENTED")


# Defects


@pytest.mark.parametrize("defect", [KeyError("boom"), RuntimeError("boom"), OSError("boom")])
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_defect_is_told_to_the_log_and_not_to_the_client(
    rig: Rig, defect: Exception, kind: str
) -> None:
    rig.outcome = defect

    with pytest.raises(InternalError) as told:
        await getattr(rig, kind)()

    assert b"boom" not in bytes(status_of(told.value))
    assert rig.line()["status"] == "INTERNAL"
    assert rig.line()["log_level"] == "error"
    assert rig.line()["exc_info"] is defect
    assert rig.nothing_leaked()


async def test_only_a_defect_is_logged_as_an_error(rig: Rig) -> None:
    rig.outcome = StoreUnavailableError("no store")
    with pytest.raises(StoreUnavailableError):
        await rig.unary()

    assert rig.line()["log_level"] != "error"


# Cancellation


def _cancel_this_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("at", range(AWAITS))
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_cancelled_at_any_await_a_call_is_logged_and_leaves_nothing(
    rig: Rig, kind: str, at: int
) -> None:
    rig.act_at = (at, _cancel_this_task)
    task = asyncio.create_task(getattr(rig, kind)())

    with pytest.raises(asyncio.CancelledError):
        await task

    assert rig.line()["status"] == "CANCELLED"
    assert rig.nothing_leaked()
    assert rig.stream_closed == (kind == "stream" and at > 0)


@pytest.mark.parametrize("at", range(AWAITS))
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_expelled_at_any_await_a_call_is_told_that_the_server_stops(
    rig: Rig, kind: str, at: int
) -> None:
    rig.act_at = (at, rig.gate.expel)
    task = asyncio.create_task(getattr(rig, kind)())

    with pytest.raises(DrainingError):
        await task

    assert rig.line()["status"] == "UNAVAILABLE"
    assert rig.nothing_leaked()


@pytest.mark.parametrize(
    "left, status",
    [
        (None, "CANCELLED"),
        (3600, "CANCELLED"),
        (-1, "DEADLINE_EXCEEDED"),
        (pipeline_module._EARLY, "DEADLINE_EXCEEDED"),
    ],
)
async def test_a_cancellation_after_the_deadline_is_the_deadlines(
    rig: Rig, left: float | None, status: str
) -> None:
    deadline = None if left is None else time.monotonic() + left
    rig.act_at = (1, _cancel_this_task)
    task = asyncio.create_task(rig.unary(Call(PATH, "grpc", deadline=deadline)))

    with pytest.raises(asyncio.CancelledError):
        await task

    assert rig.line()["status"] == status


# Streams


async def test_a_stream_passes_every_reply_and_is_logged_once_it_is_over(rig: Rig) -> None:
    replies = rig.pipeline.stream(CALL, rig.receive)

    assert await anext(replies) is REPLY
    assert await anext(replies) is REPLY
    assert rig.captured.entries == []
    with pytest.raises(StopAsyncIteration):
        await anext(replies)

    assert rig.line()["status"] == "OK"
    assert rig.nothing_leaked()


async def test_a_stream_that_its_client_leaves_is_closed_and_logged(rig: Rig) -> None:
    replies = rig.pipeline.stream(CALL, rig.receive)
    await anext(replies)
    await replies.aclose()

    assert rig.stream_closed
    assert rig.line()["status"] == "CANCELLED"
    assert rig.nothing_leaked()


class Patience:
    """Replies that can be waited for: none before `ready`."""

    def __init__(self) -> None:
        self.ready = True
        self.closed = False
        self.wake: Callable[[], object] | None = None

    def __aiter__(self) -> Patience:
        return self

    async def __anext__(self) -> betterproto.Message:
        self.ready = False
        return REPLY

    async def join(self) -> None: ...

    def wait(self, wake: Callable[[], object]) -> bool:
        self.wake = wake
        return not self.ready

    async def aclose(self) -> None:
        self.closed = True


async def test_a_stream_of_a_generator_cannot_be_left_to_wait(rig: Rig) -> None:
    replies = rig.pipeline.stream(CALL, rig.receive)
    await anext(replies)
    assert not replies.wait(lambda: None)
    await replies.aclose()


@pytest.mark.parametrize("stops", [False, True], ids=["its client leaves", "the server stops"])
async def test_a_stream_that_is_left_to_wait_can_be_ended(rig: Rig, *, stops: bool) -> None:
    class Carrier:
        cancels = 0

        def cancel(self) -> None:
            self.cancels += 1

        def uncancel(self) -> int:
            self.cancels -= 1
            return self.cancels

    patience, carrier = Patience(), Carrier()
    rig.pipeline._streams = {PATH: lambda _request, _call: patience}
    replies = rig.pipeline.stream(CALL, rig.receive, carrier)
    await anext(replies)
    assert replies.wait(carrier.cancel)
    assert patience.wake == carrier.cancel
    assert not rig.nothing_leaked()

    if stops:
        rig.gate.expel()
        assert carrier.cancels == 1
    with pytest.raises(DrainingError if stops else asyncio.CancelledError):
        await replies.cancel()

    assert replies.over
    assert patience.closed
    assert carrier.cancels == 0
    assert rig.line()["status"] == ("UNAVAILABLE" if stops else "CANCELLED")
    assert rig.nothing_leaked()
    with pytest.raises(StopAsyncIteration):
        await anext(replies)


# Hostile and secret values, through the formatters that write the log


@pytest.fixture(params=["console", "json"])
def log_format(request: pytest.FixtureRequest, root_logger: object) -> LogFormat:
    chosen: LogFormat = request.param
    return chosen


async def _logged(rig: Rig, stream: io.StringIO, call: Call = CALL) -> str:
    with suppress(DiscoveryError):
        await rig.unary(call)
    return stream.getvalue()


def _fields(line: str, log_format: LogFormat) -> dict[str, Any]:
    """Return what the reader of a line of the log takes for its fields."""
    if log_format == "json":
        return dict(json.loads(line))
    return dict(token.split("=", 1) for token in shlex.split(line) if "=" in token)


@pytest.mark.parametrize(
    "mesh_id",
    [
        'x", "status": "NOT_FOUND", "forged": "1',
        "x\nforged",
        "x\r\nforged",
        "x status=NOT_FOUND forged=1",
        "x\x1b[2Jforged",
        "x\0\x07\x85\u2028forged",
        "\n" * 10_000,
        "\U0001fab8" * 10_000,
        "x" * 10_000,
    ],
    ids=lambda mesh_id: ascii(mesh_id[:20]),
)
async def test_a_hostile_mesh_id_neither_forges_nor_swells_the_log(
    log_format: LogFormat, mesh_id: str
) -> None:
    stream = io.StringIO()
    rig = Rig(set_up_logs("info", log_format, stream))
    rig.request = LookupColonyRequest(mesh_id)

    written = await _logged(rig, stream)

    assert len(written) < 4096
    assert written.endswith("\n")
    assert written[:-1].isprintable()
    fields = _fields(written, log_format)
    assert fields["status"] == "OK"
    assert "forged" not in fields


async def test_a_valid_mesh_id_is_logged_as_it_is(log_format: LogFormat) -> None:
    stream = io.StringIO()
    rig = Rig(set_up_logs("info", log_format, stream))
    rig.request = LookupColonyRequest("My-App.prod_2")

    assert "My-App.prod_2" in await _logged(rig, stream)


SECRETS = ("hunter2", "hunter3")


@pytest.mark.parametrize(
    "outcome", [None, NotRegisteredError("mesh-1"), KeyError("boom")], ids=["ok", "error", "defect"]
)
async def test_nothing_secret_is_logged(log_format: LogFormat, outcome: Exception | None) -> None:
    stream = io.StringIO()
    rig = Rig(set_up_logs("debug", log_format, stream))
    rig.request = RegisterColonyRequest(mesh_id="mesh-1", metadata={"token": SECRETS[0]})
    rig.outcome = outcome

    call = Call(PATH, "grpc", metadata={"authorization": f"Bearer {SECRETS[1]}"})
    written = await _logged(rig, stream, call)

    assert "mesh-1" in written
    assert not [secret for secret in SECRETS if secret in written]


async def test_a_defect_is_logged_with_its_traceback(log_format: LogFormat) -> None:
    stream = io.StringIO()
    rig = Rig(set_up_logs("info", log_format, stream))
    rig.outcome = KeyError("boom")

    written = await _logged(rig, stream)

    assert "KeyError" in written
    assert "boom" in written
    assert "_handle" in written


async def test_a_defect_is_one_line_of_json(root_logger: object) -> None:
    stream = io.StringIO()
    rig = Rig(set_up_logs("info", "json", stream))
    rig.outcome = KeyError("boom")

    [line] = (await _logged(rig, stream)).splitlines()

    assert json.loads(line)["status"] == "INTERNAL"
