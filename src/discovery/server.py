"""The life of a server: it opens, serves, drains, closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from structlog.typing import FilteringBoundLogger

from discovery.clock import Clock, SystemClock
from discovery.composition import Composition
from discovery.config import ServerSettings
from discovery.daemon import Daemon
from discovery.errors import ConfigError, StoreUnavailableError
from discovery.gatekeeper import dangers
from discovery.reloading import reload_all, settings_check
from discovery.sockets import bind_all
from discovery.stores.base import RegistryStore
from discovery.supervisor import Supervisor
from discovery.transport.binding import bind
from discovery.transport.drain import draining_error
from discovery.transport.limits import ConnectionLimits, make_room
from discovery.transport.loading import load_meanwhile

if TYPE_CHECKING:
    from discovery.tracing import Tracing

# How many ended leases are freed before other calls get their turn.
_SWEEP_BATCH = 100


class DiscoveryServer(Composition):
    """A discovery server: `start`, then `stop`."""

    def __init__(
        self, settings: ServerSettings, log: FilteringBoundLogger, clock: Clock | None = None
    ) -> None:
        """Prepare a server.

        Raises:
            ConfigError: a setting cannot work.
        """
        tracing = _open_tracing() if settings.tracing else None
        super().__init__(settings, log, clock or SystemClock(), tracing)
        self._background: list[asyncio.Task[None]] = []
        self.port = settings.port
        """The port it listens on, once started."""
        self.admin_port: int | None = None
        """The port of the admin API, once started; None if that has none."""
        self.address: tuple[int, Any] = (0, None)
        """The family and the address of the public port's socket, once started."""
        self.stop_seconds = settings.stop_seconds
        """How long a stop can take."""

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ConfigError: an address cannot be listened on, or is open to whom it must not be; then none is.
        """
        settings = self._settings
        if settings.require_secure:
            for danger in self._dangers():
                raise ConfigError(f"require-secure: {danger}")
        sockets = bind_all(settings, self._admin, self._log, bind)
        self.address = sockets.public.family, sockets.public.getsockname()
        self.port = self.address[1][1]
        self._listener.start(sockets.public, self._limits(), self._log, self._tls)
        if self._admin is not None and sockets.admin is not None:
            self.admin_port = self._admin.start(sockets.admin, self._tls)
        if sockets.side is not None:
            self._side_port.start(sockets.side)
        self._run(self._sweep_forever())
        self._run(self._health.run())
        if self._tls is not None:
            self._run(self._tls.watch())
        self._tell_how_it_serves()

    async def warm_up(self) -> None:
        """Load what gRPC does without: HTTP in all its forms. To be called once the server serves.

        Calls are answered meanwhile. Whoever asks for HTTP before has the rest loaded at once, and waits for that.
        """
        await load_meanwhile(self.stopping.is_set)
        if self.stopping.is_set():
            return
        self._listener.load_http()
        self._side_port.load_http()
        if self._admin is not None:
            self._admin.load_http()

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
        if self._audit_file is not None:
            self._audit_file.close()
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

    def _tell_how_it_serves(self) -> None:
        settings = self._settings
        self._log.info(
            "serving",
            host=settings.host,
            port=self.port,
            metrics_port=settings.metrics_port,
            store=settings.store.partition(":")[0],  # the rest may hold a password
            tls=bool(self._tls),
        )
        if open_to := " and ".join(dangers(settings)):
            self._log.warning("open to strangers", whoever_reaches_the_port_can=open_to)
        if self._admin_in_clear():
            self._log.warning("admin API in clear text", whoever_listens_in_can="take its API keys")

    def _dangers(self) -> Iterator[str]:
        """Say why this server is not secure, if it is not."""
        if open_to := " and ".join(dangers(self._settings)):
            yield f"whoever reaches the port can {open_to}"
        if self._admin_in_clear():
            yield "the admin API beyond this machine carries API keys, in clear text without --tls-cert"

    def _admin_in_clear(self) -> bool:
        address = self._admin_address
        return address is not None and not address.trusted and self._tls is None

    def _limits(self) -> ConnectionLimits:
        settings = self._settings
        total = make_room(settings.max_connections) if settings.max_connections else 0
        if total < settings.max_connections:
            self._log.warning(
                "the limit on open files leaves room for fewer connections", room=total
            )
        return ConnectionLimits(
            total,
            settings.max_connections_per_address,
            exempt=self._proxies.trusts,
            on_refusal=self._metrics.connections_refused.inc,
        )

    def _run(self, work: Coroutine[None, None, None]) -> None:
        self._background.append(asyncio.create_task(work))

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


async def sweep(store: RegistryStore, clock: Clock) -> None:
    """Free every lease that has ended, in batches between which calls are answered."""
    while await store.sweep(now=clock.now(), limit=_SWEEP_BATCH):  # noqa: ASYNC110
        await asyncio.sleep(0)  # a turn for other calls, not a poll


async def serve(
    settings: ServerSettings,
    log: FilteringBoundLogger,
    announce: Callable[[int], None],
    supervisor: Supervisor,
    reread: Callable[[], ServerSettings],
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the wait for calls in flight.

    SIGHUP reads files again, and says which settings `reread` finds changed. `announce` is called with the port once
    registrations are accepted, and `supervisor` is told how all this goes.

    Raises:
        ConfigError: a setting cannot work here.
    """
    server = DiscoveryServer(settings, log)
    parts = {**server.reloads(), "settings": settings_check(settings, reread)}
    await Daemon(server, lambda: reload_all(parts, log), supervisor, log).run(announce)
