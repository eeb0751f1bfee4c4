"""A store that reports what it does: the wrapper between the service and any RegistryStore."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

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


def _nothing(_answer: object) -> None:
    """Note nothing."""


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

    def holds(self, registration: Registration) -> bool:
        """See RegistryStore."""
        return self._store.holds(registration)

    def register(
        self, registration: Registration, *, ttl: int, now: Instant, terms: Terms = NO_TERMS
    ) -> Coroutine[Any, Any, Grant]:
        """See RegistryStore."""
        answer = self._store.register(registration, ttl=ttl, now=now, terms=terms)
        return self._measured("register", answer, self._note_grant)

    def lookup(
        self, mesh_id: str, *, now: Instant, agent_id: str = ""
    ) -> Coroutine[Any, Any, Lease | None]:
        """See RegistryStore."""
        answer = self._store.lookup(mesh_id, now=now, agent_id=agent_id)
        return self._measured("lookup", answer, self._note_lookup)

    def deregister(
        self, mesh_id: str, pubkey: str, *, now: Instant, agent_id: str = ""
    ) -> Coroutine[Any, Any, bool]:
        """See RegistryStore."""
        answer = self._store.deregister(mesh_id, pubkey, now=now, agent_id=agent_id)
        return self._measured("deregister", answer, self._note_release)

    def evict(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> Coroutine[Any, Any, bool]:
        """See RegistryStore."""
        answer = self._store.evict(mesh_id, now=now, agent_id=agent_id)
        return self._measured("evict", answer)

    def reservation(
        self, mesh_id: str, *, now: Instant, agent_id: str = ""
    ) -> Coroutine[Any, Any, Reservation | None]:
        """See RegistryStore."""
        answer = self._store.reservation(mesh_id, now=now, agent_id=agent_id)
        return self._measured("reservation", answer)

    def leases(
        self, *, agents: bool, prefix: str, after: str, limit: int, now: Instant
    ) -> Coroutine[Any, Any, LeasesPage]:
        """See RegistryStore."""
        page = self._store.leases(agents=agents, prefix=prefix, after=after, limit=limit, now=now)
        return self._measured("leases", page)

    def agents(
        self, mesh_id: str, *, after: str, limit: int, now: Instant
    ) -> Coroutine[Any, Any, AgentsPage]:
        """See RegistryStore."""
        page = self._store.agents(mesh_id, after=after, limit=limit, now=now)
        return self._measured("agents", page)

    def count(self, *, now: Instant) -> Coroutine[Any, Any, Counts]:
        """See RegistryStore."""
        return self._measured("count", self._store.count(now=now), self._note_counts)

    async def sweep(self, *, now: Instant, limit: int) -> bool:
        """See RegistryStore."""
        try:
            return await self._measured("sweep", self._store.sweep(now=now, limit=limit))
        finally:
            self._note_expired()

    def current(self, mesh_id: str, *, now: Instant) -> Coroutine[Any, Any, WatchEvent]:
        """See RegistryStore."""
        return self._measured("current", self._store.current(mesh_id, now=now))

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        """See RegistryStore."""
        self._store.listen(changed, missed)

    async def close(self) -> None:
        """See RegistryStore."""
        await self._store.close()

    def _note_grant(self, grant: Grant) -> None:
        self._metrics.leases["renewed" if grant.renewed else "granted"].number += 1

    def _note_lookup(self, lease: Lease | None) -> None:
        (self._metrics.missed if lease is None else self._metrics.found).number += 1

    def _note_release(self, removed: bool) -> None:  # noqa: FBT001 - what the store answered
        if removed:
            self._metrics.leases["released"].inc()

    def _note_counts(self, counts: Counts) -> None:
        self._metrics.counted("colony", counts.colonies)
        self._metrics.counted("agent", counts.agents)

    def _note_expired(self) -> None:
        expired, self._expired = self._expired, self._store.expired
        self._metrics.leases["expired"].inc(self._expired - expired)

    async def _measured(
        self, operation: str, answer: Awaitable[T], note: Callable[[T], None] = _nothing
    ) -> T:
        """Return what the store answers, measured and noted."""
        started = time.perf_counter()
        try:
            result = await answer
        except BaseException as error:
            self._metrics.done(operation, _outcome(error), time.perf_counter() - started)
            if isinstance(error, MeshIdTakenError | MeshReservedError):
                self._metrics.leases["conflicted"].inc()
            raise
        self._metrics.done(operation, "ok", time.perf_counter() - started)
        note(result)
        return result


def _outcome(error: BaseException) -> str:
    if isinstance(error, StoreUnavailableError):
        return "unavailable"
    if isinstance(error, DiscoveryError):
        return "refused"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
