"""The composition root: every part of a server, made from its settings. Nothing listens or runs yet."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from discovery import __version__
from discovery._gen.coral.discovery.v1 import DiscoveryServiceBase
from discovery.admin.audit import AuditFile, AuditLog, open_audit_log
from discovery.admin.events import EventLog
from discovery.admin.port import AdminAddress, AdminPort
from discovery.admin.service import AdminService, Vitals
from discovery.clock import Clock
from discovery.config import ServerSettings
from discovery.gatekeeper import Gatekeeper
from discovery.measured import MeasuredStore
from discovery.metrics import Metrics
from discovery.reloading import Reload
from discovery.service import DiscoveryService
from discovery.sideport import SidePort
from discovery.stores import never_waits, open_store, public_name
from discovery.stores.base import OnceStore, RegistryStore
from discovery.transport.bounds import Bounds
from discovery.transport.connections import Connections
from discovery.transport.drain import DrainGate, draining_error
from discovery.transport.grpc_health import HealthServing
from discovery.transport.listener import Listener
from discovery.transport.pipeline import Observer, Pipeline, Witness
from discovery.transport.proxies import TrustedProxies
from discovery.transport.reflection import Reflection
from discovery.transport.rpcs import DiscoveryRpcs
from discovery.transport.serving import Surface, make_listener
from discovery.transport.tls import ServerTls, TlsFiles

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from discovery.tracing import Tracing


class Composition:
    """The parts of a server, and how they hold together."""

    def __init__(
        self,
        settings: ServerSettings,
        log: FilteringBoundLogger,
        clock: Clock,
        tracing: Tracing | None,
    ) -> None:
        """Make them.

        Raises:
            ConfigError: a setting cannot work.
        """
        self.stopping = asyncio.Event()
        """Set when an administrator wants it to stop: whoever started it calls `stop`."""
        self._settings = settings
        self._log = log
        self._clock = clock
        self._proxies = TrustedProxies(settings.trusted_proxy)
        self._tls = _open_tls(settings, log, self._clock)
        self._metrics = Metrics(__version__)
        self._tracing = tracing
        self._events = EventLog(self._clock)
        store = open_store(settings.store, prefix=settings.redis_prefix)
        self._store = self._watched(store)
        self._gatekeeper = Gatekeeper(
            settings,
            store if isinstance(store, OnceStore) else None,
            self._clock,
            log,
            self._metrics.undecided.inc,
        )
        self._service = DiscoveryService(
            self._store,
            self._clock,
            ttl=settings.ttl,
            version=__version__,
            spread=random.random,
            stale_lookups=settings.stale_lookups,
            terms=self._gatekeeper.terms(),
        )
        self._service.tell_changes_to(self._events.changed)
        self._gate = DrainGate()
        self._health = HealthServing(self._probe, self._gate, log)
        self._reflection = Reflection(self._gate)
        self._connections = Connections()
        self._metrics.follow_connections(self._connections.counts)
        if (tls := self._tls) is not None:
            self._metrics.follow_certificate(lambda: tls.not_after)
        self._audit: AuditLog | None = None
        self._audit_file: AuditFile | None = None
        if settings.audit_log:
            self._audit, self._audit_file = open_audit_log(settings.audit_log, self._clock, log)
        self._listener = self._make_listener()
        self._admin_address = AdminAddress.parse(settings.admin_listen)
        self._admin = None if self._admin_address is None else self._make_admin(self._admin_address)
        checks = {"serving": self._check_serving, "store": self._probe}
        self._side_port = SidePort(lambda: self._metrics.registry, checks, log)

    def reloads(self) -> Mapping[str, Reload]:
        """Return what can be read again while it serves."""
        found = dict(self._gatekeeper.reloads())
        if self._tls is not None:
            found["TLS files"] = self._tls.reload
        if self._audit_file is not None:
            found["audit log"] = self._audit_file.reopen
        return found

    def _watched(self, store: RegistryStore) -> RegistryStore:
        traced = store if self._tracing is None else self._tracing.traced(store)
        return MeasuredStore(traced, self._metrics.store)

    def _make_listener(self) -> Listener:
        bounds = _bounds(self._settings)
        pipeline = self._make_pipeline()

        def http_routes() -> Sequence[BaseRoute]:
            # Starlette and reflection are slow to import, and gRPC is served without them.
            from discovery.transport.http_app import public_routes

            origins = self._settings.cors_origin
            return (
                *public_routes(pipeline, bounds.request_bytes, origins),
                *self._reflection.mounts(),
            )

        # A span belongs to the task that it was begun in, and what is begun at once may end in another.
        at_once = never_waits(self._settings.store) and self._tracing is None
        surface = Surface(
            DiscoveryServiceBase,
            pipeline,
            {**self._reflection.routes(), **self._health.routes()},
            http_routes,
            self._settings.cors_origin,
            at_once,
        )
        return make_listener(
            surface,
            self._gate,
            self._connections,
            self._proxies,
            bounds,
            self._clock,
            fast=self._settings.fast_path,
        )

    def _make_pipeline(self) -> Pipeline:
        rpcs = DiscoveryRpcs(self._service)
        self._calls = self._metrics.observer(rpcs.handlers(), rpcs.streams())
        observers: list[Observer] = [self._calls]
        if self._tracing is not None:
            observers.append(self._tracing)
        return Pipeline(
            rpcs.handlers(),
            self._gate,
            self._log,
            rpcs.streams(),
            observers,
            self._gatekeeper.guards,
            (self._events.witness, *self._auditors()),
        )

    def _make_admin(self, address: AdminAddress) -> AdminPort:
        service = AdminService(
            self._store, self._clock, self._events, self._vitals, self.stopping.set
        )
        guards = self._gatekeeper.admin_guards(trusted=address.trusted)
        return AdminPort(
            address, service, guards, tuple(self._auditors()), self._gate, self._clock, self._log
        )

    def _auditors(self) -> Iterator[Witness]:
        if self._audit is not None:
            yield self._audit.witness

    def _vitals(self) -> Vitals:
        return Vitals(
            version=__version__,
            uptime_seconds=self._service.uptime_seconds,
            store=public_name(self._settings.store),
            connections=sum(self._connections.counts.values()),
            watches=self._service.watching,
            calls=self._calls.counts(),
            draining=self._gate.leaving,
        )

    async def _probe(self) -> None:
        await self._store.count(now=self._clock.now())

    async def _check_serving(self) -> None:
        if self._gate.leaving:
            raise draining_error()


def _open_tls(
    settings: ServerSettings, log: FilteringBoundLogger, clock: Clock
) -> ServerTls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return ServerTls(files, log, clock)


def _bounds(settings: ServerSettings) -> Bounds:
    return Bounds(
        streams=settings.max_streams,
        header_bytes=settings.max_header_bytes,
        request_bytes=settings.max_request_bytes,
        request_seconds=settings.request_timeout,
    )
