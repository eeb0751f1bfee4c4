"""The composition root: opens, serves, drains, closes."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from discovery import __version__
from discovery._gen.coral.discovery.v1 import DiscoveryServiceBase
from discovery.admin.audit import open_audit_log
from discovery.admin.events import EventLog
from discovery.admin.port import AdminAddress, AdminPort
from discovery.admin.service import AdminService, Vitals
from discovery.admin.tally import Tally
from discovery.clock import Clock, SystemClock
from discovery.config import ServerSettings
from discovery.errors import ConfigError, StoreUnavailableError
from discovery.gatekeeper import Gatekeeper, dangers
from discovery.measured import MeasuredStore
from discovery.metrics import Metrics
from discovery.service import DiscoveryService
from discovery.sideport import SidePort
from discovery.stores import open_store, public_name
from discovery.stores.base import OnceStore, RegistryStore
from discovery.transport.binding import bind
from discovery.transport.bounds import Bounds
from discovery.transport.connections import Connections
from discovery.transport.drain import DrainGate, draining_error
from discovery.transport.grpc_health import HealthServing
from discovery.transport.http_app import public_routes
from discovery.transport.limits import ConnectionLimits, make_room
from discovery.transport.listener import Listener
from discovery.transport.pipeline import Observer, Pipeline, Witness
from discovery.transport.proxies import TrustedProxies
from discovery.transport.reflection import Reflection
from discovery.transport.rpcs import DiscoveryRpcs
from discovery.transport.serving import Surface, make_listener
from discovery.transport.tls import ServerTls, TlsFiles

if TYPE_CHECKING:
    from discovery.tracing import Tracing

# How many ended leases are freed before other calls get their turn.
_SWEEP_BATCH = 500


class DiscoveryServer:
    """A discovery server: `start`, then `stop`."""

    def __init__(
        self, settings: ServerSettings, log: FilteringBoundLogger, clock: Clock | None = None
    ) -> None:
        """Prepare a server.

        Raises:
            ConfigError: a setting cannot work.
        """
        self.stopping = asyncio.Event()
        """Set when an administrator wants it to stop: whoever started it calls `stop`."""
        self._settings = settings
        self._log = log
        self._clock = clock or SystemClock()
        self._proxies = TrustedProxies(settings.trusted_proxy)
        self._tls = _open_tls(settings, log, self._clock)
        self._metrics = Metrics(__version__)
        self._tracing = _open_tracing() if settings.tracing else None
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
        self._audit = (
            None if not settings.audit_log else open_audit_log(settings.audit_log, self._clock, log)
        )
        self._listener = self._make_listener()
        self._admin = self._make_admin()
        checks = {"serving": self._check_serving, "store": self._probe}
        self._side_port = SidePort(self._metrics.registry, checks, log)
        self._background: list[asyncio.Task[None]] = []
        self.port = settings.port
        """The port it listens on, once started."""
        self.admin_port: int | None = None
        """The port of the admin API, once started; None if that has none."""

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ConfigError: an address cannot be listened on; then none is.
        """
        settings = self._settings
        open_to = " and ".join(dangers(settings))
        if open_to and settings.require_secure:
            raise ConfigError(f"require-secure: whoever reaches the port can {open_to}")
        listening, side, admin = self._bind()
        self.port = listening.getsockname()[1]
        self._listener.start(listening, self._limits(), self._log, self._tls)
        if self._admin is not None and admin is not None:
            self.admin_port = self._admin.start(admin)
        if side is not None:
            self._side_port.start(side)
        self._run(self._sweep_forever())
        self._run(self._health.run())
        if self._tls is not None:
            self._run(self._tls.watch())
        store = settings.store.partition(":")[0]  # the rest may hold a password
        self._log.info(
            "serving",
            host=settings.host,
            port=self.port,
            metrics_port=settings.metrics_port,
            store=store,
            tls=bool(self._tls),
        )
        if open_to:
            self._log.warning("open to strangers", whoever_reaches_the_port_can=open_to)

    async def stop(self) -> None:
        """Drain, then close (promise 6 of the design). Calls in flight get `drain_timeout` to finish.

        With a `drain_delay`, clients are first led away while every call is still answered.
        """
        await self._lead_away(self._settings.drain_delay)
        self._log.info("draining", timeout=self._settings.drain_timeout)
        self._gate.close()
        self._service.end_watches(draining_error)
        self._health.drain()
        self._reflection.drain()
        self._events.close(draining_error())
        await self._listener.stop(self._settings.drain_timeout)
        if self._admin is not None:
            await self._admin.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._gatekeeper.close()
        await self._store.close()
        if self._tracing is not None:
            await self._tracing.close()
        await self._side_port.stop()
        if self._audit is not None:
            self._audit[1]()
        self._log.info("stopped")

    def hurry(self) -> None:
        """End the grace of a `stop` that is under way."""
        self._gate.expel()

    async def _lead_away(self, delay: float) -> None:
        """Have balancers choose others, for half of `delay`, and only then clients connect anew, to those."""
        if not delay:
            return
        self._log.info("leaving", delay=delay)
        self._gate.announce()
        self._health.drain()
        await self._gate.stay_open(delay / 2)
        self._service.end_watches(draining_error)
        await self._listener.send_away(delay / 2)

    def _watched(self, store: RegistryStore) -> RegistryStore:
        traced = store if self._tracing is None else self._tracing.traced(store)
        return MeasuredStore(traced, self._metrics.store)

    def _bind(self) -> tuple[socket.socket, socket.socket | None, socket.socket | None]:
        """Return the sockets of the public port, the side port and the admin API; the latter two may be off."""
        with ExitStack() as bound:
            public = bound.enter_context(bind(self._settings.host, self._settings.port))
            side = self._bind_side_port()
            if side is not None:
                bound.enter_context(side)
            admin = self._bind_admin()
            bound.pop_all()
        return public, side, admin

    def _bind_admin(self) -> socket.socket | None:
        if self._admin is None:
            return None
        try:
            return self._admin.bind()
        except ConfigError as error:
            if "admin_listen" in self._settings.model_fields_set:
                raise
            # As with the side port: nobody asked for this one, and another server on this machine may have it.
            self._log.warning("serving without the admin API", why=str(error))
            return None

    def _bind_side_port(self) -> socket.socket | None:
        settings = self._settings
        if not settings.metrics_port:
            return None
        try:
            return bind(settings.host, settings.metrics_port, "--metrics-port")
        except ConfigError as error:
            if "metrics_port" in settings.model_fields_set:
                raise
            # Nobody asked for this port: a second server on one machine is to start, and Prometheus likes 9090 too.
            self._log.warning("serving without metrics", why=str(error))
            return None

    def _make_listener(self) -> Listener:
        settings = self._settings
        bounds = Bounds(
            streams=settings.max_streams,
            header_bytes=settings.max_header_bytes,
            request_bytes=settings.max_request_bytes,
            request_seconds=settings.request_timeout,
        )
        rpcs = DiscoveryRpcs(self._service)
        observers: list[Observer] = [self._metrics.observer(rpcs.handlers(), rpcs.streams())]
        if self._tracing is not None:
            observers.append(self._tracing)
        self._tally = Tally((*rpcs.handlers(), *rpcs.streams()))
        pipeline = Pipeline(
            rpcs.handlers(),
            self._gate,
            self._log,
            rpcs.streams(),
            observers,
            self._gatekeeper.guards,
            (self._tally.witness, self._events.witness, *self._auditors()),
        )
        http_routes = public_routes(pipeline, bounds.request_bytes, settings.cors_origin)
        surface = Surface(
            DiscoveryServiceBase,
            pipeline,
            {**self._reflection.routes(), **self._health.routes()},
            (*http_routes, *self._reflection.mounts()),
            settings.cors_origin,
        )
        return make_listener(
            surface, self._gate, self._connections, self._proxies, bounds, self._clock
        )

    def _make_admin(self) -> AdminPort | None:
        address = AdminAddress.parse(self._settings.admin_listen)
        if address is None:
            return None
        service = AdminService(
            self._store, self._clock, self._events, self._vitals, self.stopping.set
        )
        guards = self._gatekeeper.admin_guards(trusted=address.trusted)
        return AdminPort(
            address, service, guards, tuple(self._auditors()), self._gate, self._clock, self._log
        )

    def _auditors(self) -> Iterator[Witness]:
        if self._audit is not None:
            yield self._audit[0].witness

    def _vitals(self) -> Vitals:
        return Vitals(
            version=__version__,
            uptime_seconds=self._service.uptime_seconds,
            store=public_name(self._settings.store),
            connections=sum(self._connections.counts.values()),
            watches=self._service.watching,
            calls=self._tally.counts(),
            draining=self._gate.leaving,
        )

    def _limits(self) -> ConnectionLimits:
        settings = self._settings
        total = make_room(settings.max_connections) if settings.max_connections else 0
        if total < settings.max_connections:
            self._log.warning(
                "the limit on open files leaves room for fewer connections", room=total
            )
        return ConnectionLimits(
            total, settings.max_connections_per_address, exempt=self._proxies.trusts
        )

    def _run(self, work: Coroutine[None, None, None]) -> None:
        self._background.append(asyncio.create_task(work))

    async def _probe(self) -> None:
        await self._store.count(now=self._clock.now())

    async def _check_serving(self) -> None:
        if self._gate.leaving:
            raise draining_error()

    async def _sweep_forever(self) -> None:
        while True:
            # The next round tries again: nothing but memory and a number in the metrics depends on it.
            with suppress(StoreUnavailableError):
                await self._sweep()
            await asyncio.sleep(self._settings.cleanup_interval)

    async def _sweep(self) -> None:
        await sweep(self._store, self._clock)
        await self._store.count(now=self._clock.now())


