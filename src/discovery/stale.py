"""What a replica last read, for lookups while the store is away: stale rather than blind, where an operator says so."""

from __future__ import annotations

from collections import OrderedDict

from discovery.clock import MICROSECONDS, Instant
from discovery.models import Found, Lease

# How many meshes are remembered: the memory of a few hundred bytes each, for those that agents ask for.
_ROOM = 10_000


class LastRead:
    """Remembers the lease of each mesh that was read, for `longest` seconds; the oldest go when there are too many."""

    def __init__(self, longest: int, room: int = _ROOM) -> None:
        """Remember nothing if `longest` is 0."""
        self._longest_us = longest * MICROSECONDS
        self.remembers = bool(longest)
        """Whether it is worth telling it anything."""
        self._room = room
        self._read: OrderedDict[str, tuple[Lease, int]] = OrderedDict()

    def note(self, mesh_id: str, lease: Lease | None, now: Instant) -> None:
        """Remember what the store said; None is that there is no lease."""
        if not self.remembers:
            return
        self._read.pop(mesh_id, None)
        if lease is None:
            return
        self._read[mesh_id] = (lease, now.monotonic_us)
        if len(self._read) > self._room:
            self._read.popitem(last=False)

    def recall(self, mesh_id: str, now: Instant) -> Found | None:
        """Return what was read at most `longest` seconds ago, and how long ago that was; None if there is nothing.

        Its lease may have ended meanwhile, or been renewed: nobody can tell.
        """
        lease, read_us = self._read.get(mesh_id, (None, 0))
        age_us = now.monotonic_us - read_us
        if lease is None or age_us > self._longest_us:
            return None
        return Found(lease, staleness=age_us // MICROSECONDS)
