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

from discovery.models import plain_address
from discovery.transport.bounds import Bounds
from discovery.transport.calm_flow import CalmFlow
from discovery.transport.calming import SCOPE_KEY, hush
from discovery.transport.connect_shortcut import Asked, ConnectShortCut, Exchange
from discovery.transport.connections import Connections, Spoken
from discovery.transport.http2_asgi import Application, Message
from discovery.transport.limits import Deadline

# In seconds. Together they find a dead WebSocket peer within 30.
_PING_INTERVAL = 15
_PING_TIMEOUT = 10
_IDLE_TIMEOUT = 75
_LONGEST_KEPT = 2048
"""Bytes of a request that a connection remembers, at most."""

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
    short_cut: ConnectShortCut | None = None
    _silent = True
    """Whether nothing came yet."""
    _leaving = False
    """Whether the next answer is to be the last."""
    _header_bytes = 0
    _reading_headers = True
    _between_requests = True
    _asked: Asked | None = None
    """The last request that took the short cut, unless it is long: most clients make one call, again and again."""
    _exchange: Exchange | None = None
    """What is under way past uvicorn."""
    _waiting: asyncio.Task[bytes] | None = None
    _ahead = b""
    """What came meanwhile."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin: see asyncio.Protocol."""
        self.transport = transport  # uvicorn has the connection counted first, and it may be asked to leave at once
        super().connection_made(transport)
        self._calm = self.flow = CalmFlow(transport)
        self._peer = plain_address(self.client[0]) if self.client else None
        self._late = Deadline(lambda: self._refuse(_TOO_SLOW))
        self._late.arm(self.bounds.request_seconds)
        self._rest = Deadline(self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: see asyncio.Protocol."""
        self._late.close()
        self._rest.close()
        if self._waiting is not None:
            self._waiting.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes: see asyncio.Protocol."""
        self._silent = False
        self._rest.disarm()
        if self._exchange is not None:
            self._ahead += data
            self.flow.pause_reading()
            return
        if self.short_cut is not None and self._is_idle() and self._answers(self.short_cut, data):
            return
        if self._reading_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._reading_headers and self._header_bytes > self.bounds.header_bytes:
            self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """See httptools."""
        self._between_requests = False
        self._late.arm(self.bounds.request_seconds)
        super().on_message_begin()
        cast("Message", self.scope)[SCOPE_KEY] = self._calm.hush

    def on_headers_complete(self) -> None:
        """See httptools."""
        if sum(len(name) + len(value) for name, value in self.headers) > self.bounds.header_bytes:
            self._refuse(_TOO_LARGE)
        self._reading_headers, self._header_bytes = False, 0
        super().on_headers_complete()
        if self._leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over: see uvicorn."""
        self._late.close()
        self._rest.close()
        super().handle_websocket_upgrade()

    def on_message_complete(self) -> None:
        """See httptools."""
        self._reading_headers = self._between_requests = True
        self._late.disarm()
        super().on_message_complete()

    def shutdown(self) -> None:
        """Ask the client to leave once it has its answer, also to what it is about to ask: see uvicorn."""
        if self._exchange is not None:
            self._exchange.end_connection()
        elif self._silent:
            self._leaving = True
        else:
            super().shutdown()

    def shut(self) -> None:
        """Close at once."""
        self.transport.close()

    def _is_idle(self) -> bool:
        """Return whether a request that comes now is the only one."""
        return (
            self._between_requests
            and self._is_answered()
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _is_answered(self) -> bool:
        """Return whether uvicorn has nothing left to answer, as far as it knows."""
        return not bool(self.cycle) or self.cycle.response_complete

    def _answers(self, short_cut: ConnectShortCut, data: bytes) -> bool:
        """Answer a request that may take the short cut; return False if it is for uvicorn to take in."""
        asked = self._asked
        if asked is None or asked.data != data:
            asked = short_cut.recognise(data, self._peer, self._calm.hush)
            if asked is None:
                return False
            self._asked = asked if len(data) <= _LONGEST_KEPT else None
        exchange = short_cut.begin(asked)
        if self._leaving:
            exchange.end_connection()
        self._late.disarm()
        self._unset_keepalive_if_required()
        whole = exchange.answer()
        if whole is not None:
            self._send(whole, keep_alive=exchange.head.keep_alive)
            return True
        self._exchange = exchange
        self._waiting = self.loop.create_task(exchange.wait())
        self._waiting.add_done_callback(self._go_on)
        return True

    def _go_on(self, waiting: asyncio.Task[bytes]) -> None:
        """Answer what was waited for, and take in what came meanwhile."""
        exchange, ahead = cast("Exchange", self._exchange), self._ahead
        self._exchange, self._waiting, self._ahead = None, None, b""
        if waiting.cancelled() or self.transport.is_closing():
            # Perhaps before it began.
            exchange.begun.abandon()
            self.transport.close()
            return
        try:
            self._send(waiting.result(), keep_alive=exchange.head.keep_alive)
            self.flow.resume_reading()
            if ahead and not self.transport.is_closing():
                self.data_received(ahead)
        except Exception:
            self.transport.close()
            raise

    def _send(self, whole: bytes, *, keep_alive: bool) -> None:
        self.transport.write(whole)
        if keep_alive:
            self._rest.arm(self.timeout_keep_alive)
        else:
            self.transport.close()

    def _refuse(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            # What was answered may be the request before, but its answer must be whole.
            before = self._reading_headers and self._is_answered()
            if before or not (bool(self.cycle) and self.cycle.response_started):
                self.transport.write(answer)
            self.transport.close()


class Http1Serving:
    """Makes the protocol of each HTTP/1.1 connection."""

    def __init__(
        self,
        application: Application,
        connections: Connections,
        bounds: Bounds | None = None,
        short_cut: ConnectShortCut | None = None,
    ) -> None:
        self._short_cut = short_cut
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
        connection.short_cut = self._short_cut
        return connection
