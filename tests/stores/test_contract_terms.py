"""The contract on terms: reservations, moves to another key, quotas and evictions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from discovery.clock import MICROSECONDS
from discovery.errors import MeshIdTakenError, MeshReservedError, NotOwnerError, QuotaError
from discovery.models import Reservation, Terms, WatchEvent
from tests.stores.rigs import TTL, Rig
from tests.support import KEY, MESH, OTHER_KEY, key, registration

RESERVE = 100
THIRD_KEY = key(3)
RESERVED = Terms(reserve=RESERVE)
MOVED = Terms(old_pubkey=KEY)


@pytest.fixture(params=["", "agent-1"], ids=["colony", "agent"])
def agent_id(request: pytest.FixtureRequest) -> str:
    """All of this holds for a colony and for an agent."""
    name: str = request.param
    return name


# -- Reservations ---------------------------------------------------------------------------------


async def test_without_a_reservation_a_name_is_free_at_the_leases_end(store: Rig) -> None:
    await store.register(registration())

    assert await store.reservation() is None
    await store.advance(TTL)
    assert not (await store.register(registration(pubkey=OTHER_KEY))).renewed


async def test_a_reservation_lasts_from_the_grant_until_a_while_after_the_end(store: Rig) -> None:
    lease = (await store.register(registration(), terms=RESERVED)).lease
    expected = Reservation(KEY, lease.expires_at_us + RESERVE * MICROSECONDS)

    assert await store.reservation() == expected
    await store.advance(TTL + RESERVE - store.tick)
    await store.sweep_all()
    assert await store.reservation() == expected
    await store.advance(store.tick)
    assert await store.reservation() is None


@pytest.mark.parametrize("swept", [False, True])
async def test_a_reserved_name_keeps_other_keys_out_until_it_is_over(
    store: Rig, swept: bool
) -> None:
    lease = (await store.register(registration(), terms=RESERVED)).lease
    for passed in (TTL, RESERVE - store.tick):
        await store.advance(passed)
        if swept:
            await store.sweep_all()
        before = await store.seen()
        with pytest.raises(MeshReservedError) as refusal:
            await store.register(registration(pubkey=OTHER_KEY))

        assert refusal.value.mesh_id == MESH
        assert refusal.value.agent_id == store.agent_id
        assert refusal.value.reserved_until_us == lease.expires_at_us + RESERVE * MICROSECONDS
        assert await store.lookup() is None
        assert (await store.seen())[: len(before)] == before

    await store.advance(store.tick)
    assert not (await store.register(registration(pubkey=OTHER_KEY))).renewed


async def test_while_the_lease_is_live_another_key_is_told_of_that(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)

    with pytest.raises(MeshIdTakenError):
        await store.register(registration(pubkey=OTHER_KEY), terms=RESERVED)


async def test_a_reserved_name_is_granted_to_its_key(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)
    await store.advance(TTL + RESERVE / 2)

    assert not (await store.register(registration(), terms=RESERVED)).renewed
    await store.advance(TTL + RESERVE - store.tick)
    with pytest.raises(MeshReservedError):
        await store.register(registration(pubkey=OTHER_KEY))


async def test_a_reservation_outlives_a_deregistration(store: Rig) -> None:
    lease = (await store.register(registration(), terms=RESERVED)).lease
    await store.deregister()

    expected = Reservation(KEY, lease.expires_at_us + RESERVE * MICROSECONDS)
    assert await store.reservation() == expected
    with pytest.raises(MeshReservedError):
        await store.register(registration(pubkey=OTHER_KEY))
    assert await store.deregister(pubkey=OTHER_KEY) is False
    assert not (await store.register(registration())).renewed


async def test_a_renewal_moves_the_reservation_with_the_lease(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)
    await store.advance(TTL - 1)
    lease = (await store.register(registration(), terms=RESERVED)).lease

    expected = Reservation(KEY, lease.expires_at_us + RESERVE * MICROSECONDS)
    assert await store.reservation() == expected
    await store.advance(TTL + RESERVE - store.tick)
    await store.sweep_all()
    assert await store.reservation() == expected


async def test_a_renewal_can_be_the_first_to_reserve(store: Rig) -> None:
    await store.register(registration())
    lease = (await store.register(registration(), terms=RESERVED)).lease

    expected = Reservation(KEY, lease.expires_at_us + RESERVE * MICROSECONDS)
    assert await store.reservation() == expected


async def test_a_shorter_lease_after_a_longer_one_has_a_shorter_reservation(store: Rig) -> None:
    await store.register(registration(), TTL, RESERVED)
    await store.deregister()
    await store.register(registration(), 10, RESERVED)

    await store.advance(10 + RESERVE - store.tick)
    await store.sweep_all()
    assert await store.reservation() is not None
    await store.advance(store.tick)
    await store.sweep_all()
    assert await store.reservation() is None
    await store.register(registration(pubkey=OTHER_KEY))


async def test_a_registration_without_a_reservation_ends_none(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)
    before = await store.reservation()
    await store.register(registration())

    assert await store.reservation() == before


async def test_a_name_is_reserved_and_no_other(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)
    await store.deregister()

    await store.register(registration(mesh_id="mesh-2", pubkey=OTHER_KEY))
    await store.register(registration(agent_id="another", pubkey=OTHER_KEY))
    assert await store.reservation("mesh-2") is None
    assert await store.reservation(agent_id="another") is None


async def test_a_refusal_moves_no_reservation(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)
    before = await store.reservation()
    await store.advance(10)
    with pytest.raises(MeshIdTakenError):
        await store.register(registration(pubkey=OTHER_KEY), terms=RESERVED)
    await store.advance(TTL)
    with pytest.raises(MeshReservedError):
        await store.register(registration(pubkey=OTHER_KEY), terms=RESERVED)

    assert await store.reservation() == before


# -- Another key ----------------------------------------------------------------------------------


async def test_a_live_lease_moves_to_a_key_that_the_old_one_agrees_to(store: Rig) -> None:
    first = await store.register(registration())
    await store.advance(10)
    moved = await store.register(registration(pubkey=OTHER_KEY), terms=MOVED)

    assert moved.renewed
    assert moved.lease.revision > first.lease.revision
    assert moved.lease.granted_at_us == first.lease.granted_at_us
    assert await store.lookup() == moved.lease
    with pytest.raises(MeshIdTakenError):
        await store.register(registration())
    with pytest.raises(NotOwnerError):
        await store.deregister()
    assert [event.lease for event in await store.seen()] == [first.lease, moved.lease]
    assert await store.count() == 1


async def test_a_move_may_be_repeated(store: Rig) -> None:
    await store.register(registration())
    moved = await store.register(registration(pubkey=OTHER_KEY), terms=MOVED)
    again = await store.register(registration(pubkey=OTHER_KEY), terms=MOVED)

    assert again.renewed
    assert again.lease.revision == moved.lease.revision


@pytest.mark.parametrize("old_pubkey", ["", KEY, THIRD_KEY])
async def test_a_key_that_does_not_hold_the_lease_can_agree_to_nothing(
    store: Rig, old_pubkey: str
) -> None:
    await store.register(registration(pubkey=key(4)))

    with pytest.raises(MeshIdTakenError):
        await store.register(registration(pubkey=OTHER_KEY), terms=Terms(old_pubkey=old_pubkey))


@pytest.mark.parametrize("old_pubkey", ["", THIRD_KEY])
async def test_a_key_that_has_reserved_nothing_can_agree_to_nothing(
    store: Rig, old_pubkey: str
) -> None:
    await store.register(registration(), terms=RESERVED)
    await store.deregister()

    with pytest.raises(MeshReservedError):
        await store.register(registration(pubkey=OTHER_KEY), terms=Terms(old_pubkey=old_pubkey))


async def test_a_name_that_is_free_needs_no_old_key(store: Rig) -> None:
    assert not (await store.register(registration(pubkey=OTHER_KEY), terms=MOVED)).renewed


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("reserve", [0, RESERVE])
async def test_a_reservation_passes_to_the_new_key(store: Rig, live: bool, reserve: int) -> None:
    await store.register(registration(), terms=RESERVED)
    before = await store.reservation()
    if not live:
        await store.deregister()
    await store.advance(10)
    terms = Terms(old_pubkey=KEY, reserve=reserve)
    moved = await store.register(registration(pubkey=OTHER_KEY), terms=terms)

    assert before is not None
    until_us = moved.lease.expires_at_us + reserve * MICROSECONDS if reserve else before.until_us
    assert await store.reservation() == Reservation(OTHER_KEY, until_us)
    assert await store.deregister(pubkey=OTHER_KEY)
    with pytest.raises(MeshReservedError):
        await store.register(registration())
    assert not (await store.register(registration(pubkey=OTHER_KEY))).renewed


# -- Who was granted it, and when -----------------------------------------------------------------


async def test_a_lease_knows_when_it_was_first_granted_and_to_whom(store: Rig) -> None:
    granted = (await store.register(registration(), terms=Terms(owner="one"))).lease
    granted_at_us = store.now().unix_us
    await store.advance(10)
    renewed = (await store.register(registration(), terms=Terms(owner="team/two -"))).lease

    assert (granted.granted_at_us, granted.owner) == (granted_at_us, "one")
    for lease in (renewed, await store.lookup(), (await store.leases()).leases[0]):
        assert lease is not None
        assert (lease.granted_at_us, lease.owner) == (granted_at_us, "team/two -")


async def test_another_owner_is_no_change_that_anybody_is_told_of(store: Rig) -> None:
    first = await store.register(registration(), terms=Terms(owner="one"))
    second = await store.register(registration())

    assert second.lease.revision == first.lease.revision
    assert second.lease.owner == ""
    assert len(await store.seen()) == 1


async def test_a_lease_that_has_ended_is_granted_anew(store: Rig) -> None:
    await store.register(registration(), terms=Terms(owner="one"))
    await store.advance(TTL)
    lease = (await store.register(registration())).lease

    assert (lease.granted_at_us, lease.owner) == (store.now().unix_us, "")


# -- Evictions ------------------------------------------------------------------------------------


async def test_an_eviction_ends_the_lease_and_the_reservation(store: Rig) -> None:
    lease = (await store.register(registration(), terms=RESERVED)).lease

    assert await store.evict() is True
    assert await store.lookup() is None
    assert await store.reservation() is None
    assert await store.count() == 0
    last = (await store.seen())[-1]
    assert last == WatchEvent(MESH, last.revision, None, store.agent_id)
    assert last.revision > lease.revision
    grant = await store.register(registration(pubkey=OTHER_KEY))
    assert not grant.renewed
    assert grant.lease.revision > last.revision


async def test_an_eviction_may_be_repeated(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)
    await store.evict()
    told = await store.seen()

    assert await store.evict() is False
    assert await store.seen() == told


async def test_an_eviction_of_what_is_only_reserved_makes_it_free(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)
    await store.advance(TTL)
    await store.sweep_all()
    told = await store.seen()

    assert await store.evict() is True
    assert await store.seen() == told
    assert not (await store.register(registration(pubkey=OTHER_KEY))).renewed


async def test_an_eviction_of_what_has_ended_finds_nothing(store: Rig) -> None:
    await store.register(registration())
    await store.advance(TTL)

    assert await store.evict() is False
    assert [event.lease is None for event in await store.seen()] == [False, True]


async def test_there_is_nothing_to_evict_where_nothing_was(store: Rig) -> None:
    assert await store.evict() is False
    assert await store.seen() == []


async def test_an_eviction_ends_no_lease_but_the_one_that_is_named(store: Rig) -> None:
    await store.register(registration())
    await store.register(registration(agent_id="another"))
    await store.register(registration(mesh_id="mesh-2"))

    assert await store.evict() is True
    assert await store.lookup(agent_id="another") is not None
    assert await store.lookup("mesh-2") is not None


# -- Quotas ---------------------------------------------------------------------------------------


def quota(store: Rig, most: int) -> Terms:
    """Return the quota that is about the kind of leases that the test is about."""
    if store.agent_id:
        return Terms(owner="one", most_agents=most)
    return Terms(owner="one", most_of_owner=most)


def several(store: Rig, number: int) -> dict[str, str]:
    """Return another name of the same kind, which counts with the test's own."""
    return {"agent_id": f"other-{number}"} if store.agent_id else {"mesh_id": f"other-{number}"}