def _open_tracing() -> Tracing:
    """Return what traces. Without `--tracing`, OpenTelemetry is not even imported.

    Raises:
        ConfigError: the extra `otel` is not installed, or an OTEL_* variable cannot work.
    """
    try:
        from discovery.tracing import open_tracing
    except ModuleNotFoundError as error:
        message = f"--tracing needs {error.name}: pip install 'coral-discovery[otel]'"
        raise ConfigError(message) from None
    return open_tracing()


def _open_tls(
    settings: ServerSettings, log: FilteringBoundLogger, clock: Clock
) -> ServerTls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return ServerTls(files, log, clock)


async def sweep(store: RegistryStore, clock: Clock) -> None:
    """Free every lease that has ended, in batches between which calls are answered."""
    while await store.sweep(now=clock.now(), limit=_SWEEP_BATCH):  # noqa: ASYNC110
        await asyncio.sleep(0)  # a turn for other calls, not a poll


async def serve(
    settings: ServerSettings, log: FilteringBoundLogger, announce: Callable[[int], None]
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the wait for calls in flight.

    `announce` is called with the port once registrations are accepted.

    Raises:
        ConfigError: a setting cannot work here.
    """
    server = DiscoveryServer(settings, log)
    await server.start()
    stopping = server.stopping

    def on_signal() -> None:
        if stopping.is_set():
            server.hurry()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    announce(server.port)
    await stopping.wait()
    await server.stop()
