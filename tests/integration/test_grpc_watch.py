"""Many watchers of one mesh over gRPC, and those that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import betterproto
import pytest
from h2.settings import SettingCodes

from discovery._gen.coral.discovery.v1 import WatchColonyRequest, WatchColonyResponse
from discovery.client import DiscoveryClient
from discovery.transport import codec
from tests.integration.raw import RawConnection, raw_connection
from tests.integration.support import PATIENCE, Running, running
from tests.support import MESH, registration


class Watcher:
    """One stream of a connection, and the states that came on it."""

    def __init__(
        self, connection: RawConnection, mesh_id: str = MESH, request: bytes | None = None
    ) -> None:
        request = request or bytes(WatchColonyRequest(mesh_id=mesh_id))
        self._connection = connection
        self.stream = connection.request("WatchColony", request)

    def states(self) -> list[WatchColonyResponse]:
        rest, found = self._connection._answers[self.stream].body, []
        while len(rest) >= 5 and len(rest) >= (end := 5 + int.from_bytes(rest[1:5])):
            found.append(WatchColonyResponse().parse(rest[5:end]))
            rest = rest[end:]
        return found

    def endpoints(self) -> list[str]:
        return [",".join(state.colony.endpoints) for state in self.states()]

    async def until(self, endpoint: str) -> None:
        await self._connection._receive_until(lambda: self.endpoints()[-1:] == [endpoint])
        assert self.endpoints()[-1] == endpoint


@asynccontextmanager
async def narrow(port: int, window: int) -> AsyncIterator[RawConnection]:
    """A connection whose streams take no more than `window` bytes until they are allowed more."""
    async with raw_connection(port) as connection:
        connection.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        await connection.seen()
        yield connection


async def test_each_watcher_gets_each_change_and_it_is_encoded_once(
    server: Running, client: DiscoveryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[betterproto.Message] = []
    encode = codec.encode

    def counting(message: betterproto.Message) -> bytes:
        if isinstance(message, WatchColonyResponse):
            encoded.append(message)
        return encode(message)

    async with AsyncExitStack() as stack:
        await client.register_colony(registration(endpoints=("203.0.113.5:1",)))
        watchers: list[Watcher] = []
        for _ in range(3):
            connection = await stack.enter_async_context(raw_connection(server.port))
            watchers += [Watcher(connection) for _ in range(20)]
            await connection.send()
        async with asyncio.timeout(PATIENCE):
            for watcher in watchers:
                await watcher.until("203.0.113.5:1")
            monkeypatch.setattr(codec, "encode", counting)
            for port in (2, 3):
                endpoint = f"203.0.113.5:{port}"
                await client.register_colony(registration(endpoints=(endpoint,)))
                for watcher in watchers:
                    await watcher.until(endpoint)

    seen = {tuple(watcher.endpoints()) for watcher in watchers}
    assert seen == {("203.0.113.5:1", "203.0.113.5:2", "203.0.113.5:3")}
    assert len(encoded) == 2


async def test_watchers_of_two_meshes_get_their_own(
    server: Running, client: DiscoveryClient
) -> None:
    async with raw_connection(server.port) as connection:
        watchers = [Watcher(connection, mesh) for mesh in ("one", "two") * 5]
        for mesh in ("one", "two"):
            await client.register_colony(registration(mesh_id=mesh, endpoints=("203.0.113.5:1",)))
        await connection.send()
        async with asyncio.timeout(PATIENCE):
            for watcher in watchers:
                await watcher.until("203.0.113.5:1")

    last = [watcher.states()[-1].colony.mesh_id for watcher in watchers]
    assert last == ["one", "two"] * 5


async def test_a_watcher_with_a_closed_window_is_given_the_latest_state_once_it_opens(
    server: Running, client: DiscoveryClient
) -> None:
    async with narrow(server.port, 0) as slow, raw_connection(server.port) as fast:
        stalled, quick = Watcher(slow), Watcher(fast)
        await slow.seen()
        await fast.send()
        async with asyncio.timeout(PATIENCE):
            await quick.until("")
        for port in range(1, 6):
            await client.register_colony(registration(endpoints=(f"203.0.113.5:{port}",)))
            async with asyncio.timeout(PATIENCE):
                await quick.until(f"203.0.113.5:{port}")
        await slow.seen()
        assert stalled.states() == []

        slow.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
        await slow.send()
        async with asyncio.timeout(PATIENCE):
            await stalled.until("203.0.113.5:5")

    assert stalled.endpoints() == ["", "203.0.113.5:5"]


async def test_a_message_that_fits_in_part_arrives_whole(
    server: Running, client: DiscoveryClient
) -> None:
    async with narrow(server.port, 40) as slow:
        watcher = Watcher(slow)
        await slow.send()
        async with asyncio.timeout(PATIENCE):
            await watcher.until("")
        await client.register_colony(registration(endpoints=("203.0.113.5:1",)))
        async with asyncio.timeout(PATIENCE):
            await watcher.until("203.0.113.5:1")  # h2 opens the window for what was taken


async def test_a_watch_with_a_deadline_ends_by_it(server: Running) -> None:
    async with raw_connection(server.port) as connection:
        request = bytes(WatchColonyRequest(mesh_id=MESH))
        stream = connection.request("WatchColony", request, ("grpc-timeout", "50m"))
        await connection.send()
        answer = await connection.answer(stream)

    assert answer.headers[":status"] == "200"
    assert answer.headers["content-type"] == "application/grpc+proto"
    assert answer.status == 4


async def test_a_watch_that_is_reset_leaves_nothing_behind(server: Running) -> None:
    async with raw_connection(server.port) as connection:
        watches = [connection.request("WatchColony", bytes(WatchColonyRequest(MESH)))]
        await connection.seen()
        assert server.server._service.watching == 1
        connection.h2.reset_stream(watches[0])
        await connection.seen()
        await connection.seen()
        assert server.server._service.watching == 0


async def test_a_watch_that_waits_has_no_task_and_hears_of_changes_and_of_the_end() -> None:
    async with running() as server, raw_connection(server.port) as connection:
        await connection.seen()
        before = len(asyncio.all_tasks())
        watcher = Watcher(connection)
        await connection.seen()
        await watcher.until("")
        assert len(asyncio.all_tasks()) == before
        assert len(watcher.states()) == 1
        await server.server._service.register_colony(registration(endpoints=("a:1",)), None)
        await watcher.until("a:1")
        assert len(asyncio.all_tasks()) == before
        stopping = asyncio.create_task(server.server.stop())
        answer = await connection.answer(watcher.stream)
        await connection.close()
        await stopping

    assert len(watcher.states()) == 2
    assert answer.status == 14
    assert answer.reason == "DRAINING"


async def test_a_watch_that_goes_on_after_what_it_knows_has_no_task_either() -> None:
    async with running() as server, raw_connection(server.port) as connection:
        register = server.server._service.register_colony
        known = (await register(registration(), None)).revision
        await connection.seen()
        before = len(asyncio.all_tasks())
        request = bytes(WatchColonyRequest(MESH, after_revision=known))
        watcher = Watcher(connection, request=request)
        await connection.seen()
        assert server.server._service.watching == 1
        assert len(asyncio.all_tasks()) == before
        assert watcher.states() == []
        await register(registration(endpoints=("a:1",)), None)
        await watcher.until("a:1")


async def test_a_watcher_that_does_not_read_is_told_that_the_server_stops() -> None:
    async with running() as server, narrow(server.port, 0) as slow:
        stream = slow.request("WatchColony", bytes(WatchColonyRequest(MESH)))
        await slow.seen()
        stopping = asyncio.create_task(server.server.stop())
        answer = await slow.answer(stream)
        await slow.close()
        await stopping

    assert answer.status == 14
    assert answer.reason == "DRAINING"
    assert answer.body == b""