async def _fill(store: Rig, terms: Terms, number: int = 3, ttl: int = TTL) -> None:
    for n in range(number):
        await store.register(registration(**several(store, n)), ttl, terms)


async def test_as_many_as_may_be_are_granted_and_not_one_more(store: Rig) -> None:
    terms = quota(store, 3)
    await _fill(store, terms)
    told = await store.seen()

    with pytest.raises(QuotaError, match="3 already"):
        await store.register(registration(), terms=terms)

    assert await store.lookup() is None
    assert await store.count() == 3
    assert await store.seen() == told


async def test_a_renewal_is_never_refused_for_a_quota(store: Rig) -> None:
    await _fill(store, quota(store, 0))

    for changes in ({}, {"public_port": 1}, {"pubkey": OTHER_KEY}):
        terms = replace(quota(store, 1), old_pubkey=KEY, most_in_all=1)
        wanted = registration(**several(store, 0), **changes)
        assert (await store.register(wanted, terms=terms)).renewed


@pytest.mark.parametrize("how", ["leaves", "is evicted", "ends", "ends, noticed"])
async def test_what_is_over_takes_no_place(store: Rig, how: str) -> None:
    terms = quota(store, 3)
    await _fill(store, terms, 2)
    await store.register(registration(**several(store, 2)), 10, terms)
    match how:
        case "leaves":
            await store.deregister(**several(store, 2))
        case "is evicted":
            await store.evict(**several(store, 2))
        case _:
            await store.advance(10)
    if how == "ends, noticed":
        await store.sweep_all()

    assert not (await store.register(registration(), terms=terms)).renewed
    with pytest.raises(QuotaError):
        await store.register(registration(**several(store, 9)), terms=terms)


