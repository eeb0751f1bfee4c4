"""The ASGI application behind everything on the port that is not gRPC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from discovery.errors import UnimplementedError
from discovery.models import plain_address
from discovery.transport.calming import HUSH, SCOPE_KEY, keep_hearing
from discovery.transport.connect import ConnectApplication
from discovery.transport.pipeline import Call, Pipeline
from discovery.transport.proxies import TrustedProxies
from discovery.transport.rest import RestRoutes, error_response
from discovery.transport.websocket import WatchSocket

_GRPC = re.compile(r"application/grpc(?![\w-])", re.ASCII)
# What answers carry beyond what a page may read unasked.
_EXPOSED = ("retry-after", "content-encoding", "coral-staleness")


def http_application(
    pipeline: Pipeline,
    proxies: TrustedProxies,
    connect: ConnectApplication,
    more_routes: Sequence[BaseRoute],
    cors_origins: tuple[str, ...] = (),
) -> Starlette:
    """Return the application; pages of `cors_origins` (`*`: of any origin) may call it."""
    routes: list[BaseRoute] = [*more_routes, Mount(connect.path, app=connect)]
    application = Starlette(
        routes=routes,
        middleware=[Middleware(_Manners, proxies=proxies), *_cors(cors_origins)],
        exception_handlers={HTTPException: _NotHere(pipeline).answer},
    )
    application.router.redirect_slashes = False  # it would redirect to whatever host a client names
    return application


def public_routes(
    pipeline: Pipeline, max_bytes: int, cors_origins: tuple[str, ...]
) -> Sequence[BaseRoute]:
    """Return what the public port has beside Connect: REST, and the WebSocket."""
    return [
        *RestRoutes(pipeline, max_bytes).routes(),
        *WatchSocket(pipeline, cors_origins).routes(),
    ]


def _cors(origins: tuple[str, ...]) -> list[Middleware]:
    if not origins:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=_EXPOSED,
        max_age=7200,
    )
    return [cors]


class _Manners:
    """What every answer owes to HTTP, and who every request is from."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_manners(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("date", formatdate(usegmt=True))  # RFC 9110 section 6.6.1
                headers.setdefault("cache-control", "no-store")  # a lease ends when no cache knows
            await send(message)

        if scope["type"] in {"http", "websocket"}:
            self._identify(scope)
        if scope["type"] == "http" and _GRPC.match(Headers(scope=scope).get("content-type", "")):
            # Over HTTP/2 it does not come here, and over HTTP/1.1 there are no trailers for its status.
            problem = UnimplementedError("gRPC needs HTTP/2")
            refusal = error_response(problem, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
            await refusal(scope, receive, send_with_manners)
            return
        await self._app(scope, receive, send_with_manners)

    def _identify(self, scope: Scope) -> None:
        peer = plain_address(scope["client"][0]) if scope.get("client") else None
        address = self._proxies.client(peer, scope["headers"])
        scope["client"] = None if address is None else (address, 0)
        HUSH.set(scope.get(SCOPE_KEY, keep_hearing) if address == peer else keep_hearing)


class _NotHere:
    """Answers a path or method that does not exist in the same JSON as everything else."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def answer(self, request: Request, error: Exception) -> Response:
        """See Starlette's exception handlers."""
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
        wrong_method = status == HTTPStatus.METHOD_NOT_ALLOWED
        problem = UnimplementedError(
            "this path takes another method" if wrong_method else "there is nothing at this path"
        )
        peer = request.client.host if request.client else None
        self._pipeline.refuse(Call(request.url.path, "rest", peer), problem)
        response = error_response(problem, status)
        response.headers.update((isinstance(error, HTTPException) and error.headers) or {})
        return response
