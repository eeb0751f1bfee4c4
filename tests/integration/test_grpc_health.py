"""grpc.health.v1, as grpcio's own package sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from discovery.errors import StoreUnavailableError
from discovery.models import Counts
from discovery.transport import grpc_health
from tests.integration.grpcio_client import SERVICE
from tests.integration.raw import Header, framed, raw_connection, request_headers
from tests.integration.support import LOOPBACK, PATIENCE, Running, running

Code = grpc.StatusCode
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN

KNOWN = pytest.mark.parametrize("service", ["", SERVICE])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_health, "INTERVAL", 0.005)


@pytest.fixture
async def health(server: Running) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{server.port}") as channel:
        yield HealthStub(channel)


async def check(health: Any, service: str = "") -> int:
    reply = await health.Check(HealthCheckRequest(service=service), timeout=PATIENCE)
    return int(reply.status)


def breaks(server: Running, failure: Callable[[], Awaitable[int]]) -> None:
    """Have the store fail."""

    async def count(**_: Any) -> Counts:
        await failure()
        raise AssertionError

    server.server._store.count = count  # type: ignore[method-assign]


def mends(server: Running) -> None:
    del server.server._store.count


async def refuses() -> int:
    raise StoreUnavailableError("the store is away")


async def hangs() -> int:
    await asyncio.Event().wait()
    return 0


async def has_a_defect() -> int:
    raise ZeroDivisionError("a defect")


# -- Check and List -------------------------------------------------------------------------------


@KNOWN
async def test_a_server_that_serves_says_so(health: Any, service: str) -> None:
    assert await check(health, service) == SERVING


async def test_a_service_that_is_not_served_is_not_found(health: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await check(health, "coral.discovery.v2.DiscoveryService")
    assert caught.value.code() is Code.NOT_FOUND


async def test_list_has_every_service(health: Any) -> None:
    reply = await health.List(health_pb2.HealthListRequest(), timeout=PATIENCE)
    assert {name: reply.statuses[name].status for name in reply.statuses} == {
        "": SERVING,
        SERVICE: SERVING,
    }


async def test_a_check_is_no_call_of_ours(health: Any, server: Running) -> None:
    """Probes come every few seconds for as long as the server runs: its log and its counts are for calls."""
    await check(health)
    assert not server.requests()


# -- The store ------------------------------------------------------------------------------------


async def statuses(watch: Any) -> AsyncIterator[int]:
    async for reply in watch:
        yield reply.status


@KNOWN
@pytest.mark.parametrize("failure", [refuses, hangs, has_a_defect])
async def test_the_status_follows_the_store(
    health: Any,
    server: Running,
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    failure: Callable[[], Awaitable[int]],
) -> None:
    monkeypatch.setattr(grpc_health, "TIMEOUT", 0.05)
    watch = health.Watch(HealthCheckRequest(service=service), timeout=PATIENCE)
    told = statuses(watch)
    assert await anext(told) == SERVING

    breaks(server, failure)
    assert await anext(told) == NOT_SERVING
    assert await check(health, service) == NOT_SERVING
    reply = await health.List(health_pb2.HealthListRequest(), timeout=PATIENCE)
    assert reply.statuses[service].status == NOT_SERVING

    mends(server)
    assert await anext(told) == SERVING
    assert await check(health, service) == SERVING
    watch.cancel()


async def test_an_outage_is_logged_once_and_so_is_its_end(health: Any, server: Running) -> None:
    told = statuses(watch := health.Watch(HealthCheckRequest(), timeout=PATIENCE))
    asked = asyncio.Semaphore(0)

    async def counted() -> int:
        asked.release()
        return await refuses()

    await anext(told)
    breaks(server, counted)
    for _ in range(3):
        await asked.acquire()
    mends(server)
    assert (await anext(told), await anext(told)) == (NOT_SERVING, SERVING)
    watch.cancel()
    lines = [
        (e["log_level"], e.get("error")) for e in server.log.entries if "serving:" in e["event"]
    ]
    assert lines == [("warning", "the store is away"), ("info", None)]


async def test_a_defect_is_logged_with_its_traceback(health: Any, server: Running) -> None:
    told = statuses(watch := health.Watch(HealthCheckRequest(), timeout=PATIENCE))
    await anext(told)
    breaks(server, has_a_defect)
    await anext(told)
    watch.cancel()
    [line] = [entry for entry in server.log.entries if entry["log_level"] == "warning"]
    assert isinstance(line["exc_info"], ZeroDivisionError)


async def test_clients_do_not_burden_the_store(health: Any, server: Running) -> None:
    asked = 0

    async def never_answers() -> int:
        nonlocal asked
        asked += 1
        return await hangs()

    breaks(server, never_answers)
    await asyncio.gather(*(check(health) for _ in range(50)))
    assert asked <= 1


# -- Watch ----------------------------------------------------------------------------------------


async def test_an_unknown_service_may_be_watched(health: Any, server: Running) -> None:
    """It might become known, so the stream stays open; here it never does, whatever the store does."""
    told = statuses(watch := health.Watch(HealthCheckRequest(service="no"), timeout=PATIENCE))
    known = statuses(other := health.Watch(HealthCheckRequest(), timeout=PATIENCE))
    assert (await anext(told), await anext(known)) == (SERVICE_UNKNOWN, SERVING)
    breaks(server, refuses)
    assert await anext(known) == NOT_SERVING
    assert not watch.done()
    watch.cancel()
    other.cancel()


async def test_a_watch_ends_with_its_deadline(server: Running) -> None:
    async with raw_connection(server.port) as raw:
        stream = raw.begin(headers_for("Watch", ("grpc-timeout", "200m")))
        raw.data(stream, framed(b""))
        await raw.send()
        assert (await raw.answer(stream)).status == Code.DEADLINE_EXCEEDED.value[0]


def headers_for(method: str, *more: Header) -> list[Header]:
    path: Header = (":path", f"/{grpc_health.SERVICE}/{method}")
    return [path if header[0] == ":path" else header for header in request_headers("", *more)]


# -- Draining -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "service, before", [("", SERVING), (SERVICE, SERVING), ("no", SERVICE_UNKNOWN)]
)
async def test_watchers_are_told_when_the_server_drains_and_then_sent_away(
    service: str, before: int
) -> None:
    async with (
        running(drain_timeout=PATIENCE) as server,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{server.port}") as channel,
    ):
        health = HealthStub(channel)
        watch = health.Watch(HealthCheckRequest(service=service), timeout=PATIENCE)
        told = statuses(watch)
        assert await anext(told) == before

        stopping = asyncio.create_task(server.server.stop())
        if service != "no":
            assert await anext(told) == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            await anext(told)
        assert caught.value.code() is Code.UNAVAILABLE
        assert reason(caught.value) == "DRAINING"
        await channel.close()
        async with asyncio.timeout(PATIENCE / 2):  # the drain did not wait for its grace period
            await stopping


async def test_while_it_drains_a_server_says_that_it_does_not_serve() -> None:
    """A refusal would say less: that nobody answers is also what a crash looks like."""
    async with (
        running(drain_timeout=PATIENCE) as server,
        raw_connection(server.port) as raw,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{server.port}") as channel,
    ):
        health = HealthStub(channel)
        assert await check(health) == SERVING
        held = raw.begin(request_headers())  # a call that never ends holds the drain up
        await raw.send()
        await raw.seen()
        stopping = asyncio.create_task(server.server.stop())
        await asyncio.sleep(0)

        assert await check(health) == NOT_SERVING
        assert await check(health, SERVICE) == NOT_SERVING
        reply = await health.List(health_pb2.HealthListRequest(), timeout=PATIENCE)
        assert reply.statuses[SERVICE].status == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            await anext(statuses(health.Watch(HealthCheckRequest(), timeout=PATIENCE)))
        assert caught.value.code() is Code.UNAVAILABLE

        server.server.hurry()
        assert (await raw.answer(held)).status == Code.UNAVAILABLE.value[0]
        await channel.close()
        await raw.close()
        await stopping


def reason(error: Any) -> str:
    """Return the reason in the details of an error."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        detail.Unpack(info)
    return str(info.reason)


async def test_a_check_that_never_comes_is_told_when_the_server_stops() -> None:
    async with running() as server, raw_connection(server.port) as raw:
        stream = raw.begin(headers_for("Check"))
        await raw.send()
        await raw.seen()
        await server.server.stop()
        assert (await raw.answer(stream)).status == Code.UNAVAILABLE.value[0]
