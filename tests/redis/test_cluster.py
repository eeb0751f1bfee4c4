"""A real cluster of three nodes, or of three with a replica each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from discovery.errors import MeshIdTakenError, QuotaError, StoreUnavailableError
from discovery.models import Counts, Terms
from discovery.stores.base import Grant
from discovery.stores.redis.shards import SLOTS as OUR_SLOTS
from discovery.stores.redis.shards import shard_number
from tests.redis.conftest import Join
from tests.redis.servers import SLOTS, Server, clustered, copied, eventually
from tests.redis.support import TIMEOUT, Replica, refusal
from tests.support import MESH, OTHER_KEY, key, registration

MESHES = [f"mesh-{number}" for number in range(64)]


@pytest.fixture
async def nodes() -> AsyncIterator[list[Server]]:
    async with clustered("--cluster-require-full-coverage", "no") as started:
        yield started


PATIENT = 5.0
"""How long stores wait here, in seconds, where that is not what is tested: a cluster is many processes."""


def url_of(nodes: Sequence[Server]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def owner(mesh_id: str) -> int:
    """Return which of the three primaries has a mesh."""
    return OUR_SLOTS[shard_number(mesh_id.encode())] * 3 // SLOTS


async def test_every_node_has_its_share_and_every_call_works(
    nodes: list[Server], join: Join
) -> None:
    replicas = [join(url_of(nodes[:1])), join(url_of(nodes))]
    for replica in replicas:
        await replica.follows(len(OUR_SLOTS))

    grants = await asyncio.gather(
        *(replicas[n % 2].register(registration(mesh_id=m)) for n, m in enumerate(MESHES))
    )

    assert {owner(mesh_id) for mesh_id in MESHES} == {0, 1, 2}
    for replica in replicas:
        assert [await replica.lookup(mesh_id) for mesh_id in MESHES] == [g.lease for g in grants]
        assert await replica.count() == len(MESHES)
        await eventually(partial(replica.has_heard, len(MESHES)))
    with pytest.raises(MeshIdTakenError):
        await replicas[0].register(registration(mesh_id=MESHES[1], pubkey=OTHER_KEY))
    assert await replicas[0].deregister(MESHES[1]) is True
    assert (await replicas[1].current(MESHES[1])).lease is None
    assert await replicas[1].count() == len(MESHES) - 1


async def test_agents_are_with_their_meshes_on_every_node(nodes: list[Server], join: Join) -> None:
    replicas = [join(url_of(nodes)) for _ in range(2)]
    agents = [registration(mesh_id=m, agent_id=a) for m in MESHES for a in ("a", "b", "c")]
    grants = await asyncio.gather(
        *(replicas[n % 2].register(agent) for n, agent in enumerate(agents))
    )

    assert await replicas[0].counts() == Counts(0, len(agents))
    for number, mesh_id in enumerate(MESHES):
        leases = tuple(grant.lease for grant in grants[3 * number : 3 * number + 3])
        assert (await replicas[0].agents(mesh_id)).leases == leases
        assert await replicas[1].lookup(mesh_id, "b") == leases[1]
        assert await replicas[1].deregister(mesh_id, agent_id="b") is True
    await asyncio.gather(*(replicas[0].register(agent, ttl=1) for agent in agents[1::3]))
    await eventually(partial(replicas[0].lacks, MESHES[-1], "b"))
    while await replicas[0].sweep(limit=10) or await replicas[1].sweep(limit=10):
        pass

    assert sum(replica.store.expired for replica in replicas) == len(MESHES)
    assert await replicas[1].counts() == Counts(0, 2 * len(MESHES))


async def test_all_leases_and_those_of_one_owner_are_found_on_every_node(
    nodes: list[Server], join: Join
) -> None:
    replicas = [join(url_of(nodes)) for _ in range(2)]
    terms = Terms(
        owner="an-owner", most_of_owner=len(MESHES), most_in_all=2 * len(MESHES), reserve=9
    )
    for number, mesh_id in enumerate(MESHES):
        await replicas[number % 2].register(registration(mesh_id=mesh_id), terms=terms)

    with pytest.raises(QuotaError):
        await replicas[0].register(registration(mesh_id="one-too-many"), terms=terms)
    assert (await replicas[1].register(registration(mesh_id=MESHES[5]), terms=terms)).renewed
    listed, after = list[str](), "0.0"
    while after:
        page = await replicas[0].leases(prefix="mesh-", after=after, limit=10)
        listed += [lease.registration.mesh_id for lease in page.leases]
        after = page.after
    assert set(listed) == set(MESHES)
    for mesh_id in MESHES:
        assert await replicas[0].reservation(mesh_id) is not None
        assert await replicas[1].evict(mesh_id) is True
    assert await replicas[0].count() == 0
    await replicas[0].register(registration(mesh_id="one-too-many"), terms=terms)


async def test_an_expiry_is_swept_on_every_node_and_heard_once(
    nodes: list[Server], join: Join
) -> None:
    replicas = [join(url_of(nodes)) for _ in range(2)]
    for replica in replicas:
        await replica.follows(len(OUR_SLOTS))
    await asyncio.gather(
        *(replicas[0].register(registration(mesh_id=mesh_id), ttl=1) for mesh_id in MESHES)
    )

    await eventually(partial(_counts, replicas[1], 0))
    while await replicas[0].sweep(limit=10) or await replicas[1].sweep(limit=10):
        pass

    for replica in replicas:
        await eventually(partial(replica.has_heard, 2 * len(MESHES)))
        assert sum(event.lease is None for event in replica.events) == len(MESHES)


async def _counts(replica: Replica, number: int) -> bool:
    return await replica.count() == number


async def test_of_many_keys_at_two_replicas_exactly_one_gets_the_mesh(
    nodes: list[Server], join: Join
) -> None:
    replicas = [join(url_of(nodes)) for _ in range(2)]

    answers = await asyncio.gather(
        *(replicas[n % 2].register(registration(pubkey=key(n))) for n in range(1, 501)),
        return_exceptions=True,
    )

    assert len([answer for answer in answers if isinstance(answer, Grant)]) == 1
    assert len([answer for answer in answers if isinstance(answer, MeshIdTakenError)]) == 499


async def test_a_node_that_hangs_costs_the_meshes_of_others_nothing(
    nodes: list[Server], join: Join
) -> None:
    replica = join(url_of(nodes), timeout=1)
    await asyncio.gather(*(replica.register(registration(mesh_id=m)) for m in MESHES))
    nodes[0].pause()

    # For as long as the cluster takes to give the node up, and then some.
    for _ in range(3):
        for mesh_id, answer in (await _lookups(replica)).items():
            assert answer is not None
            assert isinstance(answer, StoreUnavailableError) is (owner(mesh_id) == 0)
        assert isinstance(await refusal(replica.count(), 1), StoreUnavailableError)

    nodes[0].resume()
    await eventually(partial(_finds, replica))
    assert await replica.count() == len(MESHES)


async def _lookups(replica: Replica) -> dict[str, object]:
    answers = await asyncio.gather(*(refusal(replica.lookup(m), PATIENT) for m in MESHES))
    return dict(zip(MESHES, answers, strict=True))


async def _finds(replica: Replica) -> bool:
    answers = (await _lookups(replica)).values()
    assert None not in answers
    return not any(isinstance(answer, StoreUnavailableError) for answer in answers)


async def test_when_a_primary_dies_its_replica_takes_over(join: Join) -> None:
    async with clustered(replicas=True) as nodes:
        replicas = [join(url_of(nodes), timeout=2) for _ in range(2)]
        await replicas[0].follows(len(OUR_SLOTS))
        await asyncio.gather(*(replicas[0].register(registration(mesh_id=m)) for m in MESHES))
        for primary, copy in zip(nodes[:3], nodes[3:], strict=True):
            await copied(primary, copy)

        nodes[0].kill()

        await eventually(partial(_finds, replicas[1]))
        await eventually(partial(_finds, replicas[0]))
        gaps = replicas[0].gaps
        lease = (await replicas[1].register(registration(mesh_id=MESHES[0], public_port=1))).lease
        await replicas[0].learns_of(lease.revision, gaps)
        for mesh_id in MESHES:
            assert (await replicas[0].register(registration(mesh_id=mesh_id))).renewed


async def test_a_slot_that_moved_is_followed(nodes: list[Server], join: Join) -> None:
    replica = join(url_of(nodes))
    await replica.follows(len(OUR_SLOTS))
    await replica.lookup()
    slot, target = _slot_to_move(nodes)
    name = await target.ask("CLUSTER", "MYID")
    for node in (target, *nodes):
        await node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)

    grant = await replica.register()

    assert await replica.lookup() == grant.lease
    await replica.hears(lambda event: event.lease == grant.lease)


async def test_while_a_slot_moves_leases_are_found_where_they_are(
    nodes: list[Server], join: Join
) -> None:
    replica = join(url_of(nodes))
    grant = await replica.register()
    source, (slot, target) = nodes[owner(MESH)], _slot_to_move(nodes)
    there, here = await target.ask("CLUSTER", "MYID"), await source.ask("CLUSTER", "MYID")
    await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
    await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
    keys = await source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10)
    [lease] = [key for key in keys if b":lease:" in key]

    await source.ask("MIGRATE", "127.0.0.1", target.port, lease, 0, 5000)

    assert await replica.lookup() == grant.lease
    # What needs several keys has to wait until they are all in one place.
    answer = await refusal(replica.register())
    assert isinstance(answer, StoreUnavailableError)
    assert "moving" in answer.message
    keys.remove(lease)
    await source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source):
        await node.ask("CLUSTER", "SETSLOT", slot, "NODE", there)
    assert (await replica.register()).renewed
    assert await replica.lookup() is not None


def _slot_to_move(nodes: list[Server]) -> tuple[int, Server]:
    """Return the slot of the mesh, and a node that does not have it."""
    return OUR_SLOTS[shard_number(MESH.encode())], nodes[(owner(MESH) + 1) % 3]


async def test_a_cluster_that_is_taken_for_one_server_is_unavailable_and_says_why(
    nodes: list[Server], join: Join
) -> None:
    answer = await refusal(join(nodes[(owner(MESH) + 1) % 3].url).lookup(), PATIENT)

    assert isinstance(answer, StoreUnavailableError)
    assert "redis+cluster" in answer.message


async def test_a_cluster_of_which_no_node_answers_is_unavailable(join: Join) -> None:
    replica = join("redis+cluster://127.0.0.1:1,127.0.0.1:2", timeout=TIMEOUT)

    assert isinstance(await refusal(replica.lookup()), StoreUnavailableError)
