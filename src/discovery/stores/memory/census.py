"""Which leases there are: how many of each kind, and whose."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from discovery.models import Counts, Lease
from discovery.stores.base import Quotas
from discovery.stores.memory.reminders import Ending
from discovery.stores.memory.roster import Roster


@dataclass(slots=True, eq=False)
class Entry(Ending):
    """A lease; the rest is its keepers'."""

    lease: Lease
    block: int = field(init=False)


class Census:
    """Follows which leases come and go. A renewal is nothing to it, unless another owner makes it."""

    def __init__(self) -> None:
        self._colonies = Roster[Entry]()
        self._agents = Roster[Entry]()
        self._owned = Counter[str]()

    def add(self, entry: Entry) -> None:
        """Take in a lease that was granted."""
        lease = entry.lease
        (self._agents if lease.registration.agent_id else self._colonies).add(entry)
        if lease.owner:
            self._own(lease, 1)

    def remove(self, entry: Entry) -> None:
        """Take out one that is over."""
        lease = entry.lease
        (self._agents if lease.registration.agent_id else self._colonies).remove(entry)
        if lease.owner:
            self._own(lease, -1)

    def passed(self, old: Lease, new: Lease) -> None:
        """Take in that a lease has another owner."""
        self._own(old, -1)
        self._own(new, 1)

    def counts(self) -> Counts:
        """Return how many there are."""
        return Counts(len(self._colonies), len(self._agents))

    def standing(self, owner: str, of_mesh: int) -> Quotas:
        """Return what is held against quotas, given how many agents a mesh has."""
        return Quotas(self._owned[owner], of_mesh, len(self._colonies) + len(self._agents))

    def roster(self, *, agents: bool) -> Roster[Entry]:
        """Return the list of agents, or of colonies."""
        return self._agents if agents else self._colonies

    def _own(self, lease: Lease, change: int) -> None:
        if lease.owner and not lease.registration.agent_id:
            self._owned[lease.owner] += change
            if not self._owned[lease.owner]:
                del self._owned[lease.owner]
