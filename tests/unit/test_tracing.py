"""Each traced call is a span within its caller's trace, and what it asks of the store is a span within that."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import betterproto
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import LogCapture

from discovery import tracing as tracing_module
from discovery._gen.coral.discovery.v1 import LookupColonyRequest, LookupColonyResponse
from discovery.client import DiscoveryClient
from discovery.config import ServerSettings
from discovery.errors import (
    Code,
    ConfigError,
    MeshIdTakenError,
    OtherError,
    StoreUnavailableError,
    UnimplementedError,
)
from discovery.models import Counts, Terms
from discovery.server import DiscoveryServer, _open_tracing
from discovery.stores.base import RegistryStore
from discovery.stores.memory import MemoryStore
from discovery.tracing import Tracing
from discovery.transport.drain import DrainGate
from discovery.transport.pipeline import Call, Pipeline
from discovery.transport.streamed import StreamedCall
from tests.integration.support import capturing_logger
from tests.support import MESH, OTHER_KEY, ManualClock, registration

SERVICE = "coral.discovery.v1.DiscoveryService"
LOOKUP = f"/{SERVICE}/LookupColony"
WATCH = f"/{SERVICE}/WatchColony"
TRACE = 0x0AF7651916CD43DD8448EB211C80319C
CALLER = 0xB7AD6B7169203331
TRACEPARENT = f"00-{TRACE:032x}-{CALLER:016x}-01"
NOT_SAMPLED = f"00-{TRACE:032x}-{CALLER:016x}-00"
FAULTS = {
    *(Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED),
    *(Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS),
}


class Traced:
    """A pipeline that is traced, around handlers that ask a store which is traced too, and the spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)
        self.inner = MemoryStore()
        self.store: RegistryStore = self.tracing.traced(self.inner)
        self.now = ManualClock().now()
        self.outcome: BaseException | None = None
        self.pipeline = Pipeline(
            {LOOKUP: self._handle},
            DrainGate(),
            capturing_logger(LogCapture()),
            {WATCH: self._stream},
            [self.tracing],
        )

    async def unary(self, protocol: str = "grpc", **changes: Any) -> None:
        await self.pipeline.unary(Call(LOOKUP, protocol, **changes), self._receive)

    def stream(self) -> StreamedCall:
        return self.pipeline.stream(Call(WATCH, "grpc"), self._receive)

    def spans(self) -> Sequence[ReadableSpan]:
        """Return the spans that are over, in the order in which they ended."""
        return self._exporter.get_finished_spans()

    def span(self) -> ReadableSpan:
        """Return the last one, which is the call's."""
        return self.spans()[-1]

    async def _receive(self) -> betterproto.Message:
        return LookupColonyRequest(MESH)

    async def _handle(self, request: betterproto.Message, call: Call) -> betterproto.Message:
        await self.store.lookup(MESH, now=self.now)
        if self.outcome is not None:
            raise self.outcome
        return LookupColonyResponse()

    async def _stream(
        self, request: betterproto.Message, call: Call
    ) -> AsyncGenerator[betterproto.Message]:
        await self.store.current(MESH, now=self.now)
        yield LookupColonyResponse()
        await self.store.current(MESH, now=self.now)
        yield LookupColonyResponse()


@pytest.fixture
def traced() -> Traced:
    return Traced(TracerProvider(shutdown_on_exit=False))


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


# -- Calls ----------------------------------------------------------------------------------------


async def test_a_call_is_a_span(traced: Traced) -> None:
    await traced.unary(peer="203.0.113.5")

    span = traced.span()
    assert span.name == f"{SERVICE}/LookupColony"
    assert span.kind is SpanKind.SERVER
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "LookupColony",
        "client.address": "203.0.113.5",
        "rpc.grpc.status_code": 0,
    }


@pytest.mark.parametrize(
    "protocol, system", [("connect", "connect_rpc"), ("rest", "rest"), ("websocket", "websocket")]
)
async def test_over_http_the_status_is_connects(traced: Traced, protocol: str, system: str) -> None:
    await traced.unary(protocol)
    assert attributes(traced.span())["rpc.system"] == system
    assert "rpc.connect_rpc.error_code" not in attributes(traced.span())

    traced.outcome = OtherError(Code.NOT_FOUND, "", "")
    with pytest.raises(OtherError):
        await traced.unary(protocol)
    assert attributes(traced.span())["rpc.connect_rpc.error_code"] == "not_found"
    assert "rpc.grpc.status_code" not in attributes(traced.span())


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
async def test_only_the_servers_fault_is_an_error(traced: Traced, code: Code) -> None:
    traced.outcome = OtherError(code, "", "")
    with pytest.raises(OtherError):
        await traced.unary()

    span = traced.span()
    assert attributes(span)["rpc.grpc.status_code"] == code
    assert (span.status.status_code is StatusCode.ERROR) == (code in FAULTS)


