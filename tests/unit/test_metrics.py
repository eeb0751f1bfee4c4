"""What the metrics count, and that nothing a client makes up becomes a label."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from types import ModuleType, SimpleNamespace
from typing import Any

import betterproto
import pytest
from prometheus_client import REGISTRY, Metric

from discovery import measured as measured_module
from discovery._gen.coral.discovery.v1 import LookupColonyRequest, LookupColonyResponse
from discovery.errors import (
    Code,
    DiscoveryError,
    DrainingError,
    MeshIdTakenError,
    MeshReservedError,
    NotOwnerError,
    OtherError,
    QuotaError,
    StoreUnavailableError,
    UnimplementedError,
)
from discovery.logs import set_up_logs
from discovery.measured import MeasuredStore
from discovery.metrics import Metrics
from discovery.models import Counts, Terms
from discovery.stores.base import NO_TERMS
from discovery.stores.memory import MemoryStore
from discovery.transport import pipeline as pipeline_module
from discovery.transport.connections import Connections
from discovery.transport.drain import DrainGate
from discovery.transport.limits import ConnectionLimits
from discovery.transport.pipeline import Call, Pipeline
from discovery.transport.streamed import StreamedCall
from tests.support import KEY, MESH, OTHER_KEY, ManualClock, registration

LOOKUP = "/coral.discovery.v1.DiscoveryService/LookupColony"
WATCH = "/coral.discovery.v1.DiscoveryService/WatchColony"
REPLY = LookupColonyResponse()
TTL = 300
OPERATIONS = (
    *("register", "lookup", "deregister", "evict", "reservation", "leases"),
    *("agents", "count", "sweep", "current"),
)
STOPWATCH = (10.0, 10.25)

SetClock = Callable[[ModuleType, Iterable[float]], None]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3")


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Return a function that says what a module's stopwatch shows, reading by reading."""

    def show(module: ModuleType, readings: Iterable[float]) -> None:
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=iter(readings).__next__))

    return show


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return what a series is at, or None if there is no such series."""
    return metrics.registry.get_sample_value(f"coral_discovery_{name}", labels)


def families(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in metrics.registry.collect()}


def labels_of(metrics: Metrics, name: str) -> list[dict[str, str]]:
    return [sample.labels for sample in families(metrics)[f"coral_discovery_{name}"].samples]


# -- Calls ----------------------------------------------------------------------------------------


class Calls:
    """A pipeline that metrics observe, around one handler of each kind; both are fakes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.outcome: BaseException | None = None
        self.under_way: list[tuple[float | None, float | None]] = []
        self.gate = DrainGate()
        handlers, streams = {LOOKUP: self._handle}, {WATCH: self._stream}
        self.observer = metrics.observer(handlers, streams)
        log = set_up_logs("error", "json")
        self.pipeline = Pipeline(handlers, self.gate, log, streams, [self.observer])

    async def unary(self, path: str = LOOKUP, protocol: str = "grpc") -> None:
        await self.pipeline.unary(Call(path, protocol), self.receive)

    async def stream(self) -> None:
        async for _reply in self.replies():
            pass

    def replies(self) -> StreamedCall:
        return self.pipeline.stream(Call(WATCH, "grpc"), self.receive)

    def counted_under_way(self) -> tuple[float | None, float | None]:
        """Return how many calls, and how many watches."""
        return (
            value(self._metrics, "requests_in_flight", method="LookupColony"),
            value(self._metrics, "watch_streams", method="WatchColony"),
        )

    async def receive(self) -> betterproto.Message:
        return LookupColonyRequest(MESH)

    async def _handle(self, request: betterproto.Message, call: Call) -> betterproto.Message:
        self._end()
        return REPLY

    async def _stream(
        self, request: betterproto.Message, call: Call
    ) -> AsyncGenerator[betterproto.Message]:
        yield REPLY
        yield REPLY
        self._end()

    def _end(self) -> None:
        self.under_way.append(self.counted_under_way())
        if self.outcome is not None:
            raise self.outcome


@pytest.fixture
def calls(metrics: Metrics, root_logger: object) -> Calls:
    return Calls(metrics)


