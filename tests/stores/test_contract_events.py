"""The contract on events: each change of a mesh's content once, in order, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest

from discovery.errors import MeshIdTakenError, NotOwnerError
from discovery.models import Presence, WatchEvent
from discovery.stores.base import Grant
from tests.stores.rigs import TTL, Rig
from tests.support import MESH, OTHER_KEY, registration


@pytest.fixture(params=["", "agent-1"], ids=["colony", "agent"])
def agent_id(request: pytest.FixtureRequest) -> str:
    """All of this holds for a colony and for an agent."""
    name: str = request.param
    return name


def _event_of(grant: Grant) -> WatchEvent:
    lease = grant.lease
    whose = lease.registration
    return WatchEvent(whose.mesh_id, lease.revision, lease, whose.agent_id)


async def test_a_grant_is_an_event(store: Rig) -> None:
    grant = await store.register(registration())

    [event] = await store.seen()
    assert event == _event_of(grant)
    assert event.presence is Presence.REGISTERED


async def test_a_renewal_that_changes_nothing_is_no_event(store: Rig) -> None:
    grant = await store.register(registration())
    await store.advance(100)
    await store.register(registration())

    assert await store.seen() == [_event_of(grant)]


async def test_a_change_of_content_is_an_event_with_the_whole_new_lease(store: Rig) -> None:
    grant = await store.register(registration())
    await store.advance(100)
    change = await store.register(registration(endpoints=("192.0.2.9:1",)))

    assert await store.seen() == [_event_of(grant), _event_of(change)]


async def test_a_deregistration_is_an_event(store: Rig) -> None:
    grant = await store.register(registration())
    await store.deregister()

    [_, event] = await store.seen()
    assert event == WatchEvent(MESH, event.revision, None, store.agent_id)
    assert event.presence is Presence.ABSENT
    assert event.revision > grant.lease.revision
    assert not event.expired


async def test_an_eviction_is_no_expiry(store: Rig) -> None:
    await store.register(registration())
    await store.evict()

    [_, event] = await store.seen()
    assert not event.expired


@pytest.mark.parametrize("noticed", ["sweep", "register", "deregister"])
async def test_a_lease_that_nobody_renewed_is_said_to_have_expired(
    store: Rig, noticed: str
) -> None:
    await store.register(registration())
    await store.advance(TTL)
    if noticed == "register":
        await store.register(registration(pubkey=OTHER_KEY))
    elif noticed == "deregister":
        await store.deregister()
    await store.sweep_all()

    _, event, *_ = await store.seen()
    assert event.presence is Presence.ABSENT
    assert event.expired


async def test_what_is_refused_is_no_event(store: Rig) -> None:
    await store.register(registration())
    with pytest.raises(MeshIdTakenError):
        await store.register(registration(pubkey=OTHER_KEY))
    with pytest.raises(NotOwnerError):
        await store.deregister(pubkey=OTHER_KEY)

    assert len(await store.seen()) == 1


async def test_what_only_asks_is_no_event(store: Rig) -> None:
    await store.register(registration())
    await store.lookup()
    await store.count()
    await store.sweep_all()
    await store.deregister("mesh-2")

    assert len(await store.seen()) == 1


async def test_a_sweep_reports_an_expiry_once(store: Rig) -> None:
    grant = await store.register(registration())
    await store.advance(TTL)
    await store.sweep_all()
    await store.sweep_all()

    [_, event] = await store.seen()
    assert event == WatchEvent(MESH, event.revision, None, store.agent_id)
    assert event.revision > grant.lease.revision


@pytest.mark.parametrize("pubkey", [registration().pubkey, OTHER_KEY], ids=["same", "other"])
async def test_a_registration_after_an_unnoticed_expiry_reports_both(
    store: Rig, pubkey: str
) -> None:
    first = await store.register(registration())
    await store.advance(TTL)
    second = await store.register(registration(pubkey=pubkey))
    await store.sweep_all()

    [registered, absent, again] = await store.seen()
    assert registered == _event_of(first)
    assert absent == WatchEvent(MESH, absent.revision, None, store.agent_id)
    assert again == _event_of(second)
    assert registered.revision < absent.revision < again.revision


async def test_however_often_an_expiry_is_noticed_it_is_reported_once(store: Rig) -> None:
    await store.register(registration())
    await store.advance(TTL)
    await store.lookup()
    await store.deregister()
    await store.count()
    await store.deregister(pubkey=OTHER_KEY)
    await store.sweep_all()

    assert [event.presence for event in await store.seen()] == [
        Presence.REGISTERED,
        Presence.ABSENT,
    ]


async def test_a_second_deregistration_is_no_event(store: Rig) -> None:
    await store.register(registration())
    await store.deregister()
    await store.deregister()
    await store.advance(TTL)
    await store.sweep_all()

    assert len(await store.seen()) == 2


async def test_events_of_a_mesh_come_in_the_order_of_their_revisions(store: Rig) -> None:
    for step in (0, -100, 50, -100):
        store.step_wall(step)
        await store.register(registration())
        await store.register(registration(public_port=1))
        await store.advance(TTL)
        await store.sweep_all()
        await store.register(registration())
        await store.deregister()

    seen = await store.seen()
    assert len(seen) == 4 * 5
    assert all(before.revision < after.revision for before, after in pairwise(seen))


async def test_each_mesh_has_its_own_events(store: Rig) -> None:
    grants = [await store.register(registration(mesh_id=f"mesh-{n}")) for n in range(3)]

    assert await store.seen() == [_event_of(grant) for grant in grants]


async def test_a_listener_replaces_the_one_before_it(store: Rig) -> None:
    heard: list[WatchEvent] = []
    store.store.listen(heard.append)

    grant = await store.register(registration())

    assert await store.seen() == []
    assert heard == [_event_of(grant)]