@pytest.mark.parametrize("protocol", ["grpc", "connect", "rest", "websocket"])
async def test_a_call_belongs_to_the_trace_that_its_headers_name(
    traced: Traced, protocol: str
) -> None:
    await traced.unary(protocol, metadata={"traceparent": TRACEPARENT, "some-bin": b"\0"})

    span = traced.span()
    assert span.context is not None
    assert (span.context.trace_id, parent_id(span)) == (TRACE, CALLER)


@pytest.mark.parametrize(
    "header", ["", "00", TRACEPARENT.upper(), TRACEPARENT[:-1], "\0" * 9999], ids=ascii
)
async def test_a_header_that_names_no_trace_is_ignored(traced: Traced, header: str) -> None:
    await traced.unary(metadata={"traceparent": header, "tracestate": header, "baggage": header})

    assert parent_id(traced.span()) in {None, CALLER}


async def test_what_its_caller_did_not_sample_is_not_traced(traced: Traced) -> None:
    await traced.unary(metadata={"traceparent": NOT_SAMPLED})

    assert not traced.spans()


@pytest.mark.parametrize("path", ["", "/", "/robots.txt", "/a/b/c/d", "/secret.Service/Do"])
async def test_what_strangers_ask_for_that_is_not_there_names_no_span(
    traced: Traced, path: str
) -> None:
    traced.pipeline.refuse(Call(path, "rest"), UnimplementedError("there is nothing here"))
    assert [span.name for span in traced.spans()] == ["unknown/unknown"]
    assert "secret" not in traced.span().to_json()


async def test_two_calls_at_once_are_apart(traced: Traced) -> None:
    await asyncio.gather(traced.unary(), traced.unary())

    lookups, calls = traced.spans()[0:3:2], traced.spans()[1:4:2]
    assert [parent_id(span) for span in lookups] == [
        span.context.span_id for span in calls if span.context
    ]


async def test_after_a_call_its_task_is_in_no_trace(traced: Traced) -> None:
    for outcome in (None, OtherError(Code.INTERNAL, "", ""), asyncio.CancelledError()):
        traced.outcome = outcome
        await asyncio.gather(traced.unary(), return_exceptions=True)
        await _quietly(traced)

        assert not trace.get_current_span().get_span_context().is_valid


async def _quietly(traced: Traced) -> None:
    """Make a call in this very task."""
    with suppress(OtherError, asyncio.CancelledError):
        await traced.unary()


async def test_a_stream_is_one_span_until_it_is_over(traced: Traced) -> None:
    replies = traced.stream()
    await anext(replies)
    assert [span.name for span in traced.spans()] == ["store current"]
    await anext(replies)
    await replies.aclose()

    *asked, span = traced.spans()
    assert span.name == f"{SERVICE}/WatchColony"
    assert attributes(span)["rpc.grpc.status_code"] == Code.CANCELLED
    assert span.context is not None
    assert [parent_id(one) for one in asked] == [span.context.span_id] * 2


