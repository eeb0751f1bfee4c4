"""A clean stop finishes what is in flight and tells everybody else; no call is left without a status (promise 6)."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from h2.errors import ErrorCodes

from discovery.client import DiscoveryClient
from discovery.errors import Code, DiscoveryError, DrainingError
from tests.integration.grpcio_client import Failure, Schema, grpcio_client
from tests.integration.raw import Answer, RawConnection, framed, raw_connection, request_headers
from tests.integration.support import (
    PATIENCE,
    Running,
    ServerProcess,
    running,
    server_process,
)
from tests.support import MESH, registration

LONG = 3600.0
OK, UNAVAILABLE = 0, 14


def assert_draining(answer: Answer) -> None:
    """The whole answer to a call that a stop refuses or cuts short, and not only a reset."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in answer.details.details:
        detail.Unpack(info)
        detail.Unpack(retry)
    assert answer.ended
    assert answer.status == UNAVAILABLE
    assert info.reason == "DRAINING"
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0


class Stopping:
    """A server that is stopping, because a call is in flight whose body does not come."""

    def __init__(self, server: Running, connection: RawConnection) -> None:
        self.server = server
        self.connection = connection
        self.in_flight = connection.begin(request_headers("Health"))

    async def begin(self) -> None:
        await self.connection.seen()
        self._stop = asyncio.create_task(self.server.server.stop())
        await self.connection.seen()

    def finish(self) -> None:
        """Send the body that the call waits for."""
        self.connection.data(self.in_flight, framed(b""))

    async def answer(self) -> Answer:
        await self.connection.send()
        return await self.connection.answer(self.in_flight)

    @property
    def over(self) -> bool:
        return self._stop.done()

    async def end(self) -> None:
        """Wait for the end of the stop, which waits for the client to leave."""
        await self.connection.close()
        async with asyncio.timeout(PATIENCE):
            await self._stop


@asynccontextmanager
async def stopping(grace: float) -> AsyncIterator[Stopping]:
    async with running(drain_timeout=grace) as server, raw_connection(server.port) as connection:
        stop = Stopping(server, connection)
        await stop.begin()
        yield stop
        await stop.end()


# -- What a stop does, in this process --------------------------------------------------------------


async def test_a_call_in_flight_that_ends_in_time_is_answered() -> None:
    async with stopping(grace=LONG) as stop:
        stop.finish()
        assert (await stop.answer()).status == OK


async def test_a_call_in_flight_that_does_not_end_in_time_is_told_why() -> None:
    async with stopping(grace=0.05) as stop:
        assert_draining(await stop.answer())


async def test_a_new_call_is_refused_on_an_old_connection() -> None:
    async with stopping(grace=LONG) as stop:
        late = stop.connection.request("Health", b"")
        await stop.connection.send()
        assert_draining(await stop.connection.answer(late))
        assert not stop.over
        stop.finish()
        assert (await stop.answer()).status == OK


async def test_a_new_call_is_refused_on_a_new_connection() -> None:
    async with stopping(grace=LONG) as stop:
        async with DiscoveryClient(stop.server.url, timeout=PATIENCE) as late:
            with pytest.raises(DrainingError) as caught:
                await late.health()
        assert caught.value.retry_after == 1.0
        stop.finish()
        assert (await stop.answer()).status == OK


async def test_a_client_is_asked_to_leave_once_its_calls_are_answered() -> None:
    """The GOAWAY names no last stream: what the client sent before it read this is answered too."""
    async with stopping(grace=LONG) as stop:
        assert not stop.connection.goaways
        stop.finish()
        await stop.answer()
        await stop.connection.sent_away()
        [goaway] = stop.connection.goaways
        assert (goaway.error_code, goaway.last_stream_id) == (ErrorCodes.NO_ERROR, 2**31 - 1)
        late = stop.connection.request("Health", b"")
        await stop.connection.send()
        assert_draining(await stop.connection.answer(late))


# -- Before calls are refused -----------------------------------------------------------------------


async def answers(connection: RawConnection) -> bool:
    call = connection.request("Health", b"")
    await connection.send()
    return (await connection.answer(call)).status == OK


async def test_a_stop_that_is_announced_is_not_ready_and_answers_every_call() -> None:
    async with running(drain_delay=LONG) as server, raw_connection(server.port) as old:
        await old.seen()
        stop = asyncio.create_task(server.server.stop())
        await asyncio.sleep(0)
        with pytest.raises(DrainingError):
            await server.server._check_serving()
        assert await answers(old)
        async with DiscoveryClient(server.url, timeout=PATIENCE) as late:
            assert (await late.health()).status == "ok"
        assert not old.goaways
        server.server.hurry()
        refused = old.request("Health", b"")
        await old.send()
        assert_draining(await old.answer(refused))
        await old.close()
        await stop


