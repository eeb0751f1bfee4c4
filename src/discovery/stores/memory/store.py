"""What each method of the contract is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from discovery.clock import MICROSECONDS, Instant
from discovery.errors import MeshIdTakenError, MeshReservedError, NotOwnerError, QuotaError
from discovery.models import (
    Counts,
    Lease,
    Registration,
    Reservation,
    Terms,
    WatchEvent,
    lease_name,
)
from discovery.stores.base import (
    NO_TERMS,
    AgentsPage,
    Grant,
    LeasesPage,
    Listener,
    quota_error,
    quotas,
)
from discovery.stores.memory.census import Census, Entry
from discovery.stores.memory.reminders import Reminders
from discovery.stores.memory.reservations import Reservations
from discovery.stores.memory.revisions import Revisions
from discovery.stores.memory.sameness import Sameness
from discovery.stores.memory.words import Words, tight

# How many reminders `count` looks at before it lets others run.
_COUNT_BATCH = 100


class MemoryStore:
    """A RegistryStore in a dict. A renewal moves its lease's end and touches nothing else."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}  # by lease_name
        self._reminders = Reminders[Entry]()
        self._revisions = Revisions()
        self._reservations = Reservations()
        self._census = Census()
        self._words = Words()
        self._same = Sameness()
        self._listener: Listener = _ignore
        self.expired = 0
        """See RegistryStore."""

    def holds(self, registration: Registration) -> bool:
        """See RegistryStore."""
        entry = self._entries.get(lease_name(registration.mesh_id, registration.agent_id))
        return entry is not None and self._same(registration, entry.registration)

    async def register(
        self, registration: Registration, *, ttl: int, now: Instant, terms: Terms = NO_TERMS
    ) -> Grant:
        """See RegistryStore."""
        name = lease_name(registration.mesh_id, registration.agent_id)
        entry = self._live(name, now)
        if entry is None and terms is not NO_TERMS and self._full(registration, terms):
            await self.count(now=now)  # what has ended takes nobody's place
            entry = self._live(name, now)
        renewed = entry is not None
        if entry is None:
            self._check_grant(name, registration, terms, now)
            entry = self._grant(name, registration, ttl, now, terms.owner)
        else:
            if entry.registration.pubkey not in (registration.pubkey, terms.old_pubkey):
                raise _taken(entry)
            self._renew(entry, registration, ttl, now, terms.owner)
        if terms.reserve or terms.old_pubkey:
            self._reserve(name, entry, terms)
        return Grant(
            entry.registration,
            entry.revision,
            entry.last_seen_us,
            entry.expires_at_us,
            entry.granted_at_us,
            entry.owner,
            renewed,
        )

    async def lookup(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> Lease | None:
        """See RegistryStore."""
        entry = self._entries.get(lease_name(mesh_id, agent_id))
        return entry.lease if entry is not None and now.monotonic_us < entry.ends_us else None

    async def deregister(
        self, mesh_id: str, pubkey: str, *, now: Instant, agent_id: str = ""
    ) -> bool:
        """See RegistryStore."""
        name = lease_name(mesh_id, agent_id)
        entry = self._live(name, now)
        if entry is None:
            return False
        if entry.registration.pubkey != pubkey:
            raise NotOwnerError(mesh_id, agent_id=agent_id)
        self._reminders.forget(entry)
        self._remove(entry, now)
        return True

    async def evict(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> bool:
        """See RegistryStore."""
        name = lease_name(mesh_id, agent_id)
        reserved = self._reservations.get(name, now)
        self._reservations.free(name)
        entry = self._live(name, now)
        if entry is None:
            return reserved is not None
        self._reminders.forget(entry)
        self._remove(entry, now)
        return True

    async def reservation(
        self, mesh_id: str, *, now: Instant, agent_id: str = ""
    ) -> Reservation | None:
        """See RegistryStore."""
        return self._reservations.get(lease_name(mesh_id, agent_id), now)

    async def leases(
        self, *, agents: bool, prefix: str, after: str, limit: int, now: Instant
    ) -> LeasesPage:
        """See RegistryStore."""
        entries, after = self._census.roster(agents=agents).page(after, limit)
        live = (entry.as_lease() for entry in entries if now.monotonic_us < entry.ends_us)
        found = (lease for lease in live if lease.registration.mesh_id.startswith(prefix))
        return LeasesPage(tuple(found), after)

    async def agents(self, mesh_id: str, *, after: str, limit: int, now: Instant) -> AgentsPage:
        """See RegistryStore. Up to twice `limit` ends are noted first, or met on the way."""
        await self.sweep(now=now, limit=limit)  # so that the revision covers that
        agents = self._revisions.agents.get(mesh_id)
        looked_at, more = agents.page(after, limit) if agents else ([], False)
        entries = [self._live(lease_name(mesh_id, agent_id), now) for agent_id in looked_at]
        leases = tuple(entry.as_lease() for entry in entries if entry is not None)
        revision = self._revisions.of_agents(mesh_id, now)
        return AgentsPage(revision, leases, looked_at[-1] if more else "")

    async def count(self, *, now: Instant) -> Counts:
        """See RegistryStore."""
        while await self.sweep(now=now, limit=_COUNT_BATCH):  # noqa: ASYNC110
            await asyncio.sleep(0)  # a turn for other calls, not a poll
        return self._census.counts()

    async def sweep(self, *, now: Instant, limit: int) -> bool:
        """See RegistryStore. Reservations count as leases do."""
        while limit and self._reminders.due(now):
            entry = self._reminders.answer(now)
            if entry is not None:
                self._expire(entry, now)
            limit -= 1
        return self._reservations.sweep(now, limit) or self._reminders.due(now)

    async def current(self, mesh_id: str, *, now: Instant) -> WatchEvent:
        """See RegistryStore."""
        entry = self._live(mesh_id, now)
        if entry is not None:
            return WatchEvent(mesh_id, entry.revision, entry.lease)
        return WatchEvent(mesh_id, self._revisions.of_absent(mesh_id, now), None)

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        """See RegistryStore. Nothing is ever missed."""
        del missed
        self._listener = changed

    async def close(self) -> None:
        """See RegistryStore."""

    def _live(self, name: str, now: Instant) -> Entry | None:
        entry = self._entries.get(name)
        if entry is None or now.monotonic_us < entry.ends_us:
            return entry
        self._reminders.forget(entry)
        self._expire(entry, now)
        return None

    def _check_grant(
        self, name: str, registration: Registration, terms: Terms, now: Instant
    ) -> None:
        reserved = self._reservations.get(name, now)
        if reserved is not None and reserved.pubkey not in (registration.pubkey, terms.old_pubkey):
            raise MeshReservedError(
                registration.mesh_id, reserved.until_us, agent_id=registration.agent_id
            )
        if terms is not NO_TERMS and (error := self._full(registration, terms)):
            raise error

    def _full(self, registration: Registration, terms: Terms) -> QuotaError | None:
        of_mesh = self._revisions.agents_of(registration.mesh_id)
        there_are = self._census.standing(terms.owner, of_mesh)
        return quota_error(quotas(registration, terms), there_are)

    def _grant(
        self, name: str, registration: Registration, ttl: int, now: Instant, owner: str
    ) -> Entry:
        span_us, unix_us = ttl * MICROSECONDS, tight(now.unix_us)
        ends_us, expires_at_us = tight(now.monotonic_us + span_us), tight(unix_us + span_us)
        revision = self._revisions.granted(registration, Instant(unix_us, now.monotonic_us))
        held = self._words.shared_by(registration)
        entry = Entry(ends_us, held, revision, unix_us, expires_at_us, unix_us, owner)
        self._entries[name] = entry
        self._reminders.set(entry)
        self._census.add(entry)
        self._report(entry)
        return entry

    def _renew(
        self, entry: Entry, registration: Registration, ttl: int, now: Instant, owner: str
    ) -> None:
        span_us = ttl * MICROSECONDS
        changed = not self._same(registration, entry.registration)
        if changed:
            entry.revision = self._revisions.changed(entry, now)
            entry.registration = self._words.shared_by(registration)
        if now.monotonic_us + span_us > entry.ends_us:
            entry.ends_us = tight(now.monotonic_us + span_us)
            entry.expires_at_us = tight(now.unix_us + span_us)
        entry.last_seen_us = tight(now.unix_us)
        entry.kept = None
        if owner != entry.owner:
            self._census.pass_on(entry, owner)
        if changed:
            self._report(entry)

    def _reserve(self, name: str, entry: Entry, terms: Terms) -> None:
        if terms.reserve:
            self._reservations.keep(
                entry.registration, entry.expires_at_us, entry.ends_us, terms.reserve
            )
        else:
            self._reservations.pass_on(name, terms.old_pubkey, entry.registration.pubkey)

    def _expire(self, entry: Entry, now: Instant) -> None:
        self.expired += 1
        self._remove(entry, now, expired=True)

    def _remove(self, entry: Entry, now: Instant, *, expired: bool = False) -> None:
        """Take out what has no reminder any more, or one that is forgotten."""
        whose = entry.registration
        del self._entries[lease_name(whose.mesh_id, whose.agent_id)]
        self._census.remove(entry)
        revision = self._revisions.ended(entry, now)
        del entry.registration, entry.kept  # the entry may wait among the reminders for long
        self._listener(WatchEvent(whose.mesh_id, revision, None, whose.agent_id, expired))

    def _report(self, entry: Entry) -> None:
        whose = entry.registration
        lease = entry.as_lease()
        self._listener(WatchEvent(whose.mesh_id, entry.revision, lease, whose.agent_id))


def _taken(held: Entry) -> MeshIdTakenError:
    whose = held.registration
    return MeshIdTakenError(whose.mesh_id, held.expires_at_us, agent_id=whose.agent_id)


def _ignore(_event: WatchEvent) -> None:
    """Stand in for a listener where nobody listens."""
