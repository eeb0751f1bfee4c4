"""Watching a colony over a WebSocket: `/v1/colony/watch/{mesh_id}?after_revision=N`, a state a text message.

A watch that ends sends the error, in the same JSON as everywhere, and closes: with 1013 (try again later) when the
server stops or its store is away, with 1008 when the request was wrong.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from http import HTTPStatus
from urllib.parse import urlsplit

import betterproto
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from discovery._gen.coral.discovery.v1 import WatchColonyRequest
from discovery.errors import Code, DiscoveryError, InvalidMessageError
from discovery.transport import json_codec
from discovery.transport.http_errors import error_object
from discovery.transport.once import Once
from discovery.transport.pipeline import Pipeline
from discovery.transport.rest import error_response, rest_call

_TRY_AGAIN_LATER = 1013
_POLICY_VIOLATION = 1008


class WatchSocket:
    """Answers the WebSocket of a mesh."""

    def __init__(self, pipeline: Pipeline, origins: tuple[str, ...]) -> None:
        """Serve pages of this host and of `origins` (`*`: of any); programs send no Origin."""
        self._pipeline = pipeline
        self._origins = origins

    def routes(self) -> list[BaseRoute]:
        """Return the routes: the WebSocket, and what a request that asks for none is told."""
        path = "/v1/colony/watch/{mesh_id}"
        return [WebSocketRoute(path, self._serve), Route(path, self._ask_for_upgrade)]

    async def _ask_for_upgrade(self, request: Request) -> Response:
        error = InvalidMessageError("this path is a WebSocket: connect to it as one")
        self._pipeline.refuse(rest_call(request, "WatchColony", "rest"), error)
        response = error_response(error, HTTPStatus.UPGRADE_REQUIRED)
        response.headers.update({"connection": "upgrade", "upgrade": "websocket"})
        return response

    async def _serve(self, socket: WebSocket) -> None:
        if not self._welcome(socket):
            await socket.close(_POLICY_VIOLATION)
            return
        await socket.accept()
        pushing = asyncio.create_task(self._push(socket))
        try:
            await _until_gone(socket, pushing)
        finally:
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)

    def _welcome(self, socket: WebSocket) -> bool:
        """Apply the same-origin rule, which browsers leave to the server here (RFC 6455 section 10.2)."""
        origin = socket.headers.get("origin")
        if origin is None or "*" in self._origins or origin in self._origins:
            return True
        return urlsplit(origin).netloc == socket.headers.get("host")

    async def _push(self, socket: WebSocket) -> None:
        async def receive() -> betterproto.Message:
            return WatchColonyRequest(socket.path_params["mesh_id"], _after_revision(socket))

        replies = self._pipeline.stream(rest_call(socket, "WatchColony", "websocket"), receive)
        try:
            async with aclosing(replies):
                async for reply in replies:
                    await socket.send_text(_text(reply))
        except DiscoveryError as error:
            await socket.send_text(json.dumps({"error": error_object(error)}))
            again = error.code is Code.UNAVAILABLE
            await socket.close(_TRY_AGAIN_LATER if again else _POLICY_VIOLATION)


def _as_text(reply: betterproto.Message) -> str:
    return json_codec.encode(reply).decode()


_text = Once(_as_text)


async def _until_gone(socket: WebSocket, pushing: asyncio.Task[None]) -> None:
    """Wait until the client leaves or everything was said. What a client sends means nothing, and is dropped."""
    gone = asyncio.create_task(_disconnected(socket))
    try:
        await asyncio.wait((gone, pushing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()


async def _disconnected(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _after_revision(socket: WebSocket) -> int:
    text = socket.query_params.get("after_revision", "0")
    if not (text.isascii() and text.isdigit() and int(text) < 2**64):
        raise InvalidMessageError("after_revision must be a whole number")
    return int(text)
