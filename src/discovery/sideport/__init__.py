"""The side port: `/metrics` for Prometheus, `/healthz` and `/readyz` for whatever starts and stops the server.

It has a listener of its own, so that it answers before the first call is let in and until the last has left, and so
that it can be kept from the world that the public port serves.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from discovery.transport.accept import Acceptor
from discovery.transport.bounds import Bounds
from discovery.transport.connections import Connections
from discovery.transport.limits import ConnectionLimits
from discovery.transport.loading import LOADING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from discovery.transport.http1 import Http1Serving

# In seconds.
_LINGER = 0.5
# Many times what Prometheus and probes need, and few beside what the public port may need.
_CONNECTIONS = 128
_CONNECTIONS_PER_ADDRESS = 64

Check = Callable[[], Awaitable[object]]
"""Returns when all is well, and raises DiscoveryError when it is not."""


class SidePort:
    """Serves the side port: `start`, then `stop`."""

    def __init__(
        self,
        registry: Callable[[], CollectorRegistry],
        checks: Mapping[str, Check],
        log: FilteringBoundLogger,
        bounds: Bounds | None = None,
    ) -> None:
        """Tell what `registry` returns, once that is asked for; the server is ready when each of `checks` says so."""
        self._registry = registry
        self._checks = checks
        self._bounds = bounds
        self._connections = Connections()
        limits = ConnectionLimits(_CONNECTIONS, _CONNECTIONS_PER_ADDRESS)
        self._acceptor = Acceptor(self._connection, limits, log)

    def start(self, listening: socket.socket) -> None:
        """Answer what comes to `listening`, a bound socket."""
        self._acceptor.start(listening)

    def load_http(self) -> None:
        """Make what answers, so that the first request need not wait for that."""
        self._http1  # noqa: B018 - it is made by being asked for

    async def stop(self) -> None:
        """Answer what was asked, and close. Idempotent; it does not hurt where `start` was never called."""
        await self._acceptor.close()
        await self._connections.close(_LINGER)

    def _connection(self) -> asyncio.Protocol:
        return self._http1.connection()

    @cached_property
    def _http1(self) -> Http1Serving:
        with LOADING:
            from discovery.sideport.application import application
            from discovery.transport.http1 import Http1Serving

            answers = application(self._registry(), self._checks)
        return Http1Serving(answers, self._connections, self._bounds)
