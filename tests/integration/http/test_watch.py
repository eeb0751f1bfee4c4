"""Watching a colony, over every protocol that can."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import httpx
import pytest
from websockets.asyncio.client import connect

from discovery.client import DiscoveryClient
from discovery.errors import DrainingError
from discovery.models import Presence
from tests.integration.support import PATIENCE, Running, running
from tests.support import KEY, MESH, registration

State = tuple[str, int]
Watch = Callable[[Running, str, int], AsyncGenerator[State]]


async def over_grpc(server: Running, mesh_id: str, after: int = 0) -> AsyncGenerator[State]:
    async with (
        DiscoveryClient(server.url) as client,
        aclosing(client.watch_colony(mesh_id, after)) as events,
    ):
        async for event in events:
            yield event.presence.name, event.revision


async def over_connect(
    server: Running, mesh_id: str, after: int = 0, *, http2: bool = False
) -> AsyncGenerator[State]:
    message = json.dumps({"mesh_id": mesh_id, "after_revision": str(after)}).encode()
    async with (
        httpx.AsyncClient(http1=not http2, http2=http2, timeout=PATIENCE, verify=False) as client,
        client.stream(
            "POST",
            f"{server.url}/coral.discovery.v1.DiscoveryService/WatchColony",
            content=struct.pack(">BI", 0, len(message)) + message,
            headers={"content-type": "application/connect+json"},
        ) as answer,
    ):
        buffered = b""
        async for chunk in answer.aiter_bytes():
            buffered += chunk
            while len(buffered) >= 5 and len(buffered) >= 5 + (
                size := int.from_bytes(buffered[1:5])
            ):
                flags, state = buffered[0], json.loads(buffered[5 : 5 + size])
                buffered = buffered[5 + size :]
                if flags & 2:
                    raise ConnectionError(state["error"]["code"])
                yield state["state"], int(state["revision"])


def over_connect_http2(server: Running, mesh_id: str, after: int = 0) -> AsyncGenerator[State]:
    return over_connect(server, mesh_id, after, http2=True)


async def over_websocket(server: Running, mesh_id: str, after: int = 0) -> AsyncGenerator[State]:
    url = f"ws://127.0.0.1:{server.port}/v1/colony/watch/{mesh_id}?after_revision={after}"
    async with connect(url) as socket:
        async for message in socket:
            state = json.loads(message)
            if "error" in state:
                raise ConnectionError(state["error"]["code"])
            yield state["state"], int(state["revision"])


every_protocol = pytest.mark.parametrize(
    "watch", [over_grpc, over_connect, over_connect_http2, over_websocket]
)


async def next_state(states: AsyncGenerator[State]) -> State:
    async with asyncio.timeout(PATIENCE):
        return await anext(states)


@every_protocol
async def test_each_change_and_no_renewal(
    server: Running, client: DiscoveryClient, watch: Watch
) -> None:
    async with aclosing(watch(server, MESH, 0)) as states:
        seen = [await next_state(states)]
        for endpoint in ("203.0.113.5:1", "203.0.113.5:1", "203.0.113.5:2"):
            await client.register_colony(registration(endpoints=(endpoint,)))
            if endpoint not in str(seen):
                seen.append((endpoint, (await next_state(states))[1]))
        await client.deregister_colony(MESH, KEY)
        seen.append(await next_state(states))

    names, revisions = zip(*seen, strict=True)
    assert names == ("ABSENT", "203.0.113.5:1", "203.0.113.5:2", "ABSENT")
    assert list(revisions) == sorted(set(revisions))


@every_protocol
async def test_an_expiry_is_told(server: Running, client: DiscoveryClient, watch: Watch) -> None:
    await client.register_colony(registration())
    async with aclosing(watch(server, MESH, 0)) as states:
        assert (await next_state(states))[0] == "REGISTERED"

        server.clock.advance(300)
        await client.health()

        assert (await next_state(states))[0] == "ABSENT"


@every_protocol
async def test_who_comes_back_is_not_told_again(
    server: Running, client: DiscoveryClient, watch: Watch
) -> None:
    registered = await client.register_colony(registration())
    async with aclosing(watch(server, MESH, registered.revision)) as states:
        reading = asyncio.create_task(next_state(states))
        await client.health()
        assert not reading.done()
        await client.deregister_colony(MESH, KEY)
        assert (await reading)[0] == "ABSENT"


@every_protocol
async def test_a_change_while_away_is_told(
    server: Running, client: DiscoveryClient, watch: Watch
) -> None:
    registered = await client.register_colony(registration())
    await client.deregister_colony(MESH, KEY)

    async with aclosing(watch(server, MESH, registered.revision)) as states:
        assert (await next_state(states))[0] == "ABSENT"


@every_protocol
async def test_a_server_that_stops_ends_the_watch_as_unavailable(watch: Watch) -> None:
    async with running() as server:
        async with aclosing(watch(server, MESH, 0)) as states:
            await next_state(states)
            stopping = asyncio.create_task(server.server.stop())
            with pytest.raises((ConnectionError, DrainingError)) as ended:
                await next_state(states)
        await stopping

    assert isinstance(ended.value, DrainingError) or str(ended.value) == "unavailable"


async def test_two_hundred_watchers_of_fifty_colonies_that_flap_end_on_the_truth(
    server: Running, client: DiscoveryClient
) -> None:
    protocols = [over_grpc, over_connect, over_websocket]
    latest: dict[int, State] = {}
    told = asyncio.Event()

    async def follow(number: int) -> None:
        watch = protocols[number % len(protocols)]
        async with aclosing(watch(server, f"mesh-{number % 50}", 0)) as states:
            async for state in states:
                latest[number] = state
                told.set()

    async def flap(number: int) -> None:
        mesh_id = f"mesh-{number}"
        for round_ in range(6):
            await client.register_colony(
                registration(mesh_id=mesh_id, endpoints=(f"203.0.113.5:{round_ + 1}",))
            )
            if (number + round_) % 3 == 0:
                await client.deregister_colony(mesh_id, KEY)

    watchers = [asyncio.create_task(follow(number)) for number in range(200)]
    await asyncio.gather(*(flap(number) for number in range(50)))
    truth = {}
    for number in range(50):
        event = await anext(client.watch_colony(f"mesh-{number}"))
        truth[number] = (event.presence.name, event.revision)
    async with asyncio.timeout(PATIENCE):
        while any(latest.get(number) != truth[number % 50] for number in range(200)):
            told.clear()
            await told.wait()
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    assert {presence for presence, _ in truth.values()} == {p.name for p in Presence}
