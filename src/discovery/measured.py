"""A store that reports what it does: the wrapper between the service and any RegistryStore."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from discovery.clock import Instant
from discovery.errors import (
    DiscoveryError,
    MeshIdTakenError,
    MeshReservedError,
    StoreUnavailableError,
)
from discovery.metrics import StoreMetrics
from discovery.models import Counts, Lease, Registration, Reservation, Terms, WatchEvent
from discovery.stores.base import (
    NO_TERMS,
    AgentsPage,
    Grant,
    LeasesPage,
    Listener,
    RegistryStore,
)

T = TypeVar("T")


class MeasuredStore:
    """A RegistryStore that passes everything to another, and reports it."""

    def __init__(self, store: RegistryStore, metrics: StoreMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._expired = 0

    @property
    def expired(self) -> int:
        """See RegistryStore."""
        return self._store.expired

    async def register(
        self, registration: Registration, *, ttl: int, now: Instant, terms: Terms = NO_TERMS
    ) -> Grant:
        """See RegistryStore."""
        leases = self._metrics.leases
        try:
            grant = await self._measured(
                "register", self._store.register(registration, ttl=ttl, now=now, terms=terms)
            )
        except (MeshIdTakenError, MeshReservedError):
            leases["conflicted"].inc()
            raise
        leases["renewed" if grant.renewed else "granted"].inc()
        return grant

    async def lookup(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> Lease | None:
        """See RegistryStore."""
        lease = await self._measured(
            "lookup", self._store.lookup(mesh_id, now=now, agent_id=agent_id)
        )
        (self._metrics.missed if lease is None else self._metrics.found).inc()
        return lease

    async def deregister(
        self, mesh_id: str, pubkey: str, *, now: Instant, agent_id: str = ""
    ) -> bool:
        """See RegistryStore."""
        removed = await self._measured(
            "deregister", self._store.deregister(mesh_id, pubkey, now=now, agent_id=agent_id)
        )
        if removed:
            self._metrics.leases["released"].inc()
        return removed

    async def evict(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> bool:
        """See RegistryStore."""
        answer = self._store.evict(mesh_id, now=now, agent_id=agent_id)
        return await self._measured("evict", answer)

    async def reservation(
        self, mesh_id: str, *, now: Instant, agent_id: str = ""
    ) -> Reservation | None:
        """See RegistryStore."""
        answer = self._store.reservation(mesh_id, now=now, agent_id=agent_id)
        return await self._measured("reservation", answer)

    async def leases(
        self, *, agents: bool, prefix: str, after: str, limit: int, now: Instant
    ) -> LeasesPage:
        """See RegistryStore."""
        page = self._store.leases(agents=agents, prefix=prefix, after=after, limit=limit, now=now)
        return await self._measured("leases", page)

    async def agents(self, mesh_id: str, *, after: str, limit: int, now: Instant) -> AgentsPage:
        """See RegistryStore."""
        page = self._store.agents(mesh_id, after=after, limit=limit, now=now)
        return await self._measured("agents", page)

    async def count(self, *, now: Instant) -> Counts:
        """See RegistryStore."""
        counts = await self._measured("count", self._store.count(now=now))
        self._metrics.counted("colony", counts.colonies)
        self._metrics.counted("agent", counts.agents)
        return counts

    async def sweep(self, *, now: Instant, limit: int) -> bool:
        """See RegistryStore."""
        try:
            return await self._measured("sweep", self._store.sweep(now=now, limit=limit))
        finally:
            self._note_expired()

    async def current(self, mesh_id: str, *, now: Instant) -> WatchEvent:
        """See RegistryStore."""
        return await self._measured("current", self._store.current(mesh_id, now=now))

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        """See RegistryStore."""
        self._store.listen(changed, missed)

    async def close(self) -> None:
        """See RegistryStore."""
        await self._store.close()

    def _note_expired(self) -> None:
        expired, self._expired = self._expired, self._store.expired
        self._metrics.leases["expired"].inc(self._expired - expired)

    async def _measured(self, operation: str, answer: Awaitable[T]) -> T:
        started, outcome = time.perf_counter(), "error"
        try:
            result = await answer
            outcome = "ok"
        except StoreUnavailableError:
            outcome = "unavailable"
            raise
        except DiscoveryError:
            outcome = "refused"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        else:
            return result
        finally:
            self._metrics.done(operation, outcome, time.perf_counter() - started)
