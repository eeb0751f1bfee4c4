"""HTTP/1.1 and WebSocket connections: uvicorn's protocols, with the limits that a server in front would set."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.http11 import Request

from discovery.transport.bounds import Bounds
from discovery.transport.calm_flow import CalmFlow
from discovery.transport.calming import SCOPE_KEY, hush
from discovery.transport.connections import Connections, Spoken
from discovery.transport.http2_asgi import Application, Message
from discovery.transport.limits import Deadline

# In seconds. Together they find a dead WebSocket peer within 30.
_PING_INTERVAL = 15
_PING_TIMEOUT = 10
_IDLE_TIMEOUT = 75

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A connection that was upgraded."""

    speaks: Spoken = "websocket"

    def handle_connect(self, event: Request) -> None:
        """Take in the handshake: see uvicorn. Its task has not begun when this returns."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            cast("Message", self.scope)[SCOPE_KEY] = partial(hush, self.transport)

    def shutdown(self) -> None:
        """Say that the server is leaving (1012), unless a close is under way already."""
        with suppress(InvalidState):
            super().shutdown()

    def shut(self) -> None:
        """Close at once."""
        self.transport.close()


class Http1Connection(HttpToolsProtocol):
    """A client's connection: uvicorn's, with a bound on how large headers are, and how long a request takes to come."""

    speaks: Spoken = "http/1.1"
    bounds = Bounds()
    _header_bytes = 0
    _reading_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin: see asyncio.Protocol."""
        super().connection_made(transport)
        self._calm = self.flow = CalmFlow(transport)
        self._late = Deadline(lambda: self._refuse(_TOO_SLOW))
        self._late.arm(self.bounds.request_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: see asyncio.Protocol."""
        self._late.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes: see asyncio.Protocol."""
        if self._reading_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._reading_headers and self._header_bytes > self.bounds.header_bytes:
            self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """See httptools."""
        self._reading_headers = True
        self._late.arm(self.bounds.request_seconds)
        super().on_message_begin()
        cast("Message", self.scope)[SCOPE_KEY] = self._calm.hush

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._reading_headers, self._header_bytes = False, 0
        if sum(len(name) + len(value) for name, value in self.headers) > self.bounds.header_bytes:
            self._refuse(_TOO_LARGE)
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over: see uvicorn."""
        self._late.close()
        super().handle_websocket_upgrade()

    def on_message_complete(self) -> None:
        """See httptools."""
        self._late.disarm()
        super().on_message_complete()

    def shut(self) -> None:
        """Close at once."""
        self.transport.close()

    def _refuse(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            answered = bool(self.cycle) and self.cycle.response_started
            if not answered:
                self.transport.write(answer)
            self.transport.close()


class Http1Serving:
    """Makes the protocol of each HTTP/1.1 connection."""

    def __init__(
        self, application: Application, connections: Connections, bounds: Bounds | None = None
    ) -> None:
        self._bounds = bounds or Bounds()
        self._config = Config(
            app=application,
            ws=WebSocketConnection,
            lifespan="off",
            log_config=None,
            log_level="error",  # a client's mistakes are its own
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_IDLE_TIMEOUT,
            ws_max_size=self._bounds.request_bytes,
            ws_ping_interval=_PING_INTERVAL,
            ws_ping_timeout=_PING_TIMEOUT,
        )
        self._config.load()
        self._state = ServerState()
        # uvicorn adds and discards, and never looks inside.
        self._state.connections = cast("Any", connections)

    def connection(self) -> Http1Connection:
        """Return the protocol for one new connection."""
        connection = Http1Connection(self._config, self._state, {})
        connection.bounds = self._bounds
        return connection
