"""What is in the server, and what if it is not what we put there."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import islice

import pytest

from discovery.errors import StoreUnavailableError
from discovery.models import Counts, Reservation, Terms, WatchEvent
from discovery.stores.redis.shards import make_shards, shard_number
from tests.redis.conftest import Join
from tests.redis.servers import Server, eventually, version
from tests.redis.support import TTL, Replica, refusal, refusals
from tests.support import KEY, MESH, registration

SHARDS = make_shards("test")
SHARD = SHARDS[shard_number(MESH.encode())]
LEASE = SHARD.lease(MESH.encode())


async def test_a_lease_is_a_key_that_the_server_ends_at_the_moment_that_was_acknowledged(
    server: Server, join: Join
) -> None:
    lease = (await join(server.url).register(ttl=1)).lease
    look = "return {redis.call('TIME'), redis.call('EXISTS', KEYS[1])}"
    dead_at = None

    while dead_at is None:
        # To the server, a script is one moment; it tells it to the millisecond.
        (seconds, micros), alive = await server.ask("EVAL", look, 1, LEASE)
        now_us = int(seconds) * 1_000_000 + int(micros)
        if alive:
            assert now_us < lease.expires_at_us + 1000
        else:
            dead_at = now_us

    assert dead_at >= lease.expires_at_us


@pytest.mark.skipif(version() < (7, 0), reason="it cannot be asked when a key ends")
@pytest.mark.parametrize("agent_id", ["", "agent-1"], ids=["colony", "agent"])
async def test_a_renewal_moves_the_keys_own_end(server: Server, join: Join, agent_id: str) -> None:
    replica = join(server.url)

    for ttl in (10, TTL, 20):
        lease = (await replica.register(registration(agent_id=agent_id), ttl=ttl)).lease
        key = SHARD.lease(MESH.encode(), agent_id.encode())
        assert await server.ask("PEXPIRETIME", key) * 1000 == lease.expires_at_us


def _is_beside(mesh_id: str) -> bool:
    return SHARDS[shard_number(mesh_id.encode())] == SHARD


async def _is_free(replica: Replica, mesh_id: str, agent_id: str) -> bool:
    return await replica.reservation(mesh_id, agent_id) is None


@pytest.mark.skipif(version() < (7, 0), reason="it cannot be asked when a key ends")
@pytest.mark.parametrize("agent_id", ["", "agent-1"], ids=["colony", "agent"])
async def test_a_reservation_is_a_key_that_ends_a_while_after_the_lease(
    server: Server, join: Join, agent_id: str
) -> None:
    replica, key = join(server.url), SHARD.reserved(MESH.encode(), agent_id.encode())
    for ttl in (10, TTL, 20):
        granted = await replica.register(registration(agent_id=agent_id), ttl, Terms(reserve=5))
        until_us = granted.lease.expires_at_us + 5_000_000

        assert await server.ask("PEXPIRETIME", key) * 1000 == until_us
        assert await replica.reservation(agent_id=agent_id) == Reservation(KEY, until_us)


@pytest.mark.skipif(version() < (7, 0), reason="it cannot be asked when a key ends")
async def test_what_is_known_of_an_owner_lives_as_long_as_the_last_lease(
    server: Server, join: Join
) -> None:
    """Sweeps do not know whose a lease was that has ended."""
    replica, owned = join(server.url), SHARD.owned(b"an-owner")
    same_shard = (name for name in map("mesh-{}".format, range(100)) if _is_beside(name))
    one, other = islice(same_shard, 2)
    terms = Terms(owner="an-owner")
    longest = (await replica.register(registration(mesh_id=one), TTL, terms)).lease.expires_at_us
    assert await server.ask("PEXPIRETIME", owned) * 1000 == longest
    await replica.register(registration(mesh_id=other), 1, terms)
    assert await server.ask("PEXPIRETIME", owned) * 1000 == longest

    await eventually(partial(replica.lacks, other))
    await replica.register(registration(mesh_id=one), TTL, Terms(owner="an-owner"))
    assert await server.ask("ZRANGE", owned, 0, -1) == [one.encode()]
    await replica.register(registration(mesh_id=one), TTL)
    assert await server.ask("EXISTS", owned) == 0


async def test_an_earlier_versions_lease_is_renewed_as_one_of_nobody_from_the_beginning_of_time(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    await replica.register()
    head, _, body = (await server.ask("GET", LEASE)).partition(b"\n")
    await server.ask("SET", LEASE, b" ".join(head.split(b" ")[:5]) + b"\n" + body, "PX", 100_000)

    found = await replica.lookup()
    assert found is not None
    assert (found.granted_at_us, found.owner) == (0, "")
    renewed = await replica.register(terms=Terms(owner="an-owner"))
    assert renewed.renewed
    assert renewed.lease.revision == found.revision
    assert (renewed.lease.granted_at_us, renewed.lease.owner) == (0, "an-owner")


@pytest.mark.parametrize("value", ["rubbish", "2 1 key", ""])
async def test_a_reservation_that_is_none_is_an_error_and_no_absence(
    server: Server, join: Join, value: str
) -> None:
    replica = join(server.url)
    await server.ask("SET", SHARD.reserved(MESH.encode()), value)

    answers = await refusals(
        {
            "register": replica.register(),
            "evict": replica.evict(),
            "reservation": replica.reservation(),
        }
    )

    assert [name for name, a in answers.items() if not isinstance(a, StoreUnavailableError)] == []
    assert await replica.works()


async def test_a_listed_lease_that_is_none_is_an_error_and_no_absence(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    await replica.register()
    await server.ask("SET", LEASE, "rubbish")

    assert isinstance(await refusal(replica.leases()), StoreUnavailableError)


# -- What is set once -----------------------------------------------------------------------------


async def test_of_many_only_the_first_sets_what_is_set_once(server: Server, join: Join) -> None:
    replicas = [join(server.url) for _ in range(2)]
    values = [f"value {number} ☂" for number in range(100)]

    answers = await asyncio.gather(
        *(replicas[n % 2].once("name", value) for n, value in enumerate(values))
    )

    [winner] = [value for value, had in zip(values, answers, strict=True) if had is None]
    assert set(answers) == {None, winner}
    assert await replicas[0].once("another name", "value") is None


async def test_what_is_set_once_for_a_while_can_be_set_anew_after_that(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    seconds, _ = await server.ask("TIME")
    soon_ms = int(seconds) * 1000 + 2000
    assert await replica.once("name", "one", soon_ms) is None
    assert await replica.once("name", "two") == "one"

    async def is_free() -> bool:
        return await replica.once("name", "three") is None

    await eventually(is_free)


async def test_nothing_but_what_is_bounded_outlives_the_leases(server: Server, join: Join) -> None:
    replica = join(server.url)
    for number in range(50):
        terms = Terms(owner=f"owner-{number % 3}", reserve=number % 2)
        await replica.register(registration(mesh_id=f"mesh-{number}"), 1, terms)
        agent = registration(mesh_id=f"mesh-{number % 7}", agent_id=f"{number}")
        await replica.register(agent, 1, terms)
    await eventually(partial(_is_free, replica, "mesh-0", "49"))
    while await replica.sweep(limit=10):
        pass

    keys = await server.ask("KEYS", "*")
    assert {key.rpartition(b"}:")[2] for key in keys} == {
        b"absences",
        b"agents:absences",
        b"events",
    }


@pytest.mark.parametrize(
    "spoil",
    [
        ("SET", LEASE, "rubbish"),
        ("SET", LEASE, "1 2 3 4 5 no line follows"),
        ("SET", LEASE, ""),
        ("RPUSH", LEASE, "a list"),
    ],
    ids=str,
)
async def test_a_lease_that_is_none_is_an_error_and_no_absence(
    server: Server, join: Join, spoil: tuple[str, bytes, str]
) -> None:
    replica = join(server.url)
    await server.ask(*spoil)

    answers = await refusals(
        {
            "register": replica.register(),
            "lookup": replica.lookup(),
            "deregister": replica.deregister(),
            "current": replica.current(),
        }
    )

    assert [name for name, a in answers.items() if not isinstance(a, StoreUnavailableError)] == []
    assert await replica.works()


@pytest.mark.parametrize("value", ["rubbish", "1 2 3 4 5 no line follows", ""])
async def test_an_agents_lease_that_is_none_is_an_error_and_no_absence(
    server: Server, join: Join, value: str
) -> None:
    replica, agent = join(server.url), registration(agent_id="a")
    await replica.register(agent)
    await replica.register(registration(agent_id="b"))
    await server.ask("SET", SHARD.lease(MESH.encode(), b"a"), value)

    answers = await refusals(
        {
            "register": replica.register(agent),
            "lookup": replica.lookup(agent_id="a"),
            "deregister": replica.deregister(agent_id="a"),
            "agents": replica.agents(),
        }
    )

    assert [name for name, a in answers.items() if not isinstance(a, StoreUnavailableError)] == []
    assert await replica.lookup(agent_id="b") is not None
    assert await replica.works()


@pytest.mark.parametrize("key", SHARD.keys(MESH.encode(), b"a"), ids=str)
async def test_an_agents_key_that_somebody_else_uses_is_an_error(
    server: Server, join: Join, key: bytes
) -> None:
    replica = join(server.url)
    await server.ask("SADD", key, "somebody else's")

    answer = await refusal(replica.register(registration(agent_id="a")))

    assert isinstance(answer, StoreUnavailableError)
    assert "something else" in answer.message
    assert (await replica.register(registration(mesh_id="mesh-2"))).renewed is False


@pytest.mark.parametrize("key", [SHARD.ends, SHARD.absences, SHARD.events], ids=str)
async def test_a_key_of_ours_that_somebody_else_uses_is_an_error(
    server: Server, join: Join, key: bytes
) -> None:
    replica = join(server.url)
    await server.ask("SET", key, "somebody else's")

    answer = await refusal(replica.register())

    assert isinstance(answer, StoreUnavailableError)
    assert "something else" in answer.message


async def test_a_lease_that_somebody_deleted_is_free_and_its_end_is_reported(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    await replica.follows()
    before = (await replica.register()).lease.revision
    await server.ask("DEL", LEASE)

    assert await replica.lookup() is None
    grant = await replica.register()

    assert not grant.renewed
    assert grant.lease.revision > before
    await replica.hears(lambda event: event.lease is None)
    assert await replica.count() == 1


async def test_an_agents_lease_that_somebody_deleted_is_free_and_its_end_is_reported(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    await replica.follows()
    before = (await replica.register(registration(agent_id="a"))).lease.revision
    await server.ask("DEL", SHARD.lease(MESH.encode(), b"a"))

    page = await replica.agents()

    assert page.leases == ()
    assert page.revision > before
    await replica.hears(lambda event: event == WatchEvent(MESH, page.revision, None, "a"))
    assert not (await replica.register(registration(agent_id="a"))).renewed
    assert await replica.counts() == Counts(0, 1)


async def test_stores_with_different_prefixes_know_nothing_of_each_other(
    server: Server, join: Join
) -> None:
    one, other = join(server.url, prefix="one"), join(server.url, prefix="other")
    await one.register()

    assert await other.lookup() is None
    assert await other.count() == 0
    keys = await server.ask("KEYS", "*")
    assert {key.partition(b":")[0] for key in keys} == {b"one"}


async def test_what_meshes_that_never_were_leave_behind_is_bounded(
    server: Server, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.stores.redis.store._MOST_REMEMBERED", 5)
    replica = join(server.url)
    grants = [await replica.register(registration(mesh_id=f"live-{n}")) for n in range(100)]
    await asyncio.gather(*(replica.current(f"never-{number}") for number in range(1000)))
    await asyncio.gather(*(replica.agents(f"never-{number}") for number in range(1000)))

    while await replica.sweep(limit=10):
        pass

    remembered = 0
    for shard in make_shards("test"):
        remembered += await server.ask("ZCARD", shard.absences)
        assert await server.ask("ZCARD", shard.agents.absences) <= 5
        for grant in grants:
            name = grant.lease.registration.mesh_id.encode()
            if make_shards("test")[shard_number(name)] == shard:
                assert await server.ask("ZSCORE", shard.absences, name) is not None
    assert remembered <= 100 + 16 * 5


async def test_an_absence_is_forgotten_in_time(
    server: Server, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = join(server.url)
    await replica.register()
    await replica.deregister()
    await replica.register(registration(agent_id="a"))
    await replica.deregister(agent_id="a")
    monkeypatch.setattr("discovery.stores.redis.store._REMEMBERED_US", 1000)
    await asyncio.sleep(0.01)

    await replica.sweep()

    assert await server.ask("EXISTS", SHARD.absences, SHARD.agents.absences) == 0


async def test_the_revision_of_agents_is_not_forgotten_while_one_is_there(
    server: Server, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.stores.redis.store._REMEMBERED_US", 0)
    monkeypatch.setattr("discovery.stores.redis.store._MOST_REMEMBERED", 0)
    replica = join(server.url)
    await replica.register(registration(agent_id="stays"))
    await replica.register(registration(agent_id="goes"))
    await replica.deregister(agent_id="goes")
    page = await replica.agents()
    await asyncio.sleep(0.01)

    await replica.sweep()

    assert await replica.agents() == page