async def test_clients_that_are_sent_away_are_answered_meanwhile() -> None:
    async with running() as server, raw_connection(server.port) as old:
        await old.seen()
        sending = asyncio.create_task(server.server._listener.send_away(LONG))
        await old.sent_away()
        assert await answers(old)
        async with raw_connection(server.port) as late:
            await late.sent_away()
            assert await answers(late)
        server.server.hurry()
        await sending


async def test_a_client_that_is_never_idle_is_sent_away_in_the_end_and_answered() -> None:
    async with running() as server, raw_connection(server.port) as busy:
        call = busy.begin(request_headers("Health"))
        await busy.seen()
        await server.server._listener.send_away(0.01)
        await busy.sent_away()
        [goaway] = busy.goaways
        assert (goaway.error_code, goaway.last_stream_id) == (ErrorCodes.NO_ERROR, 2**31 - 1)
        assert await answers(busy)
        busy.data(call, framed(b""))
        await busy.send()
        assert (await busy.answer(call)).status == OK


async def test_a_client_that_does_not_leave_is_disconnected() -> None:
    async with running(drain_timeout=0.05) as server, raw_connection(server.port) as connection:
        await connection.seen()
        await server.server.stop()
        await connection.closed_by_server()
        assert connection.goaways


async def test_whoever_is_in_a_hurry_ends_the_wait() -> None:
    async with stopping(grace=LONG) as stop:
        stop.server.server.hurry()
        stop.server.server.hurry()
        assert_draining(await stop.answer())


# -- The signals, in a process of its own --------------------------------------------------------------


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that would wait for ever."""
    with server_process(tmp_path, "--drain-timeout", str(LONG)) as process:
        yield process


async def until_draining(server: ServerProcess) -> None:
    """Return once new calls are refused."""
    async with (
        asyncio.timeout(PATIENCE),
        DiscoveryClient(server.url, timeout=PATIENCE) as client,
    ):
        while True:
            try:
                await client.health()
            except DrainingError:
                return


async def test_a_signal_lets_a_call_in_flight_end(patient: ServerProcess) -> None:
    async with raw_connection(patient.port) as connection:
        stream = connection.begin(request_headers("Health"))
        await connection.seen()
        patient.signal()
        await until_draining(patient)
        connection.data(stream, framed(b""))
        await connection.send()
        assert (await connection.answer(stream)).status == OK
    assert await asyncio.to_thread(patient.exit_code) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_wait(
    patient: ServerProcess, second: signal.Signals
) -> None:
    async with raw_connection(patient.port) as connection:
        stream = connection.begin(request_headers("Health"))
        await connection.seen()
        patient.signal()
        await until_draining(patient)
        patient.signal(second)
        assert_draining(await connection.answer(stream))
    assert await asyncio.to_thread(patient.exit_code) == 0


# -- Under load ---------------------------------------------------------------------------------------


class Load:
    """Clients that call without a pause until the server is gone, and keep count of what became of each call."""

    def __init__(self, busy_after: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.busy = threading.Event()
        self.gone = threading.Event()
        self._busy_after = busy_after
        self._lock = threading.Lock()

    def note(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1
            if self.outcomes["OK"] >= self._busy_after:
                self.busy.set()

    def call_with_grpcio(self, schema: Schema, port: int) -> None:
        with grpcio_client(schema, port) as client:
            lookup, request = client.method("LookupColony"), {"mesh_id": MESH}
            message = schema.new("LookupColonyRequest", **request)
            while not self.gone.is_set():
                self.note(code_of(lambda: lookup(message, timeout=PATIENCE)))

    async def call_with_our_client(self, url: str) -> None:
        async with DiscoveryClient(url, timeout=PATIENCE) as client:
            while not self.gone.is_set():
                try:
                    await client.register_colony(registration())
                except DiscoveryError as error:
                    self.note(error.code.name)
                else:
                    self.note("OK")


def code_of(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return Failure(error).code.name
    return "OK"


async def test_under_load_no_call_is_left_without_a_status(
    child: ServerProcess, schema: Schema
) -> None:
    load = Load(busy_after=300)
    async with DiscoveryClient(child.url, timeout=PATIENCE) as client:
        await client.register_colony(registration())
    with ThreadPoolExecutor(8) as threads:
        work = [
            *(
                asyncio.wrap_future(threads.submit(load.call_with_grpcio, schema, child.port))
                for _ in range(4)
            ),
            *(asyncio.create_task(load.call_with_our_client(child.url)) for _ in range(4)),
        ]
        try:
            assert await asyncio.to_thread(load.busy.wait, PATIENCE), load.outcomes
            child.signal()
            assert await asyncio.to_thread(child.exit_code) == 0
        finally:
            load.gone.set()
            await asyncio.gather(*work)
    assert load.outcomes.keys() <= {Code.OK.name, Code.UNAVAILABLE.name}
