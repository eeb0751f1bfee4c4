"""A server as a process: stopped and reloaded by signals, and watched by whoever runs it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from discovery.supervisor import Supervisor

# How soon to try again what shows that connections are accepted, in seconds.
_RETRY = 1.0


class Server(Protocol):
    """What a daemon runs."""

    stopping: asyncio.Event
    """Set when somebody else than a signal wants it to stop."""
    port: int

    @property
    def address(self) -> tuple[int, Any]:
        """The family and the address of the listening socket, once started."""
        ...

    @property
    def stop_seconds(self) -> float:
        """How long a stop can take."""
        ...

    async def start(self) -> None:
        """Listen and serve; raises ConfigError if that cannot be."""
        ...

    async def warm_up(self) -> None:
        """Make ready what was not needed to start."""
        ...

    async def stop(self) -> None:
        """Drain, then close."""
        ...

    def hurry(self) -> None:
        """End the grace of a stop that is under way."""
        ...


class Daemon:
    """Runs a server until somebody wants it to stop, by SIGTERM or SIGINT; a second one ends the wait for calls.

    Whoever starts it may have turned the collection of garbage off, to start sooner: once it runs that is on.
    """

    def __init__(
        self,
        server: Server,
        reload: Callable[[], Sequence[str]],
        supervisor: Supervisor,
        log: FilteringBoundLogger,
    ) -> None:
        """Run `server`. SIGHUP calls `reload`, which returns the names of what could not be."""
        self._server = server
        self._reload = reload
        self._supervisor = supervisor
        self._log = log

    async def run(self, announce: Callable[[int], None]) -> None:
        """Serve, then drain. `announce` is called with the port once registrations are accepted.

        Raises:
            ConfigError: a setting cannot work here.
        """
        server, supervisor = self._server, self._supervisor
        await server.start()
        self._heed_signals()
        announce(server.port)
        supervisor.ready(self._status())
        async with self._watchdog_fed():
            await settle(server.warm_up())
            await server.stopping.wait()
            supervisor.stopping("Draining", server.stop_seconds)
            await server.stop()

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(signal.SIGINT, self._on_stop)
        # Of a terminal that is closed it means the end: a server that was tried there is not to stay behind.
        loop.add_signal_handler(signal.SIGHUP, self._on_stop if at_terminal() else self._on_reload)

    def _on_stop(self) -> None:
        if self._server.stopping.is_set():
            self._server.hurry()
        self._server.stopping.set()

    def _on_reload(self) -> None:
        if self._server.stopping.is_set():
            return
        self._supervisor.reloading()
        self._supervisor.ready(self._status(self._reload()))

    def _status(self, not_reloaded: Sequence[str] = ()) -> str:
        status = f"Accepting registrations on port {self._server.port}"
        return f"{status}; not reloaded: {', '.join(not_reloaded)}" if not_reloaded else status

    @asynccontextmanager
    async def _watchdog_fed(self) -> AsyncIterator[None]:
        interval = self._supervisor.watchdog_interval
        if interval is None:
            yield
            return
        feeding = asyncio.create_task(self._feed(interval))
        try:
            yield
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def _feed(self, interval: float) -> None:
        while True:
            # While it stops, what must go on is the event loop.
            if self._server.stopping.is_set() or await self._accepts(interval / 2):
                self._supervisor.alive()
                await asyncio.sleep(interval)
            else:
                await asyncio.sleep(min(_RETRY, interval))

    async def _accepts(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                await knock(*self._server.address)
        except OSError as error:  # TimeoutError is one
            self._log.warning("connections are not accepted", why=str(error) or "no answer")
            return False
        return True


async def settle(warm_up: Awaitable[None]) -> None:
    """Have a server that serves load the rest; from then on collect garbage, which its start has not (see the CLI)."""
    await warm_up
    # What is there now never dies, modules above all: a collection of everything need not look at it.
    gc.freeze()
    gc.enable()


def at_terminal() -> bool:
    """Return whether a person started this process, and can close its terminal."""
    try:
        return os.isatty(0)
    except OSError:  # there is no standard input
        return False


async def knock(family: int, address: Any) -> None:  # noqa: ANN401 - what the family has
    """Connect, hang up at once, and return when the other side has done so too.

    The kernel connects by itself: only what accepts connections, and handles what they bring, hangs up. It does not
    matter whether that speaks TLS, or has no room for one more connection.

    Raises:
        OSError: nobody listens there.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_STREAM) as caller:
        caller.settimeout(0)
        await loop.sock_connect(caller, address)
        with suppress(OSError):  # refused by a reset: it was accepted
            caller.shutdown(socket.SHUT_WR)
            await loop.sock_recv(caller, 1)
