"""The contract on `current`: the state of a mesh and the revision of that, for those who follow it."""

from __future__ import annotations

import pytest

from discovery.models import WatchEvent
from tests.stores.rigs import TTL, Rig
from tests.support import MESH, registration

DAY = 86_400.0


async def test_a_registered_mesh_has_the_revision_of_its_lease(store: Rig) -> None:
    await store.register(registration())
    await store.advance(100)
    lease = (await store.register(registration())).lease

    assert await store.current() == WatchEvent(MESH, lease.revision, lease)


@pytest.mark.parametrize("step", [-DAY, 0.0, DAY])
async def test_an_absent_mesh_has_a_greater_revision_than_it_had_registered(
    store: Rig, step: float
) -> None:
    lease = (await store.register(registration())).lease
    store.step_wall(step)
    await store.deregister()

    state = await store.current()

    assert state == WatchEvent(MESH, state.revision, None)
    assert state.revision > lease.revision


async def test_a_mesh_that_was_never_registered_is_absent_at_some_revision(store: Rig) -> None:
    state = await store.current()

    assert state == WatchEvent(MESH, state.revision, None)
    assert state.revision > 0


async def test_a_registration_has_a_greater_revision_than_the_absence_before(store: Rig) -> None:
    absent = await store.current()
    registered = (await store.register(registration())).lease.revision

    assert registered > absent.revision


async def test_the_revision_of_an_absence_stays_for_a_while(store: Rig) -> None:
    for mesh_id in ("never", "left", "expired"):
        if mesh_id != "never":
            await store.register(registration(mesh_id=mesh_id), 10 if mesh_id == "expired" else TTL)
    await store.deregister("left")
    await store.advance(10)
    first = [await store.current(mesh_id) for mesh_id in ("never", "left", "expired")]
    await store.advance(1)
    await store.sweep_all()

    assert [await store.current(mesh_id) for mesh_id in ("never", "left", "expired")] == first
    assert [state.lease for state in first] == [None, None, None]


@pytest.mark.parametrize("swept", [False, True])
async def test_a_lease_that_ended_is_absent_whether_or_not_it_was_swept(
    store: Rig, swept: bool
) -> None:
    await store.register(registration())
    await store.advance(TTL - store.tick)
    assert (await store.current()).lease is not None
    await store.advance(store.tick)
    if swept:
        await store.sweep_all()

    assert (await store.current()).lease is None


async def test_the_state_is_what_the_last_event_told(store: Rig) -> None:
    await store.register(registration())
    assert await store.current() == (await store.seen())[-1]
    await store.register(registration(public_port=1))
    assert await store.current() == (await store.seen())[-1]
    await store.deregister()
    assert await store.current() == (await store.seen())[-1]
    await store.register(registration(), ttl=10)
    await store.advance(10)
    await store.sweep_all()
    assert await store.current() == (await store.seen())[-1]


async def test_asking_reports_an_expiry_at_most_once(store: Rig) -> None:
    await store.register(registration())
    await store.advance(TTL)
    await store.current()
    await store.current()
    await store.sweep_all()

    assert len(await store.seen()) == 2