async def test_a_place_is_free_however_many_ended_unnoticed(store: Rig) -> None:
    many = store.many
    terms = replace(quota(store, many + 1), most_in_all=many + 1)
    await _fill(store, terms, many, ttl=10)
    await store.register(registration(**several(store, many)), TTL, terms)
    with pytest.raises(QuotaError):
        await store.register(registration(), terms=terms)
    await store.advance(10)

    terms = replace(quota(store, 2), most_in_all=2)
    assert not (await store.register(registration(), terms=terms)).renewed
    with pytest.raises(QuotaError):
        await store.register(registration(**several(store, 3000)), terms=terms)


async def test_a_lease_that_was_renewed_keeps_its_place(store: Rig) -> None:
    terms = quota(store, 1)
    await store.register(registration(**several(store, 0)), 10, terms)
    await store.advance(9)
    await store.register(registration(**several(store, 0)), 10, terms)
    await store.advance(9)

    with pytest.raises(QuotaError):
        await store.register(registration(), terms=terms)
    await store.advance(1)
    assert not (await store.register(registration(), terms=terms)).renewed


async def test_the_whole_registry_has_room_for_leases_of_both_kinds(store: Rig) -> None:
    await store.register(registration(mesh_id="m"))
    await store.register(registration(mesh_id="m", agent_id="a"), 10)
    full = Terms(most_in_all=2)

    with pytest.raises(QuotaError):
        await store.register(registration(), terms=full)
    await store.register(registration(), terms=Terms(most_in_all=3))
    await store.advance(10)
    with pytest.raises(QuotaError):
        await store.register(registration(**several(store, 0)), terms=full)
    await store.deregister()
    await store.register(registration(**several(store, 0)), terms=full)


