"""Calls that the short cut has to wait for, and connections that it leaves idle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import betterproto
import pytest
import structlog

from discovery._gen.coral.discovery import v1 as pb
from discovery.errors import Code, NotRegisteredError
from discovery.transport import http1
from discovery.transport.bounds import Bounds
from discovery.transport.calming import Hush, keep_hearing
from discovery.transport.connect import ConnectApplication
from discovery.transport.connect_shortcut import ConnectShortCut
from discovery.transport.connections import Connections
from discovery.transport.drain import DrainGate
from discovery.transport.http1 import Http1Serving
from discovery.transport.http_app import http_application
from discovery.transport.pipeline import Account, Call, Pipeline
from discovery.transport.proxies import TrustedProxies
from tests.integration.raw import raw_socket
from tests.integration.support import LOOPBACK, PATIENCE
from tests.support import captured_logs

PATH = "/coral.discovery.v1.DiscoveryService/LookupColony"
REPLY = pb.LookupColonyResponse(mesh_id="m")
BODY = b'{"meshId":"m"}'
REQUEST = (
    f"POST {PATH} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
).encode() + BODY

LONG_WAY = REQUEST.replace(b" HTTP", b"?long=way HTTP")

Act = Callable[[Call], Awaitable[betterproto.Message]]


async def reply(_call: Call) -> betterproto.Message:
    return REPLY


def reply_after(go: asyncio.Event) -> Act:
    async def act(_call: Call) -> betterproto.Message:
        await go.wait()
        return REPLY

    return act


class Rig:
    """A server with one method, that does what it is told."""

    def __init__(self, bounds: Bounds, proxies: TrustedProxies, *, at_once: bool) -> None:
        self.gate = DrainGate()
        self.accounts: list[Account] = []
        self.act: Act = reply
        self.began = asyncio.Event()
        self.port = 0
        self.connections = Connections()
        pipeline = Pipeline(
            {PATH: self._handle},
            self.gate,
            structlog.get_logger(),
            witnesses=[self.accounts.append],
        )
        connect = ConnectApplication(pipeline, bounds.request_bytes)
        application = http_application(pipeline, proxies, connect, ())
        short_cut = ConnectShortCut(
            pipeline, proxies, bounds, pb.DiscoveryServiceBase, at_once=at_once
        )
        self.serving = Http1Serving(application, self.connections, bounds, short_cut)

    async def _handle(self, _message: betterproto.Message, call: Call) -> betterproto.Message:
        self.began.set()
        return await self.act(call)

    @property
    def codes(self) -> list[Code]:
        return [account.code for account in self.accounts]


@asynccontextmanager
async def serving(
    bounds: Bounds | None = None, proxies: TrustedProxies | None = None, *, at_once: bool = True
) -> AsyncIterator[Rig]:
    rig = Rig(bounds or Bounds(), proxies or TrustedProxies(), at_once=at_once)
    with captured_logs():
        server = await asyncio.get_running_loop().create_server(rig.serving.connection, LOOPBACK, 0)
        rig.port = server.sockets[0].getsockname()[1]
        try:
            yield rig
        finally:
            server.close()
            await rig.gate.drain(0)
            await rig.connections.close(0)


@pytest.fixture(params=[True, False], ids=["at once", "later"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with serving(at_once=request.param) as rig:
        yield rig


async def ask(rig: Rig, times: int = 1) -> list[bytes]:
    """Make calls over one connection, and return the answers: the last chunk of each ends it."""
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        answers = []
        for _ in range(times):
            writer.write(REQUEST)
            answers.append(await reader.readuntil(b"0\r\n\r\n"))
    return answers


async def test_a_call_that_has_to_wait_is_carried_out_once_and_answered(rig: Rig) -> None:
    async def act(call: Call) -> betterproto.Message:
        call.reply_metadata["coral-staleness"] = "7"
        await asyncio.sleep(0.001)
        async with asyncio.timeout(60):  # needs a task
            await asyncio.sleep(0)
        return REPLY

    rig.act = act
    answers = await ask(rig, times=2)

    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"\r\ncoral-staleness: 7\r\n" in answer
        assert b'{"meshId":"m"}' in answer
    assert rig.codes == [Code.OK] * 2


async def test_what_goes_with_a_reply_goes_with_it_at_once(rig: Rig) -> None:
    async def act(call: Call) -> betterproto.Message:
        call.reply_metadata["coral-staleness"] = "7"
        return REPLY

    rig.act = act
    [answer] = await ask(rig)

    assert b"\r\nvary: Accept-Encoding\r\ncoral-staleness: 7\r\ndate: " in answer


async def test_a_defect_is_told_once(rig: Rig) -> None:
    async def act(_call: Call) -> betterproto.Message:
        raise RuntimeError

    rig.act = act
    [answer] = await ask(rig)

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"internal" in answer
    assert rig.codes == [Code.INTERNAL]


async def wait_for_ever(_call: Call) -> betterproto.Message:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("request_", [REQUEST, LONG_WAY], ids=["short", "long"])
async def test_a_call_that_waits_ends_with_the_time_that_its_client_has(
    rig: Rig, request_: bytes
) -> None:
    rig.act = wait_for_ever
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(request_.replace(b"\r\n\r\n", b"\r\nconnect-timeout-ms: 20\r\n\r\n"))
        answer = await reader.readuntil(b"0\r\n\r\n")

    error = json.loads(answer[answer.index(b"{") : answer.rindex(b"}") + 1])
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert error["code"] == "deadline_exceeded"
    assert error["message"] == "the call's deadline was exceeded"
    assert [detail["type"] for detail in error["details"]] == ["google.rpc.ErrorInfo"]
    assert rig.codes == [Code.DEADLINE_EXCEEDED]


async def test_a_call_whose_client_is_gone_is_over_and_counted_once(rig: Rig) -> None:
    over = asyncio.Event()

    async def act(_call: Call) -> betterproto.Message:
        try:
            await asyncio.Event().wait()
        finally:
            over.set()
        raise AssertionError

    rig.act = act
    async with raw_socket(rig.port) as (_, writer), asyncio.timeout(PATIENCE):
        writer.write(REQUEST)
        await rig.began.wait()
    async with asyncio.timeout(PATIENCE):
        await over.wait()

    assert await rig.gate.drain(0)
    assert rig.codes == [Code.CANCELLED]


@pytest.mark.parametrize(
    "at_once, waits, codes",
    [
        (True, True, [Code.CANCELLED]),
        (True, False, [Code.NOT_FOUND]),
        (False, True, []),  # it never began
    ],
)
async def test_a_client_that_is_gone_before_there_is_a_task_is_counted_once(
    *, at_once: bool, waits: bool, codes: list[Code]
) -> None:
    async def act(call: Call) -> betterproto.Message:
        if waits:
            await wait_for_ever(call)
        raise NotRegisteredError("m")

    async with serving(at_once=at_once) as rig, raw_socket(rig.port) as (_, writer):
        rig.act = act
        connection = rig.serving.connection()
        connection.connection_made(cast("asyncio.Transport", writer.transport))  # any will do
        connection.data_received(REQUEST)
        connection.connection_lost(ConnectionResetError())
        for _ in range(3):
            await asyncio.sleep(0)

        assert rig.codes == codes
        assert await rig.gate.drain(0)


async def test_an_answer_that_comes_as_its_client_leaves_leaves_nothing(rig: Rig) -> None:
    go = asyncio.Event()
    rig.act = reply_after(go)
    connection = rig.serving.connection()
    async with raw_socket(rig.port) as (_, writer), asyncio.timeout(PATIENCE):
        connection.connection_made(cast("asyncio.Transport", writer.transport))  # any will do
        connection.data_received(REQUEST)
        await rig.began.wait()
        waiting = cast("asyncio.Task[bytes]", connection._waiting)
        waiting.remove_done_callback(connection._go_on)
        waiting.add_done_callback(lambda _: writer.transport.close())
        waiting.add_done_callback(lambda _: connection.connection_lost(None))
        waiting.add_done_callback(connection._go_on)
        go.set()
        await waiting
        await asyncio.sleep(0)

    assert rig.codes == [Code.OK]
    assert not connection._rest.armed


async def test_a_call_under_way_when_the_server_stops_has_its_answer_and_the_connection_ends(
    rig: Rig,
) -> None:
    go = asyncio.Event()
    rig.act = reply_after(go)
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(REQUEST)
        await rig.began.wait()
        rig.connections.dismiss()
        go.set()
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("request_", [REQUEST, LONG_WAY], ids=["short", "long"])
async def test_who_connects_while_the_server_leaves_is_answered_once(
    rig: Rig, request_: bytes
) -> None:
    rig.connections.dismiss()
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(request_)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"0\r\n\r\n")
    assert rig.codes == [Code.OK]
    assert not rig.connections._open


async def test_who_connects_while_the_server_leaves_and_says_nothing_is_sent_away(
    rig: Rig,
) -> None:
    rig.connections.dismiss()
    async with raw_socket(rig.port) as (reader, _), asyncio.timeout(PATIENCE):
        while not rig.connections._open:  # noqa: ASYNC110 - it is about to be
            await asyncio.sleep(0)
        await rig.connections.close(0.01)
        assert await reader.read() == b""


async def test_a_call_that_outlasts_the_drain_is_told_so(rig: Rig) -> None:
    rig.act = wait_for_ever
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(REQUEST)
        await rig.began.wait()
        await asyncio.sleep(0)  # by when there is a task
        assert not await rig.gate.drain(0)
        answer = await reader.readuntil(b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"the server is stopping" in answer
    assert rig.codes == [Code.UNAVAILABLE]


@pytest.mark.parametrize("waits", [True, False])
async def test_an_answer_that_cannot_be_written_ends_the_connection(
    rig: Rig, *, waits: bool
) -> None:
    async def act(_call: Call) -> betterproto.Message:
        if waits:
            await asyncio.sleep(0)
        return cast("betterproto.Message", object())

    rig.act = act
    problems = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: problems.append(said))
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(REQUEST)
        assert await reader.read() == b""
    assert len(problems) == 1


async def test_while_the_server_stops_a_call_is_refused_once(rig: Rig) -> None:
    rig.gate.close()

    [answer] = await ask(rig)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert rig.codes == [Code.UNAVAILABLE]


# -- Connections ----------------------------------------------------------------------------------


async def test_a_connection_that_rests_for_too_long_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1, "_IDLE_TIMEOUT", 0.05)
    async with (
        serving() as rig,
        raw_socket(rig.port) as (reader, writer),
        asyncio.timeout(PATIENCE),
    ):
        writer.write(REQUEST)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"0\r\n\r\n")


async def test_a_connection_that_is_used_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it while the long way answers: neither is stopped by the other's clock."""
    monkeypatch.setattr(http1, "_IDLE_TIMEOUT", 0.2)

    async def act(_call: Call) -> betterproto.Message:
        await asyncio.sleep(0.4)
        return REPLY

    async with (
        serving() as rig,
        raw_socket(rig.port) as (reader, writer),
        asyncio.timeout(PATIENCE),
    ):
        for number in range(6):
            rig.act = act if number % 3 == 1 else reply
            writer.write(REQUEST)
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert rig.codes == [Code.OK] * 6


