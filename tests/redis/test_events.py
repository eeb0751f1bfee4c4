"""What a replica learns of changes that others make (promise 3 of the design)."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from itertools import pairwise

import pytest

from discovery.errors import StoreUnavailableError
from discovery.models import Counts, Presence, WatchEvent
from discovery.stores import open_store
from discovery.stores.redis import RedisStore
from discovery.stores.redis.shards import make_shards, shard_number
from tests.redis.conftest import Join
from tests.redis.rigs import settle
from tests.redis.servers import Server, eventually
from tests.redis.support import Replica
from tests.support import MESH, registration

SHARD = make_shards("test")[shard_number(MESH.encode())]


def stream_of(mesh_id: str) -> bytes:
    return make_shards("test")[shard_number(mesh_id.encode())].events


async def seen(replica: Replica) -> list[WatchEvent]:
    """Return what the replica was told, once it was told all there is."""
    assert isinstance(replica.store, RedisStore)
    await settle(replica.store)
    return replica.events


async def test_a_change_made_by_one_replica_reaches_all(server: Server, join: Join) -> None:
    replicas = [join(server.url) for _ in range(3)]
    for replica in replicas:
        await replica.follows()

    granted = (await replicas[0].register()).lease
    changed = (await replicas[1].register(registration(public_port=1))).lease
    await replicas[2].deregister()

    for replica in replicas:
        heard = await seen(replica)
        assert heard[:2] == [
            WatchEvent(MESH, lease.revision, lease) for lease in (granted, changed)
        ]
        assert heard[2].presence is Presence.ABSENT
        assert len(heard) == 3


async def test_changes_of_a_mesh_made_everywhere_come_everywhere_in_the_same_order(
    server: Server, join: Join
) -> None:
    replicas = [join(server.url) for _ in range(3)]
    for replica in replicas:
        await replica.follows()

    await asyncio.gather(
        *(
            replicas[n % 3].register(registration(mesh_id=f"mesh-{n % 7}", public_port=n))
            for n in range(1, 400)
        )
    )

    heard = [await seen(replica) for replica in replicas]
    assert len(heard[0]) == 399
    for number in range(7):
        of_mesh = [[e for e in events if e.mesh_id == f"mesh-{number}"] for events in heard]
        assert of_mesh[0] == of_mesh[1] == of_mesh[2]
        assert all(before.revision < after.revision for before, after in pairwise(of_mesh[0]))


async def test_an_expiry_that_one_replica_sweeps_is_heard_by_all_once(
    server: Server, join: Join
) -> None:
    await server.ask("CONFIG", "SET", "notify-keyspace-events", "")
    replicas = [join(server.url) for _ in range(2)]
    for replica in replicas:
        await replica.follows()
    for number in range(20):
        await replicas[0].register(registration(mesh_id=f"mesh-{number}"), ttl=1)
    kept = await replicas[0].register(registration(mesh_id="kept"), ttl=300)

    await eventually(partial(replicas[0].lacks, "mesh-19"))
    await asyncio.gather(*(replica.sweep() for replica in replicas * 5))

    for replica in replicas:
        ended = [event.mesh_id for event in await seen(replica) if event.lease is None]
        assert sorted(ended) == sorted(f"mesh-{number}" for number in range(20))
    assert await replicas[1].lookup("kept") == kept.lease
    assert await replicas[1].count() == 1


async def test_leases_that_are_renewed_while_replicas_sweep_are_not_lost(
    server: Server, join: Join
) -> None:
    """Each is renewed when it is about to end; whoever sweeps first at that moment must see whether it was."""
    replicas = [join(server.url) for _ in range(2)]
    stop = asyncio.Event()
    lost = 0

    async def keep_sweeping(replica: Replica) -> None:
        while not stop.is_set():
            await replica.sweep(limit=5)

    async def stay(number: int) -> None:
        nonlocal lost
        mine = registration(mesh_id=f"mesh-{number}")
        for ttl in (3, 3, 60):  # the last one outlives what is looked at below
            grant = await replicas[number % 2].register(mine, ttl=ttl)
            await asyncio.sleep(1)
            lost += await replicas[(number + 1) % 2].lookup(mine.mesh_id) != grant.lease

    sweepers = [asyncio.create_task(keep_sweeping(replica)) for replica in replicas]
    await asyncio.gather(*map(stay, range(20)))
    stop.set()
    await asyncio.gather(*sweepers)

    assert lost == 0
    for replica in replicas:
        assert not [event for event in await seen(replica) if event.lease is None]


async def test_changes_of_agents_made_everywhere_come_everywhere_in_the_same_order(
    server: Server, join: Join
) -> None:
    replicas = [join(server.url) for _ in range(3)]
    for replica in replicas:
        await replica.follows()

    await asyncio.gather(
        *(
            replicas[n % 3].register(registration(agent_id=f"agent-{n % 7}", public_port=n))
            for n in range(1, 400)
        )
    )
    await asyncio.gather(*(replicas[n % 3].deregister(agent_id=f"agent-{n}") for n in range(7)))

    heard = [await seen(replica) for replica in replicas]
    assert len(heard[0]) == 399 + 7
    assert heard[0] == heard[1] == heard[2]
    assert all(before.revision < after.revision for before, after in pairwise(heard[0]))
    assert heard[0][-1].revision == (await replicas[0].agents()).revision


async def test_an_agents_expiry_that_replicas_notice_at_once_is_heard_and_counted_once(
    server: Server, join: Join
) -> None:
    replicas = [join(server.url) for _ in range(2)]
    for replica in replicas:
        await replica.follows()
    agents = [registration(mesh_id=f"mesh-{n % 3}", agent_id=f"{n}") for n in range(20)]
    for agent in agents:
        await replicas[0].register(agent, ttl=1)
    kept = await replicas[0].register(registration(mesh_id="mesh-0", agent_id="kept"))

    await eventually(partial(replicas[0].lacks, "mesh-1", "19"))
    await asyncio.gather(
        *(replica.sweep() for replica in replicas),
        *(replica.agents(f"mesh-{n}") for n in range(3) for replica in replicas),
        *(replicas[n % 2].register(agent) for n, agent in enumerate(agents[:4])),
    )

    for replica in replicas:
        ended = [event.agent_id for event in await seen(replica) if event.lease is None]
        assert sorted(ended) == sorted(agent.agent_id for agent in agents)
    assert sum(replica.store.expired for replica in replicas) == 20
    assert await replicas[1].counts() == Counts(0, 5)
    assert await replicas[1].lookup("mesh-0", "kept") == kept.lease


async def test_versions_that_know_of_no_agents_take_none_for_a_colony(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    await replica.register(registration(agent_id="a"))
    await replica.deregister(agent_id="a")

    entries = await server.ask("XRANGE", stream_of(MESH), "-", "+")

    assert len(entries) == 2
    for _, fields in entries:
        assert not {b"lease", b"absent"} & {*fields[::2]}
    assert not {SHARD.ends, SHARD.absences} & {*await server.ask("KEYS", "*")}


@pytest.mark.parametrize("wiped", [False, True], ids=["kept", "lost"])
async def test_after_the_server_was_away_a_replica_says_that_it_may_have_missed_something(
    server: Server, join: Join, wiped: bool
) -> None:
    replicas = [join(server.url) for _ in range(2)]
    for replica in replicas:
        await replica.follows()
    await replicas[0].register()
    await seen(replicas[1])

    server.kill()
    if wiped:
        server.forget()
    await server.start()

    for replica in replicas:
        await replica.follows(2)
    state = await replicas[1].current()
    assert (state.lease is None) is wiped
    # From then on it is told everything again.
    changed = (await replicas[0].register(registration(public_port=1))).lease
    assert changed in [event.lease for event in await seen(replicas[1])]


async def test_what_is_no_event_is_a_gap_and_does_not_stop_the_reading(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    await replica.follows()

    await server.ask("XADD", stream_of(MESH), "*", "mesh", MESH, "lease", "rubbish")
    await server.ask("XADD", stream_of(MESH), "*", "of-a", "later-version")
    grant = await replica.register()

    assert [event.lease for event in await seen(replica)] == [grant.lease]
    assert replica.gaps == 2  # to begin with, and for the rubbish


async def test_a_stream_that_is_none_harms_only_its_shard_and_is_no_hot_loop(
    server: Server, join: Join
) -> None:
    await server.ask("SET", stream_of(MESH), "somebody else's")
    replica = join(server.url)

    with pytest.raises(StoreUnavailableError, match="something else"):
        await replica.register()
    assert await replica.works()
    used = await server.ask("INFO", "commandstats")
    assert int(re.search(rb"cmdstat_xrevrange:calls=(\d+)", used)[1]) < 200  # type: ignore[index]
    await server.ask("DEL", stream_of(MESH))
    await replica.follows()


async def test_a_listener_may_come_before_any_loop_runs(server: Server) -> None:
    def listen() -> Replica:
        return Replica(open_store(server.url, prefix="test"))

    replica = await asyncio.to_thread(listen)
    assert await replica.count() == 0
    await replica.follows()

    grant = await replica.register()

    assert [event.lease for event in await seen(replica)] == [grant.lease]
    await replica.store.close()
