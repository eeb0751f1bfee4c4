"""The embedded store: one process, one event loop, no dependencies.

Every method but `count` runs to its end without a pause, so that none ever sees another half done: that is all the
atomicity that the contract asks for. A lease ends by the monotonic clock, which nobody can step.
"""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, field

from discovery.clock import MICROSECONDS, Instant
from discovery.errors import MeshIdTakenError, NotOwnerError
from discovery.models import Counts, Lease, Registration, WatchEvent, lease_name, next_revision
from discovery.stores.base import AgentsPage, Grant, Listener

# How many reminders `count` looks at before it lets others run.
_COUNT_BATCH = 1000
# How many revisions of what is absent are kept, so that a watcher who comes back is not told again.
_ABSENT_REMEMBERED = 10_000
# How many more reminders than leases are kept before those that deregistrations left behind are dropped.
_SPARE_REMINDERS = 1024


@dataclass(slots=True)
class _Entry:
    lease: Lease
    ends_us: int
    """When the lease ends, on the monotonic clock."""
    reminder_us: int
    """The time of this entry's one reminder that counts: never later than `ends_us`."""


@dataclass(slots=True)
class _Agents:
    """The agents of one mesh that has some."""

    revision: int
    """That of the latest change of any of them."""
    ids: list[str] = field(default_factory=list)
    """In order."""

    def change(self, now: Instant) -> int:
        self.revision = next_revision(self.revision, now.unix_us)
        return self.revision


