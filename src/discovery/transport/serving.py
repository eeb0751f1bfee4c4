"""One service on one listening socket, in every protocol: what the public port and the admin port have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.routing import BaseRoute

from discovery.clock import Clock
from discovery.transport.bounds import Bounds
from discovery.transport.connect import ConnectApplication
from discovery.transport.connections import Connections
from discovery.transport.drain import DrainGate
from discovery.transport.grpc import GrpcServing, Routes
from discovery.transport.http1 import Http1Serving
from discovery.transport.http2 import Http2Connection
from discovery.transport.http_app import http_application
from discovery.transport.listener import Listener
from discovery.transport.pipeline import Pipeline
from discovery.transport.proxies import TrustedProxies
from discovery.transport.schema import Servable


@dataclass(frozen=True, slots=True)
class Surface:
    """What is served: a service by its pipeline, and more routes of gRPC and of HTTP."""

    service: type[Servable]
    pipeline: Pipeline
    grpc_routes: Routes = field(default_factory=dict)
    http_routes: Sequence[BaseRoute] = ()
    cors_origins: tuple[str, ...] = ()


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
    """Return what serves `surface` on the connections that it accepts.

    What is `fast` takes short cuts for calls that mostly need not wait for anything.
    """
    pipeline, service = surface.pipeline, surface.service
    connect = ConnectApplication(pipeline, bounds.request_bytes, service)
    application = http_application(
        pipeline, proxies, connect, surface.http_routes, surface.cors_origins
    )
    http1 = Http1Serving(application, connections, bounds)
    grpc = GrpcServing(pipeline, application, proxies, bounds, surface.grpc_routes, service)

    def http2() -> Http2Connection:
        handler = grpc.handler()
        return Http2Connection(handler, connections, bounds, clock, handler if fast else None)

    return Listener(
        gate,
        connections,
        http2=http2,
        http1=http1.connection,
        patience=bounds.request_seconds,
    )