@pytest.mark.parametrize("protocol", ["grpc", "connect", "rest", "websocket"])
async def test_a_call_is_counted_under_its_method_protocol_and_status(
    metrics: Metrics, calls: Calls, protocol: str
) -> None:
    await calls.unary(protocol=protocol)

    labels = {"method": "LookupColony", "protocol": protocol}
    assert value(metrics, "requests_total", status="OK", **labels) == 1
    assert value(metrics, "requests_total", status="INTERNAL", **labels) == 0
    assert total(metrics) == 1


def total(metrics: Metrics) -> float:
    return sum(s.value for s in families(metrics)["coral_discovery_requests"].samples)


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_each_outcome_has_its_status(
    metrics: Metrics, calls: Calls, kind: str, code: Code
) -> None:
    calls.outcome = OtherError(code, "", "")
    with pytest.raises(OtherError):
        await getattr(calls, kind)()

    method = "LookupColony" if kind == "unary" else "WatchColony"
    labels = {"method": method, "protocol": "grpc", "status": code.name}
    assert value(metrics, "requests_total", **labels) == total(metrics) == 1


@pytest.mark.parametrize(
    "outcome", [DrainingError(""), KeyError("a defect"), asyncio.CancelledError()], ids=repr
)
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_call_is_under_way_until_it_is_over_however_that_comes(
    calls: Calls, kind: str, outcome: BaseException
) -> None:
    calls.outcome = outcome
    with pytest.raises((DiscoveryError, asyncio.CancelledError)):
        await getattr(calls, kind)()

    assert calls.under_way == [(1, 0) if kind == "unary" else (0, 1)]
    assert calls.counted_under_way() == (0, 0)


async def test_a_call_that_is_refused_at_the_gate_is_counted(
    metrics: Metrics, calls: Calls
) -> None:
    calls.gate.close()
    with pytest.raises(DrainingError):
        await calls.unary()

    labels = {"method": "LookupColony", "protocol": "grpc", "status": "UNAVAILABLE"}
    assert value(metrics, "requests_total", **labels) == 1
    assert calls.counted_under_way() == (0, 0)


async def test_a_call_that_its_adapter_refuses_is_counted(metrics: Metrics, calls: Calls) -> None:
    calls.pipeline.refuse(Call(LOOKUP, "connect"), OtherError(Code.UNIMPLEMENTED, "", ""))

    labels = {"method": "LookupColony", "protocol": "connect", "status": "UNIMPLEMENTED"}
    assert value(metrics, "requests_total", **labels) == 1
    assert calls.counted_under_way() == (0, 0)


async def test_how_long_a_call_took_is_observed(
    metrics: Metrics, calls: Calls, stopwatch: SetClock
) -> None:
    stopwatch(pipeline_module, STOPWATCH)
    await calls.unary()

    observed = "request_duration_seconds"
    assert value(metrics, f"{observed}_sum", method="LookupColony") == 0.25
    assert value(metrics, f"{observed}_bucket", method="LookupColony", le="0.25") == 1
    assert value(metrics, f"{observed}_bucket", method="LookupColony", le="0.1") == 0


async def test_how_long_a_watch_lasts_is_its_clients_choice_and_not_observed(
    metrics: Metrics, calls: Calls
) -> None:
    await calls.stream()

    assert {labels["method"] for labels in labels_of(metrics, "request_duration_seconds")} == {
        "LookupColony",
        "unknown",
    }


async def test_a_state_is_a_delivery_once_it_was_sent(metrics: Metrics, calls: Calls) -> None:
    def delivered() -> float | None:
        return value(metrics, "watch_deliveries_total", method="WatchColony")

    assert [delivered() async for _reply in calls.replies()] == [0, 1]
    assert delivered() == 2


async def test_a_state_that_could_not_be_sent_is_no_delivery(
    metrics: Metrics, calls: Calls
) -> None:
    replies = calls.replies()
    await anext(replies)
    await replies.aclose()

    assert value(metrics, "watch_deliveries_total", method="WatchColony") == 0
    assert calls.counted_under_way() == (0, 0)


