"""Agents, through the client library and a server: what colonies have, in a namespace of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import MappingProxyType

import pytest

from discovery.client import DiscoveryClient
from discovery.errors import (
    DrainingError,
    InvalidFieldError,
    MeshIdTakenError,
    NotOwnerError,
    NotRegisteredError,
)
from discovery.models import Endpoint, Lease, Registration, Synced, WatchEvent
from tests.integration.support import LOOPBACK, PATIENCE, Running, running
from tests.support import KEY, MESH, OTHER_KEY, key, registration

EVERYTHING = registration(
    agent_id="api",
    metadata=MappingProxyType({"region": "eu-west", "grüße": "süß"}),
    mesh_ipv4="10.42.0.9",
    mesh_ipv6="fd42::9",
    observed_endpoint=Endpoint("203.0.113.9", 40000, "udp", via_relay=True),
)


def agent(agent_id: str, pubkey: str = KEY, mesh_id: str = MESH) -> Registration:
    return registration(mesh_id=mesh_id, agent_id=agent_id, pubkey=pubkey)


async def listed(client: DiscoveryClient, mesh_id: str = MESH) -> Sequence[Lease]:
    return [lease async for lease in client.list_agents(mesh_id)]


async def test_registers_and_finds_everything_that_a_registration_may_hold(
    client: DiscoveryClient, server: Running
) -> None:
    registered = await client.register_agent(EVERYTHING)
    lease = await client.lookup_agent(MESH, "api")
    assert lease.registration == EVERYTHING
    assert (registered.ttl, registered.revision) == (300, lease.revision)
    assert registered.expires_at_us == lease.expires_at_us
    assert lease.last_seen_us == server.clock.now().unix_us
    assert registered.observed_endpoint == Endpoint(LOOPBACK, 0, "tcp")
    assert await listed(client) == [lease]


async def test_an_agent_never_passes_for_a_colony(client: DiscoveryClient) -> None:
    await client.register_agent(agent(MESH))
    with pytest.raises(NotRegisteredError):
        await client.lookup_colony(MESH)
    assert await client.deregister_colony(MESH, KEY) is False
    await client.register_colony(registration(pubkey=OTHER_KEY))

    assert (await client.lookup_agent(MESH, MESH)).registration.pubkey == KEY
    assert (await client.lookup_colony(MESH)).registration.pubkey == OTHER_KEY
    assert (await client.health()).registered_colonies == 1


async def test_who_came_first_owns_the_name_until_the_lease_ends(
    client: DiscoveryClient, server: Running
) -> None:
    registered = await client.register_agent(agent("api"))
    with pytest.raises(MeshIdTakenError, match="agent 'api' of mesh") as taken:
        await client.register_agent(agent("api", OTHER_KEY))
    with pytest.raises(NotOwnerError) as foreign:
        await client.deregister_agent(MESH, "api", OTHER_KEY)
    assert taken.value.expires_at_us == registered.expires_at_us
    assert {taken.value.agent_id, foreign.value.agent_id} == {"api"}

    server.clock.advance(300)
    with pytest.raises(NotRegisteredError, match="agent 'api'") as missing:
        await client.lookup_agent(MESH, "api")
    assert (missing.value.mesh_id, missing.value.agent_id) == (MESH, "api")
    await client.register_agent(agent("api", OTHER_KEY))


async def test_leaves(client: DiscoveryClient) -> None:
    await client.register_agent(agent("api"))
    assert await client.deregister_agent(MESH, "api", KEY) is True
    assert await client.deregister_agent(MESH, "api", KEY) is False
    assert await listed(client) == []


async def test_lists_more_agents_than_a_page_has(client: DiscoveryClient) -> None:
    names = [f"agent-{number:03}" for number in range(250)]
    for number, name in enumerate(reversed(names), 1):
        await client.register_agent(agent(name, key(number)))
    await client.register_agent(agent("agent-0", mesh_id="mesh-2"))

    assert [lease.registration.agent_id for lease in await listed(client)] == names


async def test_every_rule_that_is_broken_comes_with_its_field(client: DiscoveryClient) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await client.register_agent(
            registration(mesh_id="", agent_id="a/b", pubkey="x", endpoints=("a:0",))
        )
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["mesh_id", "agent_id", "pubkey", "endpoints[0]"]
    with pytest.raises(InvalidFieldError, match="agent_id"):
        await client.lookup_agent(MESH, "")


# -- Watching --------------------------------------------------------------------------------------------

Watch = AsyncGenerator[WatchEvent | Synced]


async def read(watch: Watch) -> WatchEvent | Synced:
    async with asyncio.timeout(PATIENCE):
        return await anext(watch)


async def named(watch: Watch) -> tuple[list[str], int]:
    """Return who is named until the watch is synced, and at which revision it is."""
    names = []
    while isinstance(event := await read(watch), WatchEvent):
        assert event.lease is not None
        assert event.lease.registration.agent_id == event.agent_id
        names.append(event.agent_id)
    return names, event.revision


async def test_follows_agents_as_they_come_change_and_go(
    client: DiscoveryClient, server: Running
) -> None:
    await client.register_agent(agent("b"))
    await client.register_agent(agent("a"))
    async with aclosing(client.watch_agents(MESH)) as watch:
        assert (await named(watch))[0] == ["a", "b"]

        await client.register_agent(agent("c", OTHER_KEY))
        await client.register_agent(registration(agent_id="a", endpoints=("192.0.2.9:1",)))
        await client.deregister_agent(MESH, "b", KEY)
        changes = [await read(watch) for _ in range(3)]
    assert [change.agent_id for change in changes if isinstance(change, WatchEvent)] == list("cab")
    assert [isinstance(change, WatchEvent) and change.lease is None for change in changes] == [
        False,
        False,
        True,
    ]
    revisions = [change.revision for change in changes]
    assert revisions == sorted(set(revisions))


async def test_goes_on_where_a_watch_before_ended(client: DiscoveryClient) -> None:
    await client.register_agent(agent("a"))
    async with aclosing(client.watch_agents(MESH)) as watch:
        _, revision = await named(watch)
    async with aclosing(client.watch_agents(MESH, revision)) as watch:
        assert await named(watch) == ([], revision)

    await client.deregister_agent(MESH, "a", KEY)
    await client.register_agent(agent("b"))
    async with aclosing(client.watch_agents(MESH, revision)) as watch:
        names, later = await named(watch)
    assert names == ["b"]
    assert later > revision


async def test_a_lease_that_ends_is_told_without_anybody_asking() -> None:
    async with running(ttl=1) as server, DiscoveryClient(server.url, timeout=PATIENCE) as client:
        await client.register_agent(agent("a"))
        async with aclosing(client.watch_agents(MESH)) as watch:
            assert (await named(watch))[0] == ["a"]
            server.clock.advance(1)

            gone = await read(watch)
    assert isinstance(gone, WatchEvent)
    assert (gone.agent_id, gone.lease) == ("a", None)


async def test_a_server_that_stops_says_so() -> None:
    async with (
        running() as server,
        DiscoveryClient(server.url, timeout=PATIENCE) as client,
        aclosing(client.watch_agents(MESH)) as watch,
    ):
        await named(watch)
        stopping = asyncio.create_task(server.server.stop())
        with pytest.raises(DrainingError):
            await read(watch)
        await stopping