async def test_a_short_call_after_a_long_one_stops_the_long_ways_clock(rig: Rig) -> None:
    """Else that would close the connection, however much it is used meanwhile."""

    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        clocks = []
        for request in (LONG_WAY, REQUEST):
            writer.write(request)
            await reader.readuntil(b"0\r\n\r\n")
            [connection] = rig.connections._open
            clocks.append(cast("http1.Http1Connection", connection).timeout_keep_alive_task)
    assert clocks[0] is not None
    assert clocks[1] is None


async def test_a_request_that_comes_again_has_a_deadline_and_an_answer_of_its_own(rig: Rig) -> None:
    calls: list[Call] = []

    async def act(call: Call) -> betterproto.Message:
        calls.append(call)
        return REPLY

    rig.act = act
    request = REQUEST.replace(b"\r\n\r\n", b"\r\nconnect-timeout-ms: 60000\r\n\r\n")
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        for _ in range(2):
            writer.write(request)
            await reader.readuntil(b"0\r\n\r\n")
    one, other = calls
    assert one.deadline is not None
    assert other.deadline is not None
    assert one.deadline < other.deadline
    assert one.reply_metadata is not other.reply_metadata


@pytest.mark.parametrize("padding, kept", [(1, True), (2048, False)])
async def test_a_connection_keeps_its_last_request_unless_that_is_long(
    rig: Rig, padding: int, kept: bool
) -> None:
    request = REQUEST.replace(b"\r\n\r\n", b"\r\nx-padding: " + b"x" * padding + b"\r\n\r\n")
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        for _ in range(2):
            writer.write(request)
            await reader.readuntil(b"0\r\n\r\n")
        [connection] = rig.connections._open
        assert (cast("http1.Http1Connection", connection)._asked is not None) is kept
    assert rig.codes == [Code.OK] * 2


