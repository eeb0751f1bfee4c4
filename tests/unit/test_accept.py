from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from discovery.transport import accept
from discovery.transport.accept import Acceptor, CountedSocket
from discovery.transport.binding import bind
from discovery.transport.limits import ConnectionLimits, Place
from discovery.transport.tls import ServerTls
from discovery.transport.tls_files import TlsFiles
from tests.support import ManualClock

LOOPBACK = "127.0.0.1"
PATIENCE = 30.0
NO_LIMIT = (0, 0)


def logger(log: LogCapture) -> FilteringBoundLogger:
    made: FilteringBoundLogger = structlog.wrap_logger(
        None, processors=[log], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    return made


@pytest.fixture
def tls(tmp_path: Path) -> ServerTls:
    leaf = trustme.CA().issue_cert("localhost")
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    files.cert.write_bytes(leaf.cert_chain_pems[0].bytes())
    files.key.write_bytes(leaf.private_key_pem.bytes())
    return ServerTls(files, logger(LogCapture()), ManualClock())


class Greeter(asyncio.Protocol):
    """Says hello, and leaves when the client does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")


class Handover(asyncio.Protocol):
    """Hands its connection to another protocol at once, as the protocol switch does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        other = Greeter()
        transport.set_protocol(other)
        other.connection_made(transport)


class WatchedLimits(ConnectionLimits):
    """Limits that tell when a connection comes or goes."""

    def __init__(self, total: int, per_address: int) -> None:
        super().__init__(total, per_address)
        self._changed = asyncio.Event()

    def admit(self, address: str | None) -> Place | None:
        self._changed.set()
        return super().admit(address)

    def _give_back(self, site: str | None) -> None:
        self._changed.set()
        super()._give_back(site)

    async def until_open(self, count: int) -> None:
        """Return once so many connections are open."""
        while self.open != count:
            self._changed.clear()
            await self._changed.wait()


class Client:
    """A connection that may be open, or refused."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def greeted(self) -> bool:
        return await self.received() == b"hello"

    async def received(self) -> bytes:
        """Return what comes, up to five bytes or the end."""
        try:
            return await self._reader.readexactly(5)
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""

    async def leave(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class Door:
    """An acceptor, and everything that knocked at it."""

    def __init__(self, listening: socket.socket, limits: tuple[int, int], **options: Any) -> None:
        self.limits = WatchedLimits(*limits)
        self.log = LogCapture()
        make = options.pop("make", Greeter)
        self.acceptor = Acceptor(make, self.limits, logger(self.log), **options)
        self.address = listening.getsockname()
        self.acceptor.start(listening)
        self._clients: list[Client] = []

    async def knock(self) -> Client:
        if isinstance(self.address, tuple):
            client = Client(*await asyncio.open_connection(*self.address))
        else:
            client = Client(*await asyncio.open_unix_connection(self.address))
        self._clients.append(client)
        return client

    async def refuses(self) -> bool:
        """Knock, and tell whether nothing came of it. The refusal may come while the client still connects."""
        try:
            client = await self.knock()
        except ConnectionError:
            return True
        return not await client.greeted()

    async def close(self) -> None:
        await self.acceptor.close()
        for client in self._clients:
            await client.leave()
        await self.limits.until_open(0)

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self.log.entries]


@asynccontextmanager
async def door(
    limits: tuple[int, int] = NO_LIMIT, listening: socket.socket | None = None, **options: Any
) -> AsyncIterator[Door]:
    """Open a door; in the end all have left, and every place was given back."""
    made = Door(listening or bind(LOOPBACK, 0), limits, **options)
    async with asyncio.timeout(PATIENCE):
        try:
            yield made
        finally:
            await made.close()


@pytest.mark.parametrize("make", [Greeter, Handover])
async def test_a_connection_counts_until_it_is_closed_whatever_protocols_it_passes_through(
    make: type[asyncio.Protocol],
) -> None:
    async with door(make=make) as there:
        client = await there.knock()
        assert await client.greeted()
        assert there.limits.open == 1
        await client.leave()
        await there.limits.until_open(0)


def test_a_place_is_given_back_when_an_event_loop_closes_the_descriptor_itself() -> None:
    limits = ConnectionLimits(1, 0)
    place = limits.admit(None)
    assert place is not None
    one, other = socket.socketpair()
    with other, socket.socket(fileno=CountedSocket(one, place).detach()):
        assert limits.open == 0


async def test_who_comes_over_the_limit_is_refused_until_there_is_a_place() -> None:
    async with door((1, 0)) as there:
        first = await there.knock()
        assert await first.greeted()
        assert await there.refuses()
        assert there.limits.refused == 1
        await first.leave()
        await there.limits.until_open(0)
        assert await (await there.knock()).greeted()


async def test_refusals_are_told_once_in_a_while() -> None:
    async with door((0, 1)) as there:
        assert await (await there.knock()).greeted()
        for _ in range(3):
            assert await there.refuses()
        assert there.events == ["connections refused: over the limit"]
        assert there.log.entries[0]["peer"] == LOOPBACK


async def test_a_unix_socket_has_no_address(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    async with door((0, 1), listening) as there:
        assert await (await there.knock()).greeted()
        assert await (await there.knock()).greeted()


async def test_answers_do_not_wait_and_dead_peers_are_noticed() -> None:
    options: list[int] = []

    class Looking(Greeter):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            sock = transport.get_extra_info("socket")
            options.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            options.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            super().connection_made(transport)

    async with door(make=Looking) as there:
        assert await (await there.knock()).greeted()
    assert all(options)
    assert len(options) == 2


# -- TLS ------------------------------------------------------------------------------------------


async def test_a_client_that_never_begins_its_handshake_counts_and_is_late(tls: ServerTls) -> None:
    async with door((1, 0), tls=tls, handshake_timeout=0.2) as there:
        silent = await there.knock()
        await there.limits.until_open(1)
        assert await there.refuses(), "the only place is taken"
        assert await silent.received() == b""
        await there.limits.until_open(0)
        assert there.events[-1] == "connection failed before it began"


async def test_a_client_that_speaks_no_tls_gives_its_place_back(tls: ServerTls) -> None:
    async with door(tls=tls) as there:
        client = await there.knock()
        client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await client.received()
        await there.limits.until_open(0)


async def test_a_client_that_leaves_during_its_handshake_gives_its_place_back(
    tls: ServerTls,
) -> None:
    async with door(tls=tls) as there:
        client = await there.knock()
        await there.limits.until_open(1)
        await client.leave()
        await there.limits.until_open(0)


# -- The end --------------------------------------------------------------------------------------


async def test_closing_ends_handshakes(tls: ServerTls) -> None:
    async with door(tls=tls) as there:
        client = await there.knock()
        await there.limits.until_open(1)
        await there.acceptor.close()
        assert await client.received() == b""
        await there.limits.until_open(0)


async def test_closing_ends_what_has_not_begun() -> None:
    listening = bind(LOOPBACK, 0)
    async with door(listening=listening) as there:
        with socket.create_connection(there.address):
            there.acceptor._accept_batch(listening)
            assert there.limits.open == 1
            await there.acceptor.close()
            assert there.limits.open == 0


async def test_closing_leaves_connections_that_are_made_alone() -> None:
    async with door() as there:
        assert await (await there.knock()).greeted()
        await there.acceptor.close()
        await there.acceptor.close()
        assert there.limits.open == 1
        with pytest.raises(ConnectionRefusedError):
            await there.knock()


# -- What the system cannot give ------------------------------------------------------------------


class FailingSocket(socket.socket):
    """A listening socket whose first `accept` fails."""

    def __init__(self, failure: int) -> None:
        plain = bind(LOOPBACK, 0)
        super().__init__(plain.family, plain.type, plain.proto, plain.detach())
        self.failure = failure
        self.failed = asyncio.Event()

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.failed.is_set():
            self.failed.set()
            raise OSError(self.failure, os.strerror(self.failure))
        return super().accept()


@pytest.mark.parametrize(
    "failure,told", [(errno.ECONNABORTED, 0), (errno.EAGAIN, 0), (errno.EMFILE, 1)]
)
async def test_a_connection_that_cannot_be_accepted_does_not_stop_the_next(
    monkeypatch: pytest.MonkeyPatch, failure: int, told: int
) -> None:
    monkeypatch.setattr(accept, "_PAUSE", 0.01)
    async with door(listening=FailingSocket(failure)) as there:
        assert await (await there.knock()).greeted()
        assert there.events == ["cannot accept connections"] * told


async def test_closing_during_a_pause_ends_it() -> None:
    listening = FailingSocket(errno.EMFILE)
    async with door(listening=listening) as there:
        await there.knock()
        await listening.failed.wait()
    assert there.limits.open == 0


async def test_a_protocol_that_cannot_be_made_gives_its_place_back() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # it would log the defect

    def fail() -> asyncio.Protocol:
        raise RuntimeError("a defect")

    async with door(make=fail) as there:
        client = await there.knock()
        assert await client.received() == b""
        await there.limits.until_open(0)
