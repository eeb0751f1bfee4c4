"""Spans for calls, and for what they ask of the store, with OpenTelemetry: the extra `otel`.

Only `--tracing` imports this. Everything else is OpenTelemetry's own: the OTEL_* variables say where spans go, which
are sampled and what the service is called; a caller's W3C trace context comes in its headers, over every protocol.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoints, entry_points
from typing import TypeVar

from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from discovery import __version__
from discovery.clock import Instant
from discovery.errors import Code, ConfigError, DiscoveryError, StoreUnavailableError
from discovery.models import Counts, Lease, Registration, Reservation, Terms, WatchEvent
from discovery.stores.base import (
    NO_TERMS,
    AgentsPage,
    Grant,
    LeasesPage,
    Listener,
    RegistryStore,
)
from discovery.transport.http_errors import code_name
from discovery.transport.pipeline import Call, Observation

T = TypeVar("T")

FLUSH_TIMEOUT = 2.0
"""How long a stop waits for a collector that does not answer, in seconds."""

# What is the server's fault, by OpenTelemetry's conventions for RPC; the rest is its caller's.
_FAULTS = frozenset(
    {
        *(Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED),
        *(Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS),
    }
)
_SYSTEMS = {"grpc": "grpc", "connect": "connect_rpc"}


def open_tracing(environment: Mapping[str, str] | None = None) -> Tracing:
    """Return what traces as the OTEL_* variables of `environment` (default: the process's) say.

    Raises:
        ConfigError: they name an exporter that is not installed.
    """
    exporters = list(_exporters(os.environ if environment is None else environment))
    named = Resource.create()
    if str(named.attributes[SERVICE_NAME]).startswith("unknown_service"):
        named = named.merge(Resource({SERVICE_NAME: "coral-discovery"}))
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, exporters)


def _exporters(environment: Mapping[str, str]) -> Iterator[SpanExporter]:
    known = entry_points(group="opentelemetry_traces_exporter")
    protocol = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol)
    for name in environment.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        otlp = f"otlp_proto_{protocol.partition('/')[0]}"
        if (wanted := name.strip()) != "none":
            yield _load(known, otlp if wanted == "otlp" else wanted)


def _load(known: EntryPoints, name: str) -> SpanExporter:
    if name not in known.names:
        there = ", ".join(sorted(known.names))
        raise ConfigError(f"there is no trace exporter {name}: install it, or choose of {there}")
    exporter: Callable[[], SpanExporter] = known[name].load()
    return exporter()


class Tracing:
    """An Observer that makes a span of each call."""

    def __init__(self, provider: TracerProvider, exporters: Sequence[SpanExporter] = ()) -> None:
        """Make spans with `provider`, which sends them to `exporters`."""
        self._provider = provider
        self._exporters = exporters
        self._tracer = provider.get_tracer("discovery", __version__)

    def started(self, call: Call) -> Observation:
        """Begin the span of a call, within the trace that its headers name: see Observer."""
        caller = propagate.extract(call.metadata)
        span = self._tracer.start_span(
            call.path.removeprefix("/"), caller, SpanKind.SERVER, _attributes(call)
        )
        return _CallSpan(span, call.protocol)

    def traced(self, store: RegistryStore) -> RegistryStore:
        """Return `store` with a span for each operation."""
        return TracedStore(store, self._tracer)

    async def close(self) -> None:
        """Send the spans that are still here, unless that takes long. Idempotent."""
        sending = asyncio.create_task(asyncio.to_thread(self._provider.shutdown))
        sent, _ = await asyncio.wait({sending}, timeout=FLUSH_TIMEOUT)
        if not sent:
            for exporter in self._exporters:
                exporter.shutdown()  # ends its retries
        await sending


def _attributes(call: Call) -> dict[str, str]:
    _, service, method = call.path.split("/", 2)
    known = {
        "rpc.system": _SYSTEMS.get(call.protocol, call.protocol),
        "rpc.service": service,
        "rpc.method": method,
    }
    return known if call.peer is None else {**known, "client.address": call.peer}


class _CallSpan:
    """The Observation of one call: its span is the current one until the call is over."""

    def __init__(self, span: Span, protocol: str) -> None:
        self._span = span
        self._protocol = protocol
        self._outside = context.get_current()
        context.attach(trace.set_span_in_context(span))

    def delivered(self) -> None:
        """See Observation."""

    def finished(self, code: Code, seconds: float) -> None:
        del seconds
        if self._protocol == "grpc":
            self._span.set_attribute("rpc.grpc.status_code", int(code))
        elif code is not Code.OK:
            self._span.set_attribute("rpc.connect_rpc.error_code", code_name(code))
        if code in _FAULTS:
            self._span.set_status(Status(StatusCode.ERROR, code.name))
        self._span.end()
        # Not by a token: a stream may end in another context than it began in.
        if trace.get_current_span() is self._span:
            context.attach(self._outside)


class TracedStore:
    """A RegistryStore that passes everything to another, with a span for what a traced call asks."""

    def __init__(self, store: RegistryStore, tracer: Tracer) -> None:
        self._store = store
        self._tracer = tracer

    @property
    def expired(self) -> int:
        """See RegistryStore."""
        return self._store.expired

    def holds(self, registration: Registration) -> bool:
        """See RegistryStore."""
        return self._store.holds(registration)

    async def register(
        self, registration: Registration, *, ttl: int, now: Instant, terms: Terms = NO_TERMS
    ) -> Grant:
        """See RegistryStore."""
        answer = self._store.register(registration, ttl=ttl, now=now, terms=terms)
        return await self._traced("register", answer)

    async def lookup(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> Lease | None:
        """See RegistryStore."""
        return await self._traced("lookup", self._store.lookup(mesh_id, now=now, agent_id=agent_id))

    async def deregister(
        self, mesh_id: str, pubkey: str, *, now: Instant, agent_id: str = ""
    ) -> bool:
        """See RegistryStore."""
        return await self._traced(
            "deregister", self._store.deregister(mesh_id, pubkey, now=now, agent_id=agent_id)
        )

    async def evict(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> bool:
        """See RegistryStore."""
        answer = self._store.evict(mesh_id, now=now, agent_id=agent_id)
        return await self._traced("evict", answer)

    async def reservation(
        self, mesh_id: str, *, now: Instant, agent_id: str = ""
    ) -> Reservation | None:
        """See RegistryStore."""
        answer = self._store.reservation(mesh_id, now=now, agent_id=agent_id)
        return await self._traced("reservation", answer)

    async def leases(
        self, *, agents: bool, prefix: str, after: str, limit: int, now: Instant
    ) -> LeasesPage:
        """See RegistryStore."""
        page = self._store.leases(agents=agents, prefix=prefix, after=after, limit=limit, now=now)
        return await self._traced("leases", page)

    async def agents(self, mesh_id: str, *, after: str, limit: int, now: Instant) -> AgentsPage:
        """See RegistryStore."""
        page = self._store.agents(mesh_id, after=after, limit=limit, now=now)
        return await self._traced("agents", page)

    async def count(self, *, now: Instant) -> Counts:
        """See RegistryStore."""
        return await self._traced("count", self._store.count(now=now))

    async def sweep(self, *, now: Instant, limit: int) -> bool:
        """See RegistryStore."""
        return await self._traced("sweep", self._store.sweep(now=now, limit=limit))

    async def current(self, mesh_id: str, *, now: Instant) -> WatchEvent:
        """See RegistryStore."""
        return await self._traced("current", self._store.current(mesh_id, now=now))

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        """See RegistryStore."""
        self._store.listen(changed, missed)

    async def close(self) -> None:
        """See RegistryStore."""
        await self._store.close()

    async def _traced(self, operation: str, answer: Awaitable[T]) -> T:
        if not trace.get_current_span().is_recording():  # not sampled, or nobody's call: a cleanup
            return await answer
        with self._tracer.start_as_current_span(
            f"store {operation}",
            kind=SpanKind.CLIENT,
            attributes={"db.operation.name": operation},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await answer
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                refused = isinstance(error, DiscoveryError)
                if not refused or isinstance(error, StoreUnavailableError):
                    span.set_status(StatusCode.ERROR)
                raise