@pytest.mark.parametrize(
    "proxies, forwarded, heard",
    [
        pytest.param((), b"", False, id="a caller"),
        pytest.param((), b"x-forwarded-for: 203.0.113.9\r\n", False, id="who says to be a proxy"),
        pytest.param((LOOPBACK,), b"x-forwarded-for: 203.0.113.9\r\n", True, id="a proxy"),
    ],
)
async def test_only_a_callers_own_connection_can_be_hushed(
    proxies: Sequence[str], forwarded: bytes, heard: bool
) -> None:
    """A trusted proxy's has others' calls too."""
    hushes: list[Hush] = []

    async def act(call: Call) -> betterproto.Message:
        hushes.append(call.hush)
        return REPLY

    async with (
        serving(proxies=TrustedProxies(proxies)) as rig,
        raw_socket(rig.port) as (reader, writer),
        asyncio.timeout(PATIENCE),
    ):
        rig.act = act
        writer.write(REQUEST.replace(b"content-type", forwarded + b"content-type"))
        await reader.readuntil(b"0\r\n\r\n")
    assert [hush is keep_hearing for hush in hushes] == [heard]


@pytest.mark.parametrize("first", [REQUEST, LONG_WAY])
async def test_a_request_that_is_too_slow_is_told_so_after_others_too(first: bytes) -> None:
    async with (
        serving(Bounds(request_seconds=0.1)) as rig,
        raw_socket(rig.port) as (reader, writer),
        asyncio.timeout(PATIENCE),
    ):
        writer.write(first)
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(REQUEST[:20])
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert rig.codes == [Code.OK]


