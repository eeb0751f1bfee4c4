"""What each call of the admin API means. It knows no protocol and no concrete store."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass

from discovery.admin.events import Event, EventLog
from discovery.clock import MICROSECONDS, Clock
from discovery.errors import InvalidFieldError, Violation
from discovery.models import Counts, Lease, Reservation
from discovery.paging import LARGEST_PAGE
from discovery.stores.base import RegistryStore
from discovery.transport.pipeline import Call
from discovery.validation import check_agent, check_id, require


@dataclass(frozen=True, slots=True)
class Vitals:
    """How this replica is, beside what its store holds."""

    version: str
    uptime_seconds: int
    store: str
    connections: int
    watches: int
    calls: Mapping[tuple[str, str], int]
    """How often each method was answered with each status."""
    draining: bool


@dataclass(frozen=True, slots=True)
class Ages:
    """How long ago something must have been registered, in seconds; 0 does not matter."""

    least: int = 0
    most: int = 0

    def include(self, lease: Lease, now_us: int) -> bool:
        """Return whether a lease is that old."""
        age = (now_us - lease.granted_at_us) / MICROSECONDS
        return self.least <= age and (not self.most or age <= self.most)


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that is known of a name."""

    lease: Lease | None
    reservation: Reservation | None
    events: Sequence[Event]


class AdminService:
    """The calls of coral.discovery.admin.v1 on a store. Each may raise StoreUnavailableError and InvalidFieldError."""

    def __init__(
        self,
        store: RegistryStore,
        clock: Clock,
        events: EventLog,
        vitals: Callable[[], Vitals],
        drain: Callable[[], None],
    ) -> None:
        """Tell `vitals` of this replica, and stop it by `drain`."""
        self._store = store
        self._clock = clock
        self._events = events
        self._vitals = vitals
        self._drain = drain

    @property
    def events_since_us(self) -> int:
        """Since when events are remembered."""
        return self._events.since_us

    async def list_registrations(
        self, *, agents: bool, prefix: str, ages: Ages, size: int, token: str
    ) -> tuple[Sequence[Lease], str]:
        """Return some of all leases, and the token of the next page; see RegistryStore.leases."""
        require(_check_page(size, ages))
        limit = min(size or LARGEST_PAGE, LARGEST_PAGE)
        now = self._clock.now()
        try:
            after = base64.b64decode(token, altchars=b"-_", validate=True).decode()
            page = await self._store.leases(
                agents=agents, prefix=prefix, after=after, limit=limit, now=now
            )
        except (ValueError, binascii.Error):
            problem = Violation("page_token", "is not the next_page_token of a page before")
            raise InvalidFieldError((problem,)) from None
        found = [lease for lease in page.leases if ages.include(lease, now.unix_us)]
        return found, base64.urlsafe_b64encode(page.after.encode()).decode()

    async def inspect(self, mesh_id: str, agent_id: str) -> Inspection:
        """Return what is known of a name."""
        require(_check_name(mesh_id, agent_id))
        now = self._clock.now()
        return Inspection(
            await self._store.lookup(mesh_id, agent_id=agent_id, now=now),
            await self._store.reservation(mesh_id, agent_id=agent_id, now=now),
            self._events.history(mesh_id, agent_id),
        )

    async def evict(self, mesh_id: str, agent_id: str, by: Call) -> bool:
        """End a lease and its reservation; return whether there was either. `by` is the call that wants it."""
        require(_check_name(mesh_id, agent_id))
        evicted = await self._store.evict(mesh_id, agent_id=agent_id, now=self._clock.now())
        if evicted:
            self._events.evicted(mesh_id, agent_id, by)
        return evicted

    async def stats(self) -> tuple[Vitals, Counts]:
        """Return how this replica is, and how much is registered."""
        return self._vitals(), await self._store.count(now=self._clock.now())

    async def watch(self, prefix: str, kinds: frozenset[int]) -> AsyncGenerator[tuple[Event, int]]:
        """Yield what happens from now on, with how many events were missed before each.

        Raises:
            DrainingError: the server stops.
        """
        with self._events.reader(prefix, kinds) as reader:
            while True:
                yield await reader.read()

    def drain(self) -> None:
        """Stop this replica cleanly, soon."""
        self._drain()


def _check_name(mesh_id: str, agent_id: str) -> Sequence[Violation]:
    return tuple(check_agent(mesh_id, agent_id) if agent_id else check_id("mesh_id", mesh_id))


def _check_page(size: int, ages: Ages) -> Sequence[Violation]:
    numbers = {
        "page_size": size,
        "min_age_seconds": ages.least,
        "max_age_seconds": ages.most,
    }
    return [
        Violation(field, f"is {number}; must not be negative")
        for field, number in numbers.items()
        if number < 0
    ]
