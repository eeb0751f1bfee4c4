"""The side port: `/metrics` for Prometheus, `/healthz` and `/readyz` for whatever starts and stops the server.

It has a listener of its own, so that it answers before the first call is let in and until the last has left, and so
that it can be kept from the world that the public port serves.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.typing import FilteringBoundLogger

from discovery.errors import DiscoveryError
from discovery.transport.accept import Acceptor
from discovery.transport.bounds import Bounds
from discovery.transport.connections import Connections
from discovery.transport.http1 import Http1Serving
from discovery.transport.limits import ConnectionLimits

# In seconds. A Kubernetes probe waits for one: it is to be told which check failed before it gives up.
CHECK_TIMEOUT = 0.8
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
        registry: CollectorRegistry,
        checks: Mapping[str, Check],
        log: FilteringBoundLogger,
        bounds: Bounds | None = None,
    ) -> None:
        """The server is ready when each of `checks`, asked in order, says so."""
        self._registry = registry
        self._checks = checks
        self._connections = Connections()
        http1 = Http1Serving(self._application(), self._connections, bounds)
        limits = ConnectionLimits(_CONNECTIONS, _CONNECTIONS_PER_ADDRESS)
        self._acceptor = Acceptor(http1.connection, limits, log)

    def start(self, listening: socket.socket) -> None:
        """Answer what comes to `listening`, a bound socket."""
        self._acceptor.start(listening)

    async def stop(self) -> None:
        """Answer what was asked, and close. Idempotent; it does not hurt where `start` was never called."""
        await self._acceptor.close()
        await self._connections.close(_LINGER)

    def _application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/healthz", _alive),
                Route("/readyz", self._ready),
            ],
            exception_handlers={HTTPException: _not_here},
        )

    async def _metrics(self, request: Request) -> Response:
        encode, content_type = _encoder(request.headers.get("accept", ""))
        body = encode(self._registry)
        headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
        if gzip_accepted(request.headers.get("accept-encoding", "")):
            body = gzip.compress(body)
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    async def _ready(self, _request: Request) -> Response:
        results: dict[str, str] = {}
        for name, check in self._checks.items():
            if (problem := await _problem(check)) is not None:
                return _json({"ready": False, "checks": {**results, name: problem}}, 503)
            results[name] = "ok"
        return _json({"ready": True, "checks": results})


async def _problem(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check()
    except DiscoveryError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT} s"
    return None


async def _alive(_request: Request) -> Response:
    """Answer, which is all there is to say: the process lives, and its event loop turns."""
    return _json({"alive": True})


async def _not_here(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = error.headers if isinstance(error, HTTPException) else None
    return _json(
        {"error": "there is nothing here but GET /metrics, /healthz and /readyz"}, status, headers
    )


def _json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(content)
    return Response(
        body, status, {"cache-control": "no-store", **(headers or {})}, "application/json"
    )


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return how to write what `accept` asks for, and its content type."""
    try:
        return choose_encoder(accept)
    except TypeError:  # from a version that is no number
        return choose_encoder("")
