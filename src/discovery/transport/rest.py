"""REST as in RFD-001's appendix, and the WebSocket of its "real-time updates": the same JSON, the same errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus

import betterproto
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from discovery._gen.coral.discovery.v1 import (
    HealthRequest,
    LookupColonyRequest,
    RegisterColonyRequest,
)
from discovery.errors import DiscoveryError, InvalidMessageError, TooLargeError
from discovery.models import plain_address
from discovery.transport import json_codec
from discovery.transport.calming import HUSH
from discovery.transport.http_errors import error_body, error_headers, http_status
from discovery.transport.pipeline import Call, Pipeline, Receive
from discovery.transport.rpcs import SERVICE

JSON = "application/json"


class RestRoutes:
    """The paths, each a name for an RPC."""

    def __init__(self, pipeline: Pipeline, max_bytes: int) -> None:
        self._pipeline = pipeline
        self._max_bytes = max_bytes

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/v1/colony/register", self._register, methods=["POST"]),
            Route("/v1/colony/lookup/{mesh_id}", self._lookup, methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
        ]

    async def _register(self, request: Request) -> Response:
        return await self._answer(
            request, "RegisterColony", partial(_read_body, request, self._max_bytes)
        )

    async def _lookup(self, request: Request) -> Response:
        message = LookupColonyRequest(request.path_params["mesh_id"])
        return await self._answer(request, "LookupColony", _given(message))

    async def _health(self, request: Request) -> Response:
        return await self._answer(request, "Health", _given(HealthRequest()))

    async def _answer(self, request: Request, name: str, receive: Receive) -> Response:
        call = rest_call(request, name, "rest")
        try:
            reply = await self._pipeline.unary(call, receive)
        except DiscoveryError as error:
            return error_response(error)
        return Response(json_codec.encode(reply), headers=call.reply_metadata, media_type=JSON)


def rest_call(connection: HTTPConnection, name: str, protocol: str) -> Call:
    """Return the call of the RPC `name` that an HTTP request stands for."""
    client = connection.client
    return Call(
        f"{SERVICE}/{name}",
        protocol,
        peer=plain_address(client.host) if client else None,
        metadata=dict(connection.headers),
        hush=HUSH.get(),
    )


def error_response(error: DiscoveryError, status: int | None = None) -> Response:
    """Return the answer for `error`, with the status that HTTP has where Connect has a more general one."""
    if isinstance(error, TooLargeError):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    elif isinstance(error, _NotJsonError):
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return Response(
        error_body(error), status or http_status(error), dict(error_headers(error)), JSON
    )


class _NotJsonError(InvalidMessageError):
    """A body that does not say it is JSON."""


def _given(message: betterproto.Message) -> Callable[[], Awaitable[betterproto.Message]]:
    async def receive() -> betterproto.Message:
        return message

    return receive


async def _read_body(request: Request, max_bytes: int) -> RegisterColonyRequest:
    """Read JSON. A browser asks no permission to send other content types across origins, so they are refused."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON:
        raise _NotJsonError(f"the request must be JSON, with content-type: {JSON}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise TooLargeError(f"the request is too large; at most {max_bytes} bytes")
    return json_codec.decode(body, RegisterColonyRequest)