async def test_a_name_that_is_reserved_for_another_key_is_no_question_of_quotas(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)
    await store.deregister()
    await store.register(registration(**several(store, 0)))

    with pytest.raises(MeshReservedError):
        await store.register(registration(pubkey=OTHER_KEY), terms=Terms(most_in_all=1))


async def test_a_reservation_takes_no_place(store: Rig) -> None:
    await store.register(registration(), terms=RESERVED)
    await store.deregister()

    await store.register(registration(**several(store, 0)), terms=Terms(most_in_all=1))


async def test_a_quota_is_of_one_owners_colonies_or_one_meshs_agents(store: Rig) -> None:
    terms = quota(store, 1)
    await store.register(registration(), terms=terms)

    await store.register(registration(mesh_id="mesh-2"), terms=replace(terms, owner="another"))
    with pytest.raises(QuotaError):
        await store.register(registration(**several(store, 0)), terms=terms)


async def test_another_owners_renewal_takes_the_colony_over(store: Rig) -> None:
    one, two = Terms(owner="one", most_of_owner=1), Terms(owner="two", most_of_owner=1)
    await store.store.register(registration(), ttl=TTL, now=store.now(), terms=one)
    await store.store.register(registration(), ttl=TTL, now=store.now(), terms=two)

    second, third = registration(mesh_id="mesh-2"), registration(mesh_id="mesh-3")
    await store.store.register(second, ttl=TTL, now=store.now(), terms=one)
    with pytest.raises(QuotaError):
        await store.store.register(third, ttl=TTL, now=store.now(), terms=two)


async def test_no_owner_has_no_quota(store: Rig) -> None:
    for number in range(3):
        await store.register(registration(**several(store, number)), terms=Terms(most_of_owner=1))

    assert await store.count() == 3