@pytest.mark.parametrize(
    "path, protocol",
    [("/a.Service/Made-up", "grpc"), ("/a.Service/LookupColony", "grpc"), (LOOKUP, "made-up")],
)
async def test_what_is_not_known_is_counted_as_unknown(
    metrics: Metrics, calls: Calls, path: str, protocol: str
) -> None:
    await asyncio.gather(calls.unary(path, protocol), return_exceptions=True)

    unknown = [labels for labels in labels_of(metrics, "requests") if "made-up" in str(labels)]
    assert not unknown
    counted = {"method": "unknown", "protocol": "unknown"}
    assert sum(value(metrics, "requests_total", status=c.name, **counted) or 0 for c in Code) == 1
    assert value(metrics, "requests_in_flight", method="unknown") == 0


async def test_administrators_are_told_of_all_protocols_together(calls: Calls) -> None:
    for protocol in ("grpc", "connect", "something"):
        await calls.unary(protocol=protocol)
    calls.outcome = OtherError(Code.NOT_FOUND, "", "")
    with pytest.raises(OtherError):
        await calls.unary()
    with pytest.raises(UnimplementedError):
        await calls.unary("/made/up")

    assert calls.observer.counts() == {
        ("LookupColony", "OK"): 2,
        ("LookupColony", "NOT_FOUND"): 1,
        ("unknown", "OK"): 1,
        ("unknown", "UNIMPLEMENTED"): 1,
    }


async def test_many_made_up_methods_make_no_more_series(metrics: Metrics, calls: Calls) -> None:
    await asyncio.gather(calls.unary("/a/0"), return_exceptions=True)
    before = len(labels_of(metrics, "requests"))
    made_up = [calls.unary(f"/a/{number}", f"{number}") for number in range(100)]
    await asyncio.gather(*made_up, return_exceptions=True)

    assert len(labels_of(metrics, "requests")) == before


def test_what_alerts_count_is_there_before_it_happens(metrics: Metrics, calls: Calls) -> None:
    labels = {"protocol": "grpc", "status": "UNAVAILABLE"}

    assert value(metrics, "requests_total", method="LookupColony", **labels) == 0
    assert value(metrics, "requests_total", method="WatchColony", **labels) == 0
    assert value(metrics, "leases_total", event="conflicted") == 0
    assert value(metrics, "lookups_total", result="missed") == 0
    outcome = {"operation": "register", "outcome": "unavailable"}
    assert value(metrics, "store_operations_total", **outcome) == 0


# -- The store ------------------------------------------------------------------------------------


