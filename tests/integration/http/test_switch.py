"""One port for every protocol: the first bytes of a connection tell what it speaks."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived
from hypothesis import given
from hypothesis import strategies as st

from discovery.transport.connections import Connections
from discovery.transport.gathering import Turn
from discovery.transport.listener import Newcomer
from tests.integration.support import PATIENCE, Running
from tests.support import examples

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HTTP1 = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def http2_request() -> tuple[H2Connection, bytes]:
    client = H2Connection(H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    headers = {":method": "GET", ":scheme": "http", ":path": "/health", ":authority": "x"}
    client.send_headers(1, list(headers.items()), end_stream=True)
    return client, client.data_to_send()


async def write_in_pieces(
    server: Running, data: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send one byte a segment; the kernel sends each on its own because nothing else is buffered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
    return reader, writer


async def test_http1_in_single_bytes(server: Running) -> None:
    reader, writer = await write_in_pieces(server, HTTP1)

    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_http2_in_single_bytes(server: Running) -> None:
    client, data = http2_request()
    reader, writer = await write_in_pieces(server, data)

    events: list[object] = []
    async with asyncio.timeout(PATIENCE):
        while not any(isinstance(event, ResponseReceived) for event in events):
            events += client.receive_data(await reader.read(4096))
    writer.close()


@pytest.mark.parametrize("said", [b"", b"P", b"PRI * HTTP/2.0\r\n"])
async def test_a_connection_that_says_too_little_holds_up_no_stop(
    server: Running, said: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(said)
    await writer.drain()

    await server.server.stop()

    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionResetError):  # if it stopped before it read
            assert await reader.read() == b""
    writer.close()


class Recorder(asyncio.Protocol):
    """Stands for a protocol, and keeps what it is given."""

    def __init__(self, name: str, received: list[tuple[str, bytes]]) -> None:
        self._name = name
        self._received = received

    def data_received(self, data: bytes) -> None:
        self._received.append((self._name, data))


class FakeTransport(asyncio.Transport):
    """A transport to nowhere."""

    protocol: asyncio.BaseProtocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def close(self) -> None:
        pass


@given(
    start=st.one_of(st.just(PREFACE), st.just(PREFACE[:18]), st.binary(max_size=40)),
    rest=st.binary(max_size=40),
    cuts=st.lists(st.integers(0, 80), max_size=8),
)
@examples(300)
def test_however_the_bytes_are_cut_the_right_protocol_gets_them_all(
    start: bytes, rest: bytes, cuts: list[int]
) -> None:
    asyncio.run(_feed(start + rest, sorted(cuts)))


async def _feed(data: bytes, cuts: list[int]) -> None:
    received: list[tuple[str, bytes]] = []
    transport = FakeTransport()
    newcomer = Newcomer(
        Connections(),
        lambda: Recorder("http2", received),
        lambda: Recorder("http1", received),
        patience=PATIENCE,
        turn=Turn(),
    )
    transport.protocol = newcomer
    newcomer.connection_made(transport)
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if piece := data[begin:end]:
            assert isinstance(transport.protocol, asyncio.Protocol)
            transport.protocol.data_received(piece)

    if PREFACE.startswith(data) and data != PREFACE:
        assert received == []  # not enough to tell
        newcomer.connection_lost(None)
        return
    expected = "http2" if data.startswith(PREFACE) else "http1"
    assert {name for name, _ in received} == {expected}
    assert b"".join(piece for _, piece in received) == data
