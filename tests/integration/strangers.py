"""Servers that are not ours, for our client to meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from tests.integration.support import LOOPBACK, all_ended


def url_of(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


class Stranger(asyncio.Protocol):
    """A server that hears out every call, and answers only what it was told to, if anything, before it hangs up."""

    url: str

    def __init__(self, answer: bytes, calls: int) -> None:
        self.calls = 0
        self.asked = asyncio.Event()
        """Set once there were `calls`."""
        self.left = asyncio.Event()
        self._expected = calls
        self._answer = answer
        self._h2 = H2Connection(H2Configuration(client_side=False))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.left.set()

    def data_received(self, data: bytes) -> None:
        events = self._h2.receive_data(data)
        self.calls += sum(isinstance(event, RequestReceived) for event in events)
        if self.calls >= self._expected:
            self.asked.set()
        if self._answer:
            self._transport.write(self._answer)
            self._transport.close()


@asynccontextmanager
async def strange_server(answer: bytes = b"", calls: int = 1) -> AsyncIterator[Stranger]:
    """A Stranger, for one connection."""
    stranger = Stranger(answer, calls)
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: stranger, LOOPBACK, 0) as server:
        stranger.url = url_of(port_of(server))
        yield stranger


class Gateway:
    """An address that stays while the server behind it comes and goes, and hangs up while there is none.

    A server cannot count on getting its port again: another test may have taken it meanwhile.
    """

    target: int | None = None
    port: int
    deaf = False
    """Whether what clients send is thrown away, as by a network that has gone."""

    def __init__(self) -> None:
        self.ignored = asyncio.Event()
        """Set once something was thrown away."""
        self._forwarding: set[asyncio.Task[Any]] = set()
        self._clients: set[asyncio.StreamWriter] = set()

    def hang_up(self) -> None:
        """Cut every connection."""
        for writer in self._clients:
            writer.transport.abort()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Gateway]:
        async with await asyncio.start_server(self._forward, LOOPBACK, 0) as server:
            self.port = port_of(server)
            yield self
        await all_ended(self._forwarding)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._forwarding.add(cast("asyncio.Task[Any]", asyncio.current_task()))
        if self.target is None:
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection(LOOPBACK, self.target)
        self._clients.add(writer)
        await asyncio.gather(
            pump(reader, server_writer, self._is_lost), pump(server_reader, writer)
        )
        self._clients.discard(writer)

    def _is_lost(self) -> bool:
        if self.deaf:
            self.ignored.set()
        return self.deaf


async def pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    is_lost: Callable[[], bool] = lambda: False,
) -> None:
    """Pass on bytes that are not lost, until either side leaves."""
    try:
        while data := await reader.read(65536):
            if not is_lost():
                writer.write(data)
                await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