class Stored:
    """A memory store behind the wrapper that measures it, and the time it goes by."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.clock = ManualClock()
        self.inner = MemoryStore()
        self.store = MeasuredStore(self.inner, metrics.store)

    async def register(self, key: str = KEY, mesh_id: str = MESH, terms: Terms = NO_TERMS) -> None:
        registered = registration(mesh_id=mesh_id, pubkey=key)
        await self.store.register(registered, ttl=TTL, now=self.clock.now(), terms=terms)

    async def deregister(self, key: str = KEY) -> None:
        await self.store.deregister(MESH, key, now=self.clock.now())

    async def sweep(self) -> None:
        await self.store.sweep(now=self.clock.now(), limit=100)

    def leases(self) -> dict[str, float]:
        """Return what became of leases, without what did not happen."""
        samples = families(self._metrics)["coral_discovery_leases"].samples
        return {sample.labels["event"]: sample.value for sample in samples if sample.value}

    def operations(self) -> dict[tuple[str, str], float]:
        samples = families(self._metrics)["coral_discovery_store_operations"].samples
        return {
            (sample.labels["operation"], sample.labels["outcome"]): sample.value
            for sample in samples
            if sample.value
        }


@pytest.fixture
def stored(metrics: Metrics) -> Stored:
    return Stored(metrics)


async def test_a_lease_is_granted_renewed_and_released(stored: Stored) -> None:
    await stored.register()
    await stored.register()
    await stored.register()
    await stored.deregister()
    await stored.deregister()

    assert stored.leases() == {"granted": 1, "renewed": 2, "released": 1}


async def test_another_keys_registration_is_a_conflict(stored: Stored) -> None:
    await stored.register()
    with pytest.raises(MeshIdTakenError):
        await stored.register(OTHER_KEY)

    assert stored.leases() == {"granted": 1, "conflicted": 1}
    assert stored.operations() == {("register", "ok"): 1, ("register", "refused"): 1}


async def test_a_name_that_is_reserved_for_another_key_is_a_conflict(stored: Stored) -> None:
    await stored.register(terms=Terms(reserve=TTL))
    await stored.deregister()
    with pytest.raises(MeshReservedError):
        await stored.register(OTHER_KEY)

    assert stored.leases() == {"granted": 1, "released": 1, "conflicted": 1}
    assert stored.operations()["register", "refused"] == 1


async def test_a_full_registry_is_a_refusal_and_no_conflict(stored: Stored) -> None:
    await stored.register()
    with pytest.raises(QuotaError):
        await stored.register(mesh_id="mesh-2", terms=Terms(most_in_all=1))

    assert stored.leases() == {"granted": 1}
    assert stored.operations() == {("register", "ok"): 1, ("register", "refused"): 1}


async def test_another_keys_deregistration_releases_nothing(stored: Stored) -> None:
    await stored.register()
    with pytest.raises(NotOwnerError):
        await stored.deregister(OTHER_KEY)

    assert stored.leases() == {"granted": 1}


@pytest.mark.parametrize("notice", ["sweep", "register", "current", "count", "deregister"])
async def test_a_lease_that_ends_by_itself_is_counted_once_whoever_notices(
    stored: Stored, notice: str
) -> None:
    await stored.register()
    await stored.register(mesh_id="mesh-2")
    stored.clock.advance(TTL)
    now = stored.clock.now()
    match notice:
        case "register":
            await stored.register(OTHER_KEY)
        case "current":
            await stored.store.current(MESH, now=now)
        case "count":
            await stored.store.count(now=now)
        case "deregister":
            await stored.deregister()
    await stored.sweep()
    await stored.sweep()

    assert stored.leases()["expired"] == 2
    assert "released" not in stored.leases()


async def test_a_lookup_finds_or_misses(metrics: Metrics, stored: Stored) -> None:
    await stored.register()
    for mesh_id in (MESH, MESH, "mesh-2"):
        await stored.store.lookup(mesh_id, now=stored.clock.now())

    assert value(metrics, "lookups_total", result="found") == 2
    assert value(metrics, "lookups_total", result="missed") == 1


async def test_a_lookup_without_an_answer_neither_finds_nor_misses(
    metrics: Metrics, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored.inner, "lookup", raising(StoreUnavailableError("")))
    with pytest.raises(StoreUnavailableError):
        await stored.store.lookup(MESH, now=stored.clock.now())

    assert value(metrics, "lookups_total", result="found") == 0
    assert value(metrics, "lookups_total", result="missed") == 0


def raising(error: BaseException) -> Any:
    async def operation(*arguments: Any, **named: Any) -> Any:
        raise error

    return operation


@pytest.mark.parametrize(
    "error, outcome",
    [
        (StoreUnavailableError("away"), "unavailable"),
        (NotOwnerError(MESH), "refused"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyError("a defect"), "error"),
    ],
)
async def test_each_operation_is_counted_with_how_it_ended(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, error: BaseException, outcome: str
) -> None:
    now = stored.clock.now()
    for name in OPERATIONS:
        monkeypatch.setattr(stored.inner, name, raising(error))
    for operation in (
        stored.register(),
        stored.store.lookup(MESH, now=now),
        stored.deregister(),
        stored.store.evict(MESH, now=now),
        stored.store.reservation(MESH, now=now),
        stored.store.leases(agents=False, prefix="", after="", limit=1, now=now),
        stored.store.agents(MESH, after="", limit=1, now=now),
        stored.store.count(now=now),
        stored.sweep(),
        stored.store.current(MESH, now=now),
    ):
        with pytest.raises(type(error)) as raised:
            await operation
        assert raised.value is error

    assert stored.operations() == {(name, outcome): 1 for name in OPERATIONS}
    assert not stored.leases()


async def test_how_long_an_operation_took_is_observed(
    metrics: Metrics, stored: Stored, stopwatch: SetClock
) -> None:
    stopwatch(measured_module, STOPWATCH)
    await stored.register()

    observed = "store_operation_duration_seconds_sum"
    assert value(metrics, observed, operation="register") == 0.25
    assert value(metrics, observed, operation="lookup") == 0


async def test_the_number_of_registrations_is_the_last_count(
    metrics: Metrics, stored: Stored
) -> None:
    await stored.register()
    assert value(metrics, "registrations", kind="colony") is None, "nobody has counted"
    await stored.store.count(now=stored.clock.now())
    await stored.deregister()

    assert value(metrics, "registrations", kind="colony") == 1
    await stored.store.count(now=stored.clock.now())
    assert value(metrics, "registrations", kind="colony") == 0


async def test_agents_are_counted_apart(metrics: Metrics, stored: Stored) -> None:
    now = stored.clock.now()
    await stored.register()
    for agent_id in ("a", "b"):
        await stored.store.register(registration(agent_id=agent_id), ttl=TTL, now=now)

    assert await stored.store.count(now=now) == Counts(1, 2)
    assert value(metrics, "registrations", kind="colony") == 1
    assert value(metrics, "registrations", kind="agent") == 2


async def test_a_page_that_notices_ends_is_counted_with_them(stored: Stored) -> None:
    agent = registration(agent_id="a")
    await stored.store.register(agent, ttl=TTL, now=stored.clock.now())
    stored.clock.advance(TTL)
    await stored.store.agents(MESH, after="", limit=1, now=stored.clock.now())
    await stored.sweep()

    assert stored.leases() == {"granted": 1, "expired": 1}
    assert stored.operations()["agents", "ok"] == 1


async def test_a_count_that_fails_leaves_the_number_as_it_was(
    metrics: Metrics, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored.register()
    await stored.store.count(now=stored.clock.now())
    monkeypatch.setattr(stored.inner, "count", raising(StoreUnavailableError("away")))
    with pytest.raises(StoreUnavailableError):
        await stored.store.count(now=stored.clock.now())

    assert value(metrics, "registrations", kind="colony") == 1


# -- The rest -------------------------------------------------------------------------------------


class FakeConnection:
    def __init__(self, speaks: Any) -> None:
        self.speaks = speaks

    def shutdown(self) -> None: ...

    def shut(self) -> None: ...


def test_connections_are_counted_by_what_they_speak(metrics: Metrics) -> None:
    connections = Connections()
    metrics.follow_connections(connections.counts)
    first, second = FakeConnection("http/2"), FakeConnection("websocket")
    for connection in (first, FakeConnection("http/2"), second):
        connections.add(connection)
    for _ in range(2):
        connections.discard(first)

    counted = {
        protocol: value(metrics, "connections", protocol=protocol)
        for protocol in ("http/1.1", "http/2", "websocket", "undecided")
    }
    assert counted == {"http/1.1": 0, "http/2": 1, "websocket": 1, "undecided": 0}
    assert len(labels_of(metrics, "connections")) == 4


def test_connections_that_are_refused_are_counted(metrics: Metrics) -> None:
    limits = ConnectionLimits(1, 0, on_refusal=metrics.connections_refused.inc)
    for _ in range(3):
        limits.admit("192.0.2.1")

    assert value(metrics, "connections_refused_total") == limits.refused == 2


def test_the_end_of_a_certificate_is_told_where_there_is_one(metrics: Metrics) -> None:
    name, ends = "tls_certificate_expiration_timestamp_seconds", [1.5, None]
    other = Metrics("1.2.3")
    other.follow_certificate(lambda: ends[0])

    assert value(metrics, name) is None
    assert value(other, name) == 1.5
    ends.pop(0)
    assert math.isnan(value(other, name) or 0)


def test_the_version_is_told(metrics: Metrics) -> None:
    assert value(metrics, "build_info", version="1.2.3") == 1


def test_the_process_is_measured(metrics: Metrics) -> None:
    names = set(families(metrics))

    assert {"python_info", "python_gc_collections"} <= names
    assert sys.platform != "linux" or "process_resident_memory_bytes" in names


def test_two_servers_in_one_process_share_nothing(metrics: Metrics) -> None:
    other = Metrics("1.2.3")
    other.store.counted("colony", 5)

    assert value(metrics, "registrations", kind="colony") is None
    ours = {name for name in families(metrics) if name.startswith("coral_")}
    assert not ours & {family.name for family in REGISTRY.collect()}


def test_there_are_no_series_of_when_a_series_was_made(metrics: Metrics) -> None:
    names = {sample.name for family in metrics.registry.collect() for sample in family.samples}

    assert not [name for name in names if name.endswith("_created")]
