"""The embedded store: one process, one event loop, no dependencies.

Every method but `count` runs to its end without a pause, so that none ever sees another half done: that is all the
atomicity that the contract asks for. A lease ends by the monotonic clock, which nobody can step.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass

from discovery.clock import MICROSECONDS, Instant
from discovery.errors import MeshIdTakenError, NotOwnerError
from discovery.models import Lease, Registration, WatchEvent, next_revision
from discovery.stores.base import Grant, Listener

# How many reminders `count` looks at before it lets others run.
_COUNT_BATCH = 1000
# How many absent meshes' revisions are kept, so that a watcher who comes back is not told again.
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


class MemoryStore:
    """A RegistryStore in a dict, with a heap of reminders to find what has ended.

    A renewal only moves `ends_us`; the reminder stays where it is and, when it comes up early, is set anew. So a
    renewal costs O(1), a grant O(log n), and each lease is looked at about once a TTL however often it is renewed.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._reminders: list[tuple[int, str]] = []
        self._last_absent_revision = 0
        self._absent: dict[str, int] = {}
        self._listener: Listener = _ignore
        self.expired = 0
        """See RegistryStore."""

    async def register(self, registration: Registration, *, ttl: int, now: Instant) -> Grant:
        """See RegistryStore."""
        mesh_id = registration.mesh_id
        entry = self._live(mesh_id, now)
        if entry is not None and entry.lease.registration.pubkey != registration.pubkey:
            raise MeshIdTakenError(mesh_id, entry.lease.expires_at_us)
        if entry is None:
            return Grant(self._grant(registration, ttl, now), renewed=False)
        return Grant(self._renew(entry, registration, ttl, now), renewed=True)

    async def lookup(self, mesh_id: str, *, now: Instant) -> Lease | None:
        """See RegistryStore."""
        entry = self._entries.get(mesh_id)
        return entry.lease if entry is not None and now.monotonic_us < entry.ends_us else None

    async def deregister(self, mesh_id: str, pubkey: str, *, now: Instant) -> bool:
        """See RegistryStore."""
        entry = self._live(mesh_id, now)
        if entry is None:
            return False
        if entry.lease.registration.pubkey != pubkey:
            raise NotOwnerError(mesh_id)
        self._remove(mesh_id, now)
        self._drop_spare_reminders()
        return True

    async def count(self, *, now: Instant) -> int:
        """See RegistryStore."""
        while await self.sweep(now=now, limit=_COUNT_BATCH):  # noqa: ASYNC110
            await asyncio.sleep(0)  # a turn for other calls, not a poll
        return len(self._entries)

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
        return WatchEvent(
            mesh_id, self._absent.get(mesh_id) or self._note_absence(mesh_id, now), None
        )

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        """See RegistryStore. Nothing is ever missed."""
        del missed
        self._listener = changed

    async def close(self) -> None:
        """See RegistryStore."""

    def _live(self, mesh_id: str, now: Instant) -> _Entry | None:
        entry = self._entries.get(mesh_id)
        if entry is None or now.monotonic_us < entry.ends_us:
            return entry
        self._expire(mesh_id, now)
        return None

    def _grant(self, registration: Registration, ttl: int, now: Instant) -> Lease:
        mesh_id, span_us = registration.mesh_id, ttl * MICROSECONDS
        revision = next_revision(self._last_absent_revision, now.unix_us)
        lease = Lease(registration, revision, now.unix_us, now.unix_us + span_us)
        ends_us = now.monotonic_us + span_us
        self._entries[mesh_id] = _Entry(lease, ends_us, ends_us)
        self._absent.pop(mesh_id, None)
        heapq.heappush(self._reminders, (ends_us, mesh_id))
        self._listener(WatchEvent(mesh_id, revision, lease))
        return lease

    def _renew(self, entry: _Entry, registration: Registration, ttl: int, now: Instant) -> Lease:
        old, span_us = entry.lease, ttl * MICROSECONDS
        changed = registration != old.registration
        revision = next_revision(old.revision, now.unix_us) if changed else old.revision
        expires_at_us = old.expires_at_us
        if now.monotonic_us + span_us > entry.ends_us:
            entry.ends_us, expires_at_us = now.monotonic_us + span_us, now.unix_us + span_us
        kept = registration if changed else old.registration
        entry.lease = Lease(kept, revision, now.unix_us, expires_at_us)
        if changed:
            self._listener(WatchEvent(kept.mesh_id, revision, entry.lease))
        return entry.lease

    def _expire(self, mesh_id: str, now: Instant) -> None:
        self.expired += 1
        self._remove(mesh_id, now)

    def _remove(self, mesh_id: str, now: Instant) -> None:
        revision = self._entries.pop(mesh_id).lease.revision
        self._last_absent_revision = max(self._last_absent_revision, revision)
        self._listener(WatchEvent(mesh_id, self._note_absence(mesh_id, now), None))

    def _note_absence(self, mesh_id: str, now: Instant) -> int:
        """Give an absent mesh its revision, and remember those of the latest few.

        One number for all the others is enough for their revisions to grow: it is never less than any they had.
        """
        self._last_absent_revision = next_revision(self._last_absent_revision, now.unix_us)
        self._absent[mesh_id] = self._last_absent_revision
        if len(self._absent) > _ABSENT_REMEMBERED:
            del self._absent[next(iter(self._absent))]
        return self._last_absent_revision

    def _due(self, now: Instant) -> bool:
        return bool(self._reminders) and self._reminders[0][0] <= now.monotonic_us

    def _answer_reminder(self, now: Instant) -> None:
        due_us, mesh_id = heapq.heappop(self._reminders)
        entry = self._entries.get(mesh_id)
        if entry is None or entry.reminder_us != due_us:
            return
        if entry.ends_us <= now.monotonic_us:
            self._expire(mesh_id, now)
        else:
            entry.reminder_us = entry.ends_us
            heapq.heappush(self._reminders, (entry.ends_us, mesh_id))

    def _drop_spare_reminders(self) -> None:
        if len(self._reminders) > 2 * len(self._entries) + _SPARE_REMINDERS:
            self._reminders = [
                (entry.reminder_us, mesh_id) for mesh_id, entry in self._entries.items()
            ]
            heapq.heapify(self._reminders)


def _ignore(_event: WatchEvent) -> None:
    """Stand in for a listener where nobody listens."""
