"""The RFD's workflows, from the colony's first registration to the agent that finds it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from discovery.client import DiscoveryClient
from discovery.errors import MeshIdTakenError, NotRegisteredError
from tests.integration.support import PATIENCE, Running, ServerProcess, running
from tests.support import KEY, MESH, OTHER_KEY, key, registration

TTL = 300


@pytest.fixture
async def colony(server: Running) -> AsyncIterator[DiscoveryClient]:
    async with DiscoveryClient(server.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
async def agent(server: Running) -> AsyncIterator[DiscoveryClient]:
    async with DiscoveryClient(server.url, timeout=PATIENCE) as client:
        yield client


async def test_a_colony_registers_and_an_agent_finds_it(child: ServerProcess) -> None:
    async with (
        DiscoveryClient(child.url, timeout=PATIENCE) as colony,
        DiscoveryClient(child.url, timeout=PATIENCE) as agent,
    ):
        with pytest.raises(NotRegisteredError):
            await agent.lookup_colony(MESH)
        registered = await colony.register_colony(registration())
        lease = await agent.lookup_colony(MESH)
        assert lease.registration == registration()
        assert lease.revision == registered.revision
        assert await colony.deregister_colony(MESH, KEY)
        with pytest.raises(NotRegisteredError):
            await agent.lookup_colony(MESH)


async def test_a_colony_that_renews_in_time_is_never_lost(
    server: Running, colony: DiscoveryClient, agent: DiscoveryClient
) -> None:
    """Twenty renewals at the time that each reply asked for: four times the life of a lease."""
    registered = await colony.register_colony(registration())
    first = registered.revision
    for _ in range(20):
        server.clock.advance(registered.refresh_after)
        assert (await agent.lookup_colony(MESH)).expires_at_us > server.clock.now().unix_us
        registered = await colony.register_colony(registration())
    assert registered.revision == first


async def test_a_colony_that_falls_silent_is_lost_and_may_come_back(
    server: Running, colony: DiscoveryClient, agent: DiscoveryClient
) -> None:
    before = await colony.register_colony(registration())
    server.clock.advance(TTL)
    with pytest.raises(NotRegisteredError):
        await agent.lookup_colony(MESH)
    after = await colony.register_colony(registration(endpoints=("198.51.100.7:41820",)))
    assert after.revision > before.revision
    found = (await agent.lookup_colony(MESH)).registration
    assert found.endpoints == ("198.51.100.7:41820",)


async def test_a_colony_that_moved_is_found_at_its_new_endpoints(
    colony: DiscoveryClient, agent: DiscoveryClient
) -> None:
    before = await colony.register_colony(registration(endpoints=("192.0.2.1:41820",)))
    moved = ("[2001:db8::7]:41820", "colony.example.org:41820")
    after = await colony.register_colony(registration(endpoints=moved))
    found = await agent.lookup_colony(MESH)
    assert found.registration.endpoints == moved
    assert found.revision == after.revision > before.revision


async def test_colonies_of_different_meshes_do_not_meet(
    server: Running, colony: DiscoveryClient, agent: DiscoveryClient
) -> None:
    meshes = {f"mesh-{n}": registration(mesh_id=f"mesh-{n}", pubkey=key(n)) for n in range(1, 6)}
    for one in meshes.values():
        await colony.register_colony(one)
    server.clock.advance(TTL - 1)
    await colony.register_colony(meshes["mesh-3"])
    await colony.deregister_colony("mesh-4", key(4))
    server.clock.advance(1)
    assert (await agent.lookup_colony("mesh-3")).registration == meshes["mesh-3"]
    assert (await agent.health()).registered_colonies == 1
    for gone in ("mesh-1", "mesh-2", "mesh-4", "mesh-5"):
        with pytest.raises(NotRegisteredError):
            await agent.lookup_colony(gone)


async def test_a_successor_takes_over_when_the_lease_ends_and_the_predecessor_cannot_return(
    server: Running, colony: DiscoveryClient, agent: DiscoveryClient
) -> None:
    await colony.register_colony(registration())
    with pytest.raises(MeshIdTakenError) as taken:
        await agent.register_colony(registration(pubkey=OTHER_KEY))
    server.clock.advance((taken.value.expires_at_us - server.clock.now().unix_us) / 1_000_000)
    await agent.register_colony(registration(pubkey=OTHER_KEY))
    with pytest.raises(MeshIdTakenError):
        await colony.register_colony(registration())


async def test_a_lease_lasts_as_long_as_the_server_was_told() -> None:
    async with running(ttl=7) as server, DiscoveryClient(server.url, timeout=PATIENCE) as colony:
        assert (await colony.register_colony(registration())).ttl == 7
        server.clock.advance(6.999_999)
        assert (await colony.lookup_colony(MESH)).registration == registration()
        server.clock.advance(0.000_001)
        with pytest.raises(NotRegisteredError):
            await colony.lookup_colony(MESH)


async def test_what_was_registered_is_gone_when_the_server_is(
    colony: DiscoveryClient,
) -> None:
    """The RFD: the memory store loses registrations at a restart, and heartbeats bring them back."""
    await colony.register_colony(registration())
    async with running() as restarted, DiscoveryClient(restarted.url) as again:
        with pytest.raises(NotRegisteredError):
            await again.lookup_colony(MESH)
        await again.register_colony(registration())
        assert (await again.lookup_colony(MESH)).registration == registration()