@pytest.mark.parametrize("first", [REQUEST, LONG_WAY])
@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["headers go on", "headers end"])
async def test_headers_that_are_too_large_are_told_so_after_others_too(
    first: bytes, end: bytes
) -> None:
    async with (
        serving(Bounds(header_bytes=1000)) as rig,
        raw_socket(rig.port) as (reader, writer),
        asyncio.timeout(PATIENCE),
    ):
        writer.write(first)
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"GET / HTTP/1.1\r\na: " + b"b" * 1100 + end)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_first_request_that_takes_the_short_cut_is_in_time() -> None:
    """Nothing more has to come on its connection."""
    async with (
        serving(Bounds(request_seconds=0.1)) as rig,
        raw_socket(rig.port) as (reader, writer),
        asyncio.timeout(PATIENCE),
    ):
        for _ in range(2):
            writer.write(REQUEST)
            await reader.readuntil(b"0\r\n\r\n")
            await asyncio.sleep(0.2)

    assert rig.codes == [Code.OK] * 2


async def test_a_client_that_takes_no_answers_goes_the_long_way(rig: Rig) -> None:
    """There, what it asks waits until it takes the answers before."""
    connection = rig.serving.connection()
    async with raw_socket(rig.port) as (_, writer):
        connection.connection_made(cast("asyncio.Transport", writer.transport))
        connection.pause_writing()
        connection.data_received(REQUEST)
        assert not rig.codes
        connection.resume_writing()
        await asyncio.gather(*connection.tasks)
    assert rig.codes == [Code.OK]
    connection.connection_lost(None)


async def test_a_request_behind_one_under_way_waits_for_its_turn(rig: Rig) -> None:
    go, calls = asyncio.Event(), iter(range(9))

    async def act(call: Call) -> betterproto.Message:
        return await (reply_after(go) if next(calls) == 0 else reply)(call)

    rig.act = act
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(REQUEST)
        await rig.began.wait()
        writer.write(REQUEST)
        await ask(rig)  # by when the one before has been read
        assert len(rig.accounts) == 1
        go.set()
        for _ in range(2):
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert rig.codes == [Code.OK] * 3


async def test_a_body_that_looks_like_a_request_is_none(rig: Rig) -> None:
    head = REQUEST.removesuffix(BODY).replace(b"14", str(len(REQUEST)).encode())
    async with raw_socket(rig.port) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(head)
        await ask(rig)  # by when the head has been read
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    assert rig.codes == [Code.OK, Code.INVALID_ARGUMENT]
