"""What is idle takes little: most connections, and all watches, are."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from discovery._gen.coral.discovery.v1 import WatchColonyRequest
from tests.integration.raw import framed, request_headers
from tests.integration.support import LOOPBACK, PATIENCE, Running

COUNT = 50
"""Of connections, and of watches over each of four."""
CONNECTION = 16 * 1024
WATCH = 7 * 1024


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def opening(method: str, messages: list[bytes]) -> bytes:
    """Return what a client sends, without keeping a client."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    for message in messages:
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, request_headers(method))
        client.send_data(stream, framed(message), end_stream=True)
    return client.data_to_send()


async def join(stack: AsyncExitStack, server: Running, data: bytes, messages: int) -> None:
    """Connect, send `data`, and return once so many DATA frames have come; the socket alone stays."""
    loop = asyncio.get_running_loop()
    client = stack.enter_context(socket.socket())
    client.setblocking(False)
    await loop.sock_connect(client, (LOOPBACK, server.port))
    await loop.sock_sendall(client, data)
    answer = b""
    async with asyncio.timeout(PATIENCE):
        while data_frames(answer) < messages:
            answer += await loop.sock_recv(client, 65_536)


def data_frames(answer: bytes) -> int:
    found, at = 0, 0
    while (end := at + 9 + int.from_bytes(answer[at : at + 3], "big")) <= len(answer):
        found += answer[at + 3] == 0
        at = end
    return found


def held(server: Running) -> int:
    """Return the bytes that this process's objects take, without the log that a test keeps."""
    server.log.entries.clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_an_idle_connection_and_an_idle_watch_take_little(server: Running) -> None:
    async with AsyncExitStack() as stack:
        call = opening("Health", [b""])
        await join(stack, server, call, 1)
        before = held(server)
        for _ in range(COUNT):
            await join(stack, server, call, 1)
        connection = (held(server) - before) / COUNT
        meshes = iter(f"mesh-{number}" for number in range(4 * COUNT))
        watches = [
            opening("WatchColony", [bytes(WatchColonyRequest(next(meshes))) for _ in range(COUNT)])
            for _ in range(4)
        ]
        before = held(server)
        for data in watches:
            await join(stack, server, data, COUNT)
        watch = (held(server) - before - 4 * connection) / (4 * COUNT)

    assert connection < CONNECTION
    assert watch < WATCH