class MemoryStore:
    """A RegistryStore in a dict, with a heap of reminders to find what has ended.

    A renewal only moves `ends_us`; the reminder stays where it is and, when it comes up early, is set anew. So a
    renewal costs O(1), a grant O(log n), and each lease is looked at about once a TTL however often it is renewed.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}  # by lease_name
        self._agents: dict[str, _Agents] = {}
        self._agent_count = 0
        self._reminders: list[tuple[int, str]] = []
        self._last_absent_revision = 0
        self._absent: dict[
            str, int
        ] = {}  # by lease_name; "mesh_id/" stands for all agents of a mesh
        self._listener: Listener = _ignore
        self.expired = 0
        """See RegistryStore."""

    async def register(self, registration: Registration, *, ttl: int, now: Instant) -> Grant:
        """See RegistryStore."""
        mesh_id, agent_id = registration.mesh_id, registration.agent_id
        name = lease_name(mesh_id, agent_id)
        entry = self._live(name, now)
        if entry is None:
            return Grant(self._grant(name, registration, ttl, now), renewed=False)
        if entry.lease.registration.pubkey != registration.pubkey:
            raise MeshIdTakenError(mesh_id, entry.lease.expires_at_us, agent_id=agent_id)
        return Grant(self._renew(entry, registration, ttl, now), renewed=True)

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
        if entry.lease.registration.pubkey != pubkey:
            raise NotOwnerError(mesh_id, agent_id=agent_id)
        self._remove(name, now)
        self._drop_spare_reminders()
        return True

    async def agents(self, mesh_id: str, *, after: str, limit: int, now: Instant) -> AgentsPage:
        """See RegistryStore. Up to twice `limit` ends are noted first, or met on the way."""
        await self.sweep(now=now, limit=limit)  # so that the revision covers that
        ids = self._agents[mesh_id].ids if mesh_id in self._agents else []
        start = bisect_right(ids, after)
        looked_at, more = ids[start : start + limit], start + limit < len(ids)
        entries = [self._live(lease_name(mesh_id, agent_id), now) for agent_id in looked_at]
        leases = tuple(entry.lease for entry in entries if entry is not None)
        agents = self._agents.get(mesh_id)
        revision = agents.revision if agents else self._absence(f"{mesh_id}/", now)
        return AgentsPage(revision, leases, looked_at[-1] if more else "")

    async def count(self, *, now: Instant) -> Counts:
        """See RegistryStore."""
        while await self.sweep(now=now, limit=_COUNT_BATCH):  # noqa: ASYNC110
            await asyncio.sleep(0)  # a turn for other calls, not a poll
        return Counts(len(self._entries) - self._agent_count, self._agent_count)

    async def sweep(self, *, now: Instant, limit: int) -> bool:
        """See RegistryStore."""
        while limit and self._due(now):
            self._answer_reminder(now)
            limit -= 1
        return self._due(now)

    async def current(self, mesh_id: str, *, now: Instant) -> WatchEvent:
        """See RegistryStore."""
        entry = self._live(mesh_id, now)
        if entry is not None:
            return WatchEvent(mesh_id, entry.lease.revision, entry.lease)
        return WatchEvent(mesh_id, self._absence(mesh_id, now), None)

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        """See RegistryStore. Nothing is ever missed."""
        del missed
        self._listener = changed

    async def close(self) -> None:
        """See RegistryStore."""

    def _live(self, name: str, now: Instant) -> _Entry | None:
        entry = self._entries.get(name)
        if entry is None or now.monotonic_us < entry.ends_us:
            return entry
        self._expire(name, now)
        return None

    def _grant(self, name: str, registration: Registration, ttl: int, now: Instant) -> Lease:
        span_us = ttl * MICROSECONDS
        if registration.agent_id:
            revision = self._join(registration, now)
        else:
            self._absent.pop(name, None)
            revision = next_revision(self._last_absent_revision, now.unix_us)
        lease = Lease(registration, revision, now.unix_us, now.unix_us + span_us)
        ends_us = now.monotonic_us + span_us
        self._entries[name] = _Entry(lease, ends_us, ends_us)
        heapq.heappush(self._reminders, (ends_us, name))
        self._report(registration, revision, lease)
        return lease

    def _renew(self, entry: _Entry, registration: Registration, ttl: int, now: Instant) -> Lease:
        old, span_us = entry.lease, ttl * MICROSECONDS
        changed = registration != old.registration
        revision = self._change(old, now) if changed else old.revision
        expires_at_us = old.expires_at_us
        if now.monotonic_us + span_us > entry.ends_us:
            entry.ends_us, expires_at_us = now.monotonic_us + span_us, now.unix_us + span_us
        kept = registration if changed else old.registration
        entry.lease = Lease(kept, revision, now.unix_us, expires_at_us)
        if changed:
            self._report(kept, revision, entry.lease)
        return entry.lease

    def _change(self, lease: Lease, now: Instant) -> int:
        whose = lease.registration
        if whose.agent_id:
            return self._agents[whose.mesh_id].change(now)
        return next_revision(lease.revision, now.unix_us)

    def _expire(self, name: str, now: Instant) -> None:
        self.expired += 1
        self._remove(name, now)

    def _remove(self, name: str, now: Instant) -> None:
        lease = self._entries.pop(name).lease
        if lease.registration.agent_id:
            revision = self._part(lease.registration, now)
        else:
            revision = self._note_absence(name, now, lease.revision)
        self._report(lease.registration, revision, None)

    def _join(self, agent: Registration, now: Instant) -> int:
        if agent.mesh_id not in self._agents:
            self._absent.pop(f"{agent.mesh_id}/", None)
            self._agents[agent.mesh_id] = _Agents(self._last_absent_revision)
        agents = self._agents[agent.mesh_id]
        insort(agents.ids, agent.agent_id)
        self._agent_count += 1
        return agents.change(now)

    def _part(self, agent: Registration, now: Instant) -> int:
        agents = self._agents[agent.mesh_id]
        del agents.ids[bisect_left(agents.ids, agent.agent_id)]
        self._agent_count -= 1
        if agents.ids:
            return agents.change(now)
        del self._agents[agent.mesh_id]
        return self._note_absence(f"{agent.mesh_id}/", now, agents.revision)

    def _report(self, whose: Registration, revision: int, lease: Lease | None) -> None:
        self._listener(WatchEvent(whose.mesh_id, revision, lease, whose.agent_id))

    def _absence(self, name: str, now: Instant) -> int:
        return self._absent.get(name) or self._note_absence(name, now)

    def _note_absence(self, name: str, now: Instant, last: int = 0) -> int:
        """Give what is absent, and was at the revision `last`, another one, and remember those of the latest few.

        One number for all the others is enough for their revisions to grow: it is never less than any they had.
        """
        revision = next_revision(max(self._last_absent_revision, last), now.unix_us)
        self._last_absent_revision = self._absent[name] = revision
        if len(self._absent) > _ABSENT_REMEMBERED:
            del self._absent[next(iter(self._absent))]
        return revision

    def _due(self, now: Instant) -> bool:
        return bool(self._reminders) and self._reminders[0][0] <= now.monotonic_us

    def _answer_reminder(self, now: Instant) -> None:
        due_us, name = heapq.heappop(self._reminders)
        entry = self._entries.get(name)
        if entry is None or entry.reminder_us != due_us:
            return
        if entry.ends_us <= now.monotonic_us:
            self._expire(name, now)
        else:
            entry.reminder_us = entry.ends_us
            heapq.heappush(self._reminders, (entry.ends_us, name))

    def _drop_spare_reminders(self) -> None:
        if len(self._reminders) > 2 * len(self._entries) + _SPARE_REMINDERS:
            self._reminders = [(entry.reminder_us, name) for name, entry in self._entries.items()]
            heapq.heapify(self._reminders)


def _ignore(_event: WatchEvent) -> None:
    """Stand in for a listener where nobody listens."""
