"""One service on one listening socket, in every protocol: what the public port and the admin port have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from discovery.clock import Clock
from discovery.transport.bounds import Bounds
from discovery.transport.connections import Connections
from discovery.transport.drain import DrainGate
from discovery.transport.grpc import GrpcServing, Routes
from discovery.transport.http2 import Http2Connection
from discovery.transport.http2_asgi import Application
from discovery.transport.listener import Listener
from discovery.transport.loading import LOADING
from discovery.transport.pipeline import Pipeline
from discovery.transport.proxies import TrustedProxies
from discovery.transport.schema import Servable

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from discovery.transport.http1 import Http1Serving


@dataclass(frozen=True, slots=True)
class Surface:
    """What is served: a service by its pipeline, and more routes of gRPC and of HTTP."""

    service: type[Servable]
    pipeline: Pipeline
    grpc_routes: Routes = field(default_factory=dict)
    http_routes: Callable[[], Sequence[BaseRoute]] = tuple
    """Makes them, once there is HTTP to serve."""
    cors_origins: tuple[str, ...] = ()
    at_once: bool = False
    """Whether most calls need not wait for anything."""


def make_listener(
    surface: Surface,
    gate: DrainGate,
    connections: Connections,
    proxies: TrustedProxies,
    bounds: Bounds,
    clock: Clock,
    *,
    fast: bool = False,
) -> Listener:
    """Return what serves `surface` on the connections that it accepts, with short cuts if it is to be `fast`."""
    http = _Http(surface, connections, proxies, bounds, fast=fast)
    grpc = GrpcServing(
        surface.pipeline,
        http.answer,
        proxies,
        bounds,
        surface.grpc_routes,
        surface.service,
        at_once=surface.at_once,
    )

    def http2() -> Http2Connection:
        handler = grpc.handler()
        return Http2Connection(handler, connections, bounds, clock, handler if fast else None)

    return Listener(
        gate,
        connections,
        http2=http2,
        http1=http.connection,
        load_http=http.load,
        patience=bounds.request_seconds,
    )


class _Http:
    """What is not gRPC.

    It is made when HTTP is first asked for, or by `load`: see `loading`.
    """

    def __init__(
        self,
        surface: Surface,
        connections: Connections,
        proxies: TrustedProxies,
        bounds: Bounds,
        *,
        fast: bool,
    ) -> None:
        self._surface = surface
        self._fast = fast
        self._connections = connections
        self._proxies = proxies
        self._bounds = bounds

    def load(self) -> None:
        """Have everything ready."""
        self._http1  # noqa: B018 - it is made by being asked for

    def connection(self) -> asyncio.Protocol:
        """Return the protocol for a new HTTP/1.1 connection."""
        return self._http1.connection()

    def answer(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:  # noqa: ANN401 - ASGI's
        """Answer a request, as an ASGI application does."""
        answer: Awaitable[None] = self._application(scope, receive, send)
        return answer

    @cached_property
    def _http1(self) -> Http1Serving:
        with LOADING:
            from discovery.transport.connect_shortcut import ConnectShortCut
            from discovery.transport.http1 import Http1Serving

        surface, bounds, short_cut = self._surface, self._bounds, None
        # With CORS, answers have headers that are Starlette's to know.
        if self._fast and not surface.cors_origins:
            short_cut = ConnectShortCut(
                *(surface.pipeline, self._proxies, bounds, surface.service),
                at_once=surface.at_once,
            )
        return Http1Serving(self._application, self._connections, bounds, short_cut)

    @cached_property
    def _application(self) -> Application:
        with LOADING:
            from discovery.transport.connect import ConnectApplication
            from discovery.transport.http_app import http_application

        surface = self._surface
        connect = ConnectApplication(surface.pipeline, self._bounds.request_bytes, surface.service)
        return http_application(
            surface.pipeline, self._proxies, connect, surface.http_routes(), surface.cors_origins
        )