async def test_a_stream_that_another_task_closes_disturbs_nobody(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    replies = traced.stream()
    await asyncio.create_task(_first(replies))
    await asyncio.create_task(_close(replies))

    assert traced.span().name == f"{SERVICE}/WatchColony"
    assert not caplog.records


async def _first(replies: StreamedCall) -> None:
    await anext(replies)


async def _close(replies: StreamedCall) -> None:
    await replies.aclose()


# -- The store ------------------------------------------------------------------------------------


async def test_what_a_call_asks_of_the_store_is_a_span_within_its_own(traced: Traced) -> None:
    await traced.unary()

    asked, call = traced.spans()
    assert asked.name == "store lookup"
    assert asked.kind is SpanKind.CLIENT
    assert attributes(asked) == {"db.operation.name": "lookup"}
    assert call.context is not None
    assert parent_id(asked) == call.context.span_id


async def test_each_operation_has_its_span_and_its_answer(traced: Traced) -> None:
    store, now = traced.store, traced.now
    with traced.tracing._tracer.start_as_current_span("a call"):
        grant = await store.register(registration(), ttl=300, now=now)
        assert await store.lookup(MESH, now=now) == grant.lease
        assert (await store.current(MESH, now=now)).lease == grant.lease
        agent = await store.register(registration(agent_id="a"), ttl=300, now=now)
        assert await store.lookup(MESH, now=now, agent_id="a") == agent.lease
        assert (await store.agents(MESH, after="", limit=1, now=now)).leases == (agent.lease,)
        assert await store.count(now=now) == Counts(1, 1)
        assert await store.deregister(MESH, registration().pubkey, now=now) is True
        assert await store.deregister(MESH, agent.lease.registration.pubkey, now=now, agent_id="a")
        await store.register(registration(), ttl=300, now=now, terms=Terms(reserve=10))
        assert await store.reservation(MESH, now=now) is not None
        page = await store.leases(agents=False, prefix="", after="", limit=1, now=now)
        assert [lease.registration for lease in page.leases] == [registration()]
        assert await store.evict(MESH, now=now) is True
        assert await store.reservation(MESH, now=now) is None
        assert await store.sweep(now=now, limit=1) is False
        assert store.expired == 0

    operations = (
        "register lookup current register lookup agents count deregister deregister"
        " register reservation leases evict reservation sweep"
    )
    assert [span.name for span in traced.spans()] == [
        *(f"store {operation}" for operation in operations.split()),
        "a call",
    ]


async def test_what_nobody_called_for_is_not_traced(traced: Traced) -> None:
    await traced.store.sweep(now=traced.now, limit=1)

    assert not traced.spans()


async def test_a_store_that_is_away_is_an_error_and_a_refusal_is_none(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(mesh_id: str, **named: Any) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(traced.inner, "lookup", away)
    other = registration(pubkey=OTHER_KEY)
    await traced.store.register(registration(), ttl=300, now=traced.now)
    with traced.tracing._tracer.start_as_current_span("a call"):
        with pytest.raises(StoreUnavailableError):
            await traced.store.lookup(MESH, now=traced.now)
        with pytest.raises(MeshIdTakenError):
            await traced.store.register(other, ttl=300, now=traced.now)

    failed, refused, _ = traced.spans()
    assert attributes(failed)["error.type"] == "StoreUnavailableError"
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes(refused)["error.type"] == "MeshIdTakenError"
    assert refused.status.status_code is StatusCode.UNSET
    assert not refused.events, "an error's message may name what a log should not hold"


async def test_a_server_that_samples_nothing_makes_no_spans() -> None:
    traced = Traced(TracerProvider(ALWAYS_OFF, shutdown_on_exit=False))
    await traced.unary()

    assert not traced.spans()


# -- Settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "named, kinds",
    [
        ("console", [ConsoleSpanExporter]),
        ("none", []),
        ("console, none", [ConsoleSpanExporter]),
    ],
)
async def test_otel_variables_name_the_exporter(named: str, kinds: list[type]) -> None:
    tracing = tracing_module.open_tracing({"OTEL_TRACES_EXPORTER": named})

    assert [type(exporter) for exporter in tracing._exporters] == kinds
    await tracing.close()


async def test_spans_go_to_an_otlp_collector_by_default() -> None:
    tracing = tracing_module.open_tracing({})

    [exporter] = tracing._exporters
    assert type(exporter).__module__.startswith("opentelemetry.exporter.otlp.proto.http")
    await tracing.close()


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_TRACES_EXPORTER": "nobody"}, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "made-up"}],
    ids=str,
)
def test_an_exporter_that_is_not_there_is_an_error_of_one_line(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"no trace exporter.*console") as error:
        tracing_module.open_tracing(variables)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("named, expected", [(None, "coral-discovery"), ("mine", "mine")])
async def test_the_service_has_a_name(
    monkeypatch: pytest.MonkeyPatch, named: str | None, expected: str
) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    if named is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", named)
    tracing = tracing_module.open_tracing({"OTEL_TRACES_EXPORTER": "none"})

    assert tracing._provider.resource.attributes["service.name"] == expected
    await tracing.close()


def test_without_the_extra_the_flag_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "discovery.tracing")
    monkeypatch.delattr("discovery.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(ConfigError, match=r"pip install 'coral-discovery\[otel\]'"):
        _open_tracing()


def test_when_it_is_off_nothing_of_it_is_imported() -> None:
    program = """
import asyncio, sys
from discovery.config import ServerSettings
from discovery.server import DiscoveryServer
from structlog import get_logger
async def main():
    server = DiscoveryServer(ServerSettings(host="127.0.0.1", port=0, metrics_port=0), get_logger())
    await server.start()
    await server.stop()
asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"


# -- The end --------------------------------------------------------------------------------------


class Unreachable(SpanExporter):
    """A collector that never answers, until the exporter is told to stop trying."""

    def __init__(self) -> None:
        self.given_up = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.given_up.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.given_up.set()


async def test_a_stop_sends_what_is_left() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    traced = Traced(provider)
    await traced.unary()
    await traced.tracing.close()
    await traced.tracing.close()

    assert [span.name for span in exporter.get_finished_spans()] == [
        "store lookup",
        f"{SERVICE}/LookupColony",
    ]


async def test_a_stop_does_not_wait_for_a_collector_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing_module, "FLUSH_TIMEOUT", 0.01)
    exporter = Unreachable()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracing = Tracing(provider, [exporter])
    tracing._tracer.start_span("a call").end()
    async with asyncio.timeout(20):
        await tracing.close()

    assert exporter.given_up.is_set()


async def test_a_server_traces_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing_module, "_exporters", lambda environment: [exporter])
    settings = ServerSettings(host="127.0.0.1", port=0, metrics_port=0, tracing=True)
    server = DiscoveryServer(settings, capturing_logger(LogCapture()))
    await server.start()
    async with DiscoveryClient(f"http://127.0.0.1:{server.port}") as client:
        await client.health()
    await server.stop()

    names = [span.name for span in exporter.get_finished_spans()]
    assert names == ["store count", f"{SERVICE}/Health"]
