"""The listening socket, what each connection speaks, and the clean stop of everything behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from structlog.typing import FilteringBoundLogger

from discovery.transport.accept import Acceptor
from discovery.transport.connections import Connections, Spoken
from discovery.transport.drain import DrainGate
from discovery.transport.gathering import GatheringTransport, Turn
from discovery.transport.limits import ConnectionLimits
from discovery.transport.tls import HTTP2, ServerTls

_LINGER = 1.0  # in seconds, for clients to close by themselves once they are told to go
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4

MakeProtocol = Callable[[], asyncio.Protocol]


class Listener:
    """Accepts connections and gives each the protocol that it speaks."""

    def __init__(
        self,
        gate: DrainGate,
        connections: Connections,
        http2: MakeProtocol,
        http1: MakeProtocol,
        load_http: Callable[[], None],
        patience: float,
    ) -> None:
        self.load_http = load_http
        """Makes what answers HTTP, so that its first request need not wait for that."""
        self._gate = gate
        self._connections = connections
        self._http2 = http2
        self._http1 = http1
        self._patience = patience
        self._turn = Turn()
        self._acceptor: Acceptor | None = None

    def start(
        self,
        listening: socket.socket,
        limits: ConnectionLimits,
        log: FilteringBoundLogger,
        tls: ServerTls | None,
    ) -> None:
        """Accept what comes to `listening`, a bound socket, within `limits`."""
        self._acceptor = Acceptor(
            self._newcomer, limits, log, tls=tls, handshake_timeout=self._patience
        )
        self._acceptor.start(listening)

    async def send_away(self, seconds: float) -> None:
        """Ask clients to call elsewhere, and answer them for `seconds` more, or until the gate is closed.

        Those that are never idle are told halfway: their calls would be refused soon.
        """
        self._connections.dismiss()
        await self._gate.stay_open(seconds / 2)
        self._connections.insist()
        await self._gate.stay_open(seconds / 2)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, let those in flight finish for up to `grace` seconds, then close everything.

        The socket stays open until the calls are done, so that a client that connects meanwhile is told UNAVAILABLE.
        """
        await self._gate.drain(grace)
        if self._acceptor is not None:
            await self._acceptor.close()
        await self._connections.close(_LINGER)

    def _newcomer(self) -> Newcomer:
        return Newcomer(self._connections, self._http2, self._http1, self._patience, self._turn)


class Newcomer(asyncio.Protocol):
    """A connection that has not said what it speaks: HTTP/2 begins with a preface, anything else is HTTP/1.1."""

    speaks: Spoken = "undecided"

    def __init__(
        self,
        connections: Connections,
        http2: MakeProtocol,
        http1: MakeProtocol,
        patience: float,
        turn: Turn,
    ) -> None:
        """Wait `patience` seconds for enough to tell. What is answered is sent in its `turn`."""
        self._turn = turn
        self._connections = connections
        self._http2 = http2
        self._http1 = http1
        self._patience = patience
        self._said = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: see asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._patience, self._transport.close)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == HTTP2:
            self._become(self._http2)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: see asyncio.Protocol."""
        del exc
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Take in bytes until they tell the two apart."""
        self._said += data
        if self._said.startswith(_PREFACE):
            self._become(self._http2)
        elif not _PREFACE.startswith(self._said):
            self._become(self._http1)

    def shutdown(self) -> None:
        """Close: nothing was asked here."""
        self._transport.close()

    def shut(self) -> None:
        """Close."""
        self._transport.close()

    def _become(self, make_protocol: MakeProtocol) -> None:
        self._leave()
        protocol = make_protocol()
        self._transport.set_protocol(protocol)
        protocol.connection_made(GatheringTransport(self._transport, self._turn))
        if self._said:
            protocol.data_received(self._said)

    def _leave(self) -> None:
        self._timer.cancel()
        self._connections.discard(self)
