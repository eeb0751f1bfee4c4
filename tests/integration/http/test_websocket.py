"""Watching a colony over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from discovery.client import DiscoveryClient
from tests.integration.support import PATIENCE, Running, all_ended, running
from tests.support import KEY, MESH, registration


@asynccontextmanager
async def watching(
    server: Running, path: str = MESH, **options: Any
) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{server.port}/v1/colony/watch/{path}"
    async with connect(url, **options) as socket:
        yield socket


async def state(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        message: dict[str, Any] = json.loads(await socket.recv())
    return message


async def test_the_state_at_once_and_then_each_change(
    server: Running, client: DiscoveryClient
) -> None:
    async with watching(server) as socket:
        absent = await state(socket)
        await client.register_colony(registration())
        registered = await state(socket)
        await client.register_colony(registration())
        await client.deregister_colony(MESH, KEY)
        gone = await state(socket)

    assert [s["state"] for s in (absent, registered, gone)] == ["ABSENT", "REGISTERED", "ABSENT"]
    assert registered["colony"]["pubkey"] == KEY
    assert int(absent["revision"]) < int(registered["revision"]) < int(gone["revision"])


async def test_it_resumes_without_repeating(server: Running, client: DiscoveryClient) -> None:
    registered = await client.register_colony(registration())

    async with watching(server, f"{MESH}?after_revision={registered.revision}") as socket:
        await client.deregister_colony(MESH, KEY)
        assert (await state(socket))["state"] == "ABSENT"


@pytest.mark.parametrize("path", ["-bad-", f"{MESH}?after_revision=soon"])
async def test_a_wrong_request_is_told_and_closed(server: Running, path: str) -> None:
    async with watching(server, path) as socket:
        assert (await state(socket))["error"]["code"] == "invalid_argument"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_a_server_that_stops_says_so() -> None:
    async with running() as server:
        async with watching(server) as socket:
            await state(socket)
            stopping = asyncio.create_task(server.server.stop())
            assert (await state(socket))["error"]["code"] == "unavailable"
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        await stopping

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


async def test_what_a_client_sends_is_dropped(server: Running) -> None:
    async with watching(server) as socket:
        await socket.send("x" * 1000)
        await socket.send(b"\0")
        assert (await state(socket))["state"] == "ABSENT"


async def test_a_page_of_another_origin_is_turned_away(server: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with watching(server, origin="https://evil.example"):
            pass

    assert refused.value.response.status_code == 403


async def test_a_page_of_this_host_is_let_in(server: Running) -> None:
    async with watching(server, origin=server.url) as socket:
        assert (await state(socket))["state"] == "ABSENT"


async def test_a_watcher_who_leaves_is_forgotten(server: Running) -> None:
    async with watching(server) as socket:
        await state(socket)

    await all_ended({task for task in asyncio.all_tasks() if "_push" in repr(task)})
    assert server.requests()[0]["status"] == "CANCELLED"
    assert server.server._service._hub._topics == {}
