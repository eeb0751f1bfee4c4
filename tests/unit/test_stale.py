"""Lookups while the store is away."""

from __future__ import annotations

import pytest

from discovery.clock import Instant
from discovery.errors import NotRegisteredError, StoreUnavailableError
from discovery.models import Lease
from discovery.service import DiscoveryService
from discovery.stale import LastRead
from discovery.stores.memory import MemoryStore
from tests.support import KEY, MESH, ManualClock, registration


class FickleStore(MemoryStore):
    """A store that may be away."""

    away = False

    async def lookup(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> Lease | None:
        if self.away:
            raise StoreUnavailableError("away", retry_after=1.0)
        return await super().lookup(mesh_id, now=now, agent_id=agent_id)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> FickleStore:
    return FickleStore()


def serve(store: FickleStore, clock: ManualClock, stale_lookups: int = 60) -> DiscoveryService:
    return DiscoveryService(
        store, clock, ttl=300, version="1", spread=lambda: 0.5, stale_lookups=stale_lookups
    )


async def test_what_was_read_is_told_with_its_age(store: FickleStore, clock: ManualClock) -> None:
    service = serve(store, clock)
    await service.register_colony(registration(), None)
    fresh = await service.lookup_colony(MESH)
    store.away = True
    clock.advance(42.9)

    stale = await service.lookup_colony(MESH)

    assert fresh.staleness is None
    assert (stale.lease, stale.staleness) == (fresh.lease, 42)


async def test_what_was_registered_here_counts_as_read(
    store: FickleStore, clock: ManualClock
) -> None:
    service = serve(store, clock)
    await service.register_colony(registration(), None)
    store.away = True

    assert (await service.lookup_colony(MESH)).staleness == 0


async def test_beyond_the_age_the_store_is_unavailable(
    store: FickleStore, clock: ManualClock
) -> None:
    service = serve(store, clock)
    await service.register_colony(registration(), None)
    store.away = True
    clock.advance(60)
    assert (await service.lookup_colony(MESH)).staleness == 60
    clock.advance(0.000001)

    with pytest.raises(StoreUnavailableError):
        await service.lookup_colony(MESH)


async def test_it_is_off_unless_told_otherwise(store: FickleStore, clock: ManualClock) -> None:
    service = serve(store, clock, stale_lookups=0)
    await service.register_colony(registration(), None)
    await service.lookup_colony(MESH)
    store.away = True

    with pytest.raises(StoreUnavailableError):
        await service.lookup_colony(MESH)


async def test_a_mesh_that_nobody_read_is_not_made_up(
    store: FickleStore, clock: ManualClock
) -> None:
    store.away = True

    with pytest.raises(StoreUnavailableError):
        await serve(store, clock).lookup_colony(MESH)


@pytest.mark.parametrize("ending", ["released", "expired"])
async def test_a_mesh_that_was_seen_to_be_absent_is_forgotten(
    store: FickleStore, clock: ManualClock, ending: str
) -> None:
    service = serve(store, clock, stale_lookups=3600)
    await service.register_colony(registration(), None)
    if ending == "released":
        await service.deregister_colony(MESH, KEY)
    else:
        clock.advance(300)
        with pytest.raises(NotRegisteredError):
            await service.lookup_colony(MESH)
    store.away = True

    with pytest.raises(StoreUnavailableError):
        await service.lookup_colony(MESH)


def test_the_meshes_read_longest_ago_go_first(clock: ManualClock) -> None:
    last_read = LastRead(60, room=2)
    leases = [Lease(registration(mesh_id=f"mesh-{n}"), n, 0, 0) for n in range(3)]
    for lease in (leases[0], leases[1], leases[0], leases[2]):
        last_read.note(lease.registration.mesh_id, lease, clock.now())

    found = [last_read.recall(f"mesh-{n}", clock.now()) for n in range(3)]

    assert [f and f.lease.revision for f in found] == [0, None, 2]
