"""How connections come in: counted from the first moment, TLS on those that are let in, and then their protocol.

A loop's own `create_server` tells a protocol of its connection once the TLS handshake is over. Clients that never
begin one would hold any number of sockets for a minute each, and no limit would know of them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial

from structlog.typing import FilteringBoundLogger

from discovery.models import plain_address
from discovery.transport.limits import ConnectionLimits, Place, notice_dead_peers
from discovery.transport.tls import ServerTls

BACKLOG = 1024
"""Connections that the system keeps until they are accepted."""

# Connections accepted in a row, before those that are open get their turn.
_BATCH = 64
# How long to leave connections where they are when there is no socket for them, in seconds.
_PAUSE = 1.0
# How often to say that connections are refused, in seconds.
_REPORT_INTERVAL = 60.0
# A client's goodbye in TLS is waited for no longer than this, in seconds: the loop would for half a minute.
_GOODBYE = 2.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class CountedSocket(socket.socket):
    """A connection that has its place until it is closed, whatever transports and protocols it passes through."""

    def __init__(self, accepted: socket.socket, place: Place) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._place = place

    def close(self) -> None:
        """Close it, and give its place back. Calling it twice does not hurt."""
        super().close()
        self._place.release()

    def detach(self) -> int:
        """Do as `close`, but for the closing, which uvloop does by itself."""
        self._place.release()
        return super().detach()


class Acceptor:
    """Accepts connections within `limits`, and gives each the protocol that `make` returns."""

    def __init__(
        self,
        make: Callable[[], asyncio.BaseProtocol],
        limits: ConnectionLimits,
        log: FilteringBoundLogger,
        *,
        tls: ServerTls | None = None,
        handshake_timeout: float = 10.0,
    ) -> None:
        self._make = make
        self._limits = limits
        self._log = log
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._opening: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._reported = float("-inf")

    def start(self, listening: socket.socket) -> None:
        """Accept what comes to `listening`, a bound socket, which is the acceptor's from now on."""
        listening.settimeout(0)
        listening.listen(BACKLOG)
        self._listening = listening
        self._resume()

    async def close(self) -> None:
        """Accept no more, and end the handshakes that go on. Connections with a protocol stay. Idempotent."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        if self._retry is not None:
            self._retry.cancel()
        asyncio.get_running_loop().remove_reader(listening)
        listening.close()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _resume(self) -> None:
        if self._listening is not None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._listening, self._accept_batch, self._listening)

    def _accept_batch(self, listening: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                accepted, name = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # its client thought better of it
                continue
            except OSError as error:  # there is no descriptor or memory for it
                self._pause(listening, error)
                return
            self._admit(accepted, name)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Try again later: the system would call at once, over and over."""
        self._log.error("cannot accept connections", error=error.strerror, open=self._limits.open)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._retry = loop.call_later(_PAUSE, self._resume)

    def _admit(self, accepted: socket.socket, name: object) -> None:
        address = plain_address(name[0]) if isinstance(name, tuple) else None
        place = self._limits.admit(address)
        if place is None:
            self._refuse(accepted, address)
            return
        sock = CountedSocket(accepted, place)
        task = asyncio.get_running_loop().create_task(self._open(sock))
        self._opening.add(task)
        task.add_done_callback(partial(self._opened, sock))

    def _opened(self, sock: CountedSocket, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if task.cancelled():  # perhaps before it began
            sock.close()

    def _refuse(self, accepted: socket.socket, address: str | None) -> None:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        accepted.close()
        now = asyncio.get_running_loop().time()
        if now - self._reported >= _REPORT_INTERVAL:
            self._reported = now
            counts = {"open": self._limits.open, "refused": self._limits.refused}
            self._log.warning("connections refused: over the limit", peer=address, **counts)

    async def _open(self, sock: CountedSocket) -> None:
        opened = False
        try:
            _prepare(sock)
            await self._give_protocol(sock)
            opened = True
        except (
            OSError
        ) as error:  # the client is gone, speaks no TLS, was too slow, or shows no certificate
            self._log.debug("connection failed before it began", error=str(error))
        finally:
            if not opened:
                sock.close()

    async def _give_protocol(self, sock: CountedSocket) -> None:
        loop = asyncio.get_running_loop()
        if self._tls is None:
            await loop.connect_accepted_socket(self._make, sock)
        else:
            await loop.connect_accepted_socket(
                self._make,
                sock,
                ssl=self._tls.context,
                ssl_handshake_timeout=self._handshake_timeout,
                ssl_shutdown_timeout=_GOODBYE,
            )


def _prepare(sock: socket.socket) -> None:
    if sock.family in {socket.AF_INET, socket.AF_INET6}:
        # asyncio and grpclib set it where a socket's `proto` says TCP, and an accepted socket's says nothing: without
        # it an answer waits 40 ms for the client's delayed acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    notice_dead_peers(sock)
