"""The contract on time: a lease ends exactly when it was said to, whatever else happens (promise 1 of the design)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from discovery.errors import MeshIdTakenError, NotOwnerError
from tests.redis.rigs import REDIS_RIGS
from tests.stores.rigs import RIGS, TTL, OpenRig, Rig
from tests.support import MESH, OTHER_KEY, registration

DAY = 86_400.0

Disturb = Callable[[Rig], Awaitable[object]]


EVERY_RIG = {**RIGS, **REDIS_RIGS}


@pytest.fixture(params=EVERY_RIG)
def open_rig(request: pytest.FixtureRequest) -> OpenRig:
    """Each store in turn; and on fakeredis, which by itself ends what the time has come for that tests wind."""
    return EVERY_RIG[request.param]


@pytest.fixture(params=["", "agent-1"], ids=["colony", "agent"])
def agent_id(request: pytest.FixtureRequest) -> str:
    """All of this holds for a colony and for an agent."""
    name: str = request.param
    return name


async def _nothing(store: Rig) -> None:
    pass


async def _sweep(store: Rig) -> None:
    await store.sweep_all()


@pytest.fixture(params=[_nothing, _sweep], ids=["unswept", "swept"])
def disturb(request: pytest.FixtureRequest) -> Disturb:
    """What may run at any moment, and must not change an answer."""
    disturbance: Disturb = request.param
    return disturbance


async def _until_just_before_the_end(store: Rig, disturb: Disturb) -> None:
    await store.register(registration())
    await store.advance(TTL - store.tick)
    await disturb(store)


async def _until_the_end(store: Rig, disturb: Disturb) -> None:
    await _until_just_before_the_end(store, disturb)
    await store.advance(store.tick)
    await disturb(store)


async def test_just_before_its_end_a_lease_is_found(store: Rig, disturb: Disturb) -> None:
    await _until_just_before_the_end(store, disturb)

    assert await store.lookup() is not None


async def test_just_before_its_end_a_lease_counts(store: Rig, disturb: Disturb) -> None:
    await _until_just_before_the_end(store, disturb)

    assert await store.count() == 1


async def test_just_before_its_end_a_lease_keeps_others_out(store: Rig, disturb: Disturb) -> None:
    await _until_just_before_the_end(store, disturb)

    with pytest.raises(MeshIdTakenError):
        await store.register(registration(pubkey=OTHER_KEY))
    with pytest.raises(NotOwnerError):
        await store.deregister(pubkey=OTHER_KEY)


async def test_just_before_its_end_a_lease_can_be_renewed(store: Rig, disturb: Disturb) -> None:
    await _until_just_before_the_end(store, disturb)

    assert (await store.register(registration())).renewed


async def test_just_before_its_end_a_lease_can_be_left(store: Rig, disturb: Disturb) -> None:
    await _until_just_before_the_end(store, disturb)

    assert await store.deregister() is True


async def test_at_its_end_a_lease_is_not_found(store: Rig, disturb: Disturb) -> None:
    await _until_the_end(store, disturb)

    assert await store.lookup() is None


async def test_at_its_end_a_lease_does_not_count(store: Rig, disturb: Disturb) -> None:
    await _until_the_end(store, disturb)

    assert await store.count() == 0


@pytest.mark.parametrize("pubkey", [registration().pubkey, OTHER_KEY], ids=["same", "other"])
async def test_at_its_end_a_lease_is_free_for_any_key(
    store: Rig, disturb: Disturb, pubkey: str
) -> None:
    await _until_the_end(store, disturb)

    grant = await store.register(registration(pubkey=pubkey))

    assert not grant.renewed
    assert grant.lease.expires_at_us == store.now().unix_us + TTL * 1_000_000
    assert await store.lookup() == grant.lease
    assert await store.count() == 1


@pytest.mark.parametrize("pubkey", [registration().pubkey, OTHER_KEY], ids=["same", "other"])
async def test_at_its_end_there_is_nothing_to_leave(
    store: Rig, disturb: Disturb, pubkey: str
) -> None:
    await _until_the_end(store, disturb)

    assert await store.deregister(pubkey=pubkey) is False


async def test_leases_end_one_by_one(store: Rig, disturb: Disturb) -> None:
    for ttl in (30, 10, 20):
        await store.register(registration(mesh_id=f"mesh-{ttl}"), ttl=ttl)

    counts = []
    for _ in range(3):
        await store.advance(10)
        await disturb(store)
        counts.append(await store.count())

    assert counts == [2, 1, 0]


async def test_a_renewed_lease_outlives_its_first_end(store: Rig, disturb: Disturb) -> None:
    await store.register(registration())
    await store.advance(TTL - 1)
    await store.register(registration())

    await store.advance(TTL - store.tick)
    await disturb(store)
    assert await store.lookup() is not None
    await store.advance(store.tick)
    await disturb(store)
    assert await store.lookup() is None


async def test_a_lease_that_is_renewed_in_time_never_ends(store: Rig, disturb: Disturb) -> None:
    await store.register(registration())
    for _ in range(20):
        await store.advance(TTL - store.tick)
        await disturb(store)
        assert (await store.register(registration())).renewed


async def test_a_shorter_renewal_does_not_shorten_the_lease(store: Rig, disturb: Disturb) -> None:
    grant = await store.register(registration(), ttl=TTL)
    renewal = await store.register(registration(), ttl=10)

    assert renewal.lease.expires_at_us == grant.lease.expires_at_us
    await store.advance(TTL - store.tick)
    await disturb(store)
    assert await store.lookup() == renewal.lease
    await store.advance(store.tick)
    assert await store.lookup() is None


async def test_a_shorter_change_does_not_shorten_the_lease(store: Rig, disturb: Disturb) -> None:
    await store.register(registration(), ttl=TTL)
    change = await store.register(registration(public_port=8443), ttl=10)

    await store.advance(TTL - store.tick)
    await disturb(store)

    assert await store.lookup() == change.lease


async def test_a_shorter_renewal_extends_a_lease_that_is_nearly_over(
    store: Rig, disturb: Disturb
) -> None:
    await store.register(registration(), ttl=TTL)
    await store.advance(TTL - 5)
    renewal = await store.register(registration(), ttl=10)

    assert renewal.lease.expires_at_us == store.now().unix_us + 10 * 1_000_000
    await store.advance(10 - store.tick)
    await disturb(store)
    assert await store.lookup() is not None
    await store.advance(store.tick)
    assert await store.lookup() is None


async def test_a_shorter_lease_after_a_longer_one_ends_at_its_own_time(
    store: Rig, disturb: Disturb
) -> None:
    await store.register(registration(), ttl=TTL)
    await store.deregister()
    await store.register(registration(), ttl=10)

    await store.advance(10)
    await disturb(store)

    assert await store.lookup() is None
    assert await store.count() == 0


async def test_a_longer_lease_after_a_shorter_one_outlives_that_ones_end(
    store: Rig, disturb: Disturb
) -> None:
    await store.register(registration(), ttl=10)
    await store.deregister()
    await store.register(registration(), ttl=TTL)

    await store.advance(10)
    await disturb(store)

    assert await store.lookup() is not None
    assert await store.count() == 1


@pytest.mark.parametrize("step", [-DAY, -1.0, 1.0, DAY])
async def test_the_wall_clock_neither_ends_nor_prolongs_a_lease(
    store: Rig, disturb: Disturb, step: float
) -> None:
    await store.register(registration())
    store.step_wall(step)

    await store.advance(TTL - store.tick)
    await disturb(store)
    assert await store.lookup() is not None
    assert await store.count() == 1
    await store.advance(store.tick)
    await disturb(store)
    assert await store.lookup() is None
    assert await store.count() == 0


@pytest.mark.parametrize("step", [-DAY, -1.0, 1.0, DAY])
async def test_a_renewal_after_a_step_of_the_wall_clock_lasts_for_its_ttl(
    store: Rig, disturb: Disturb, step: float
) -> None:
    await store.register(registration())
    await store.advance(100)
    store.step_wall(step)
    renewal = await store.register(registration())

    assert renewal.lease.expires_at_us == store.now().unix_us + TTL * 1_000_000
    await store.advance(TTL - store.tick)
    await disturb(store)
    assert await store.lookup() == renewal.lease
    await store.advance(store.tick)
    await disturb(store)
    assert await store.lookup() is None


async def test_a_sweep_with_nothing_due_says_so(store: Rig) -> None:
    assert await store.sweep() is False
    await store.register(registration())
    await store.advance(TTL - store.tick)
    assert await store.sweep() is False


@pytest.mark.parametrize("ended, answers", [(1, [False]), (2, [False]), (5, [True, True, False])])
async def test_a_sweep_stays_within_its_limit_and_says_whether_more_are_due(
    store: Rig, ended: int, answers: list[bool]
) -> None:
    for number in range(ended):
        await store.register(registration(mesh_id=f"mesh-{number}"))
    await store.advance(TTL)
    registered = len(await store.seen())

    freed_before = 0
    for answer in answers:
        assert await store.sweep(limit=2) is answer
        freed = len(await store.seen()) - registered
        assert freed - freed_before <= 2
        freed_before = freed

    assert freed_before == ended
    assert await store.sweep(limit=2) is False


async def test_sweeping_renewed_leases_comes_to_an_end_and_frees_none(store: Rig) -> None:
    for number in range(5):
        await store.register(registration(mesh_id=f"mesh-{number}"))
    await store.advance(TTL - 1)
    for number in range(5):
        await store.register(registration(mesh_id=f"mesh-{number}"))
    await store.advance(1)

    await store.sweep_all()

    assert await store.count() == 5


async def test_a_count_is_exact_however_many_leases_ended_unswept(store: Rig) -> None:
    for number in range(store.many):
        await store.register(registration(mesh_id=f"ended-{number}"), ttl=10)
    for number in range(3):
        await store.register(registration(mesh_id=f"live-{number}"))
    await store.advance(10)

    assert await store.count() == 3


async def test_a_lease_on_another_mesh_is_no_obstacle(store: Rig) -> None:
    await store.register(registration())
    await store.advance(TTL - 1)
    await store.register(registration(mesh_id="mesh-2"))
    await store.advance(1)

    assert await store.lookup(MESH) is None
    assert await store.lookup("mesh-2") is not None
