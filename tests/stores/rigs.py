"""Each store with what a test needs to drive it. A new store is one more line in RIGS, and no branch in any test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from discovery.clock import Instant
from discovery.measured import MeasuredStore
from discovery.metrics import Metrics
from discovery.models import Counts, Lease, Registration, Reservation, Terms, WatchEvent
from discovery.stores.base import NO_TERMS, AgentsPage, Grant, LeasesPage, RegistryStore
from discovery.stores.memory import MemoryStore
from tests.support import KEY, MESH, ManualClock

TTL = 300
BATCH = 100
"""How many leases a store looks at in one turn: fewer than it would elsewhere, so that a test need not make as many."""


@dataclass(frozen=True)
class Rig:
    """A store and the time it goes by. Its methods are the store's, with what most tests would repeat filled in."""

    store: RegistryStore
    now: Callable[[], Instant]
    """The clock by which the store's leases end."""
    advance: Callable[[float], Coroutine[Any, Any, None]]
    """Lets seconds pass."""
    step_wall: Callable[[float], None]
    """Sets the wall clock of the caller forward or back, by seconds."""
    settle: Callable[[], Coroutine[Any, Any, None]]
    """Returns once the listener was told of everything that was noticed."""
    tick: float = 1e-6
    """The shortest time, in seconds, that the store tells apart."""
    events: list[WatchEvent] = field(default_factory=list)
    """What the listener was told, in order."""
    many: int = 11 * BATCH // 10
    """More leases than the store counts, or frees to count the others, in one turn."""
    agent_id: str = ""
    """Whom a test is about that does not say it: a mesh's colony, or the agent of this name."""

    async def register(
        self, registration: Registration, ttl: int = TTL, terms: Terms = NO_TERMS
    ) -> Grant:
        wanted = replace(registration, agent_id=registration.agent_id or self.agent_id)
        return await self.store.register(wanted, ttl=ttl, now=self.now(), terms=terms)

    async def lookup(self, mesh_id: str = MESH, agent_id: str = "") -> Lease | None:
        agent_id = agent_id or self.agent_id
        return await self.store.lookup(mesh_id, now=self.now(), agent_id=agent_id)

    async def current(self, mesh_id: str = MESH) -> WatchEvent:
        return await self.store.current(mesh_id, now=self.now())

    async def deregister(self, mesh_id: str = MESH, pubkey: str = KEY, agent_id: str = "") -> bool:
        agent_id = agent_id or self.agent_id
        return await self.store.deregister(mesh_id, pubkey, now=self.now(), agent_id=agent_id)

    async def evict(self, mesh_id: str = MESH, agent_id: str = "") -> bool:
        agent_id = agent_id or self.agent_id
        return await self.store.evict(mesh_id, now=self.now(), agent_id=agent_id)

    async def reservation(self, mesh_id: str = MESH, agent_id: str = "") -> Reservation | None:
        agent_id = agent_id or self.agent_id
        return await self.store.reservation(mesh_id, now=self.now(), agent_id=agent_id)

    async def leases(
        self, prefix: str = "", after: str = "", limit: int = 100, *, agents: bool | None = None
    ) -> LeasesPage:
        """Return a page of the kind of leases that the test is about, if it does not say which."""
        kind = bool(self.agent_id) if agents is None else agents
        return await self.store.leases(
            agents=kind, prefix=prefix, after=after, limit=limit, now=self.now()
        )

    async def agents(self, mesh_id: str = MESH, after: str = "", limit: int = 100) -> AgentsPage:
        return await self.store.agents(mesh_id, after=after, limit=limit, now=self.now())

    async def counts(self) -> Counts:
        return await self.store.count(now=self.now())

    async def count(self) -> int:
        """Return the number of the kind of leases that the test is about."""
        counts = await self.counts()
        return counts.agents if self.agent_id else counts.colonies

    async def sweep(self, limit: int = 100) -> bool:
        return await self.store.sweep(now=self.now(), limit=limit)

    async def sweep_all(self) -> None:
        for _ in range(100):
            if not await self.sweep():
                return
        raise AssertionError("sweep never said that nothing more is due")

    async def seen(self) -> list[WatchEvent]:
        await self.settle()
        return list(self.events)


OpenRig = Callable[[], AbstractAsyncContextManager[Rig]]


@asynccontextmanager
async def memory_rig() -> AsyncIterator[Rig]:
    clock = ManualClock()

    async def advance(seconds: float) -> None:
        clock.advance(seconds)

    async def settle() -> None:
        """Events come before the call that made them returns."""

    rig = Rig(MemoryStore(), clock.now, advance, clock.step_wall, settle)
    rig.store.listen(rig.events.append)
    with mock.patch("discovery.stores.memory.store._COUNT_BATCH", BATCH):
        yield rig
    await rig.store.close()


@asynccontextmanager
async def measured_rig() -> AsyncIterator[Rig]:
    """The memory store behind the wrapper that measures it."""
    async with memory_rig() as rig:
        yield replace(rig, store=MeasuredStore(rig.store, Metrics("test").store))


RIGS: Mapping[str, OpenRig] = {"memory": memory_rig, "measured": measured_rig}
