"""Which leases there are: how many of each kind, and whose."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from discovery.models import Counts, Lease, Registration
from discovery.stores.base import Quotas
from discovery.stores.memory.reminders import Ending
from discovery.stores.memory.roster import Roster


@dataclass(slots=True, eq=False)
class Entry(Ending):
    """What is held of a lease; the rest is its keepers'.

    The lease itself is made when somebody asks for it, and kept until it is renewed. Most renewals are followed by
    another before that, and each lease would be one more object that a collection of garbage has to look at.
    """

    registration: Registration
    revision: int
    last_seen_us: int
    expires_at_us: int
    granted_at_us: int
    owner: str
    block: int = field(init=False)
    kept: Lease | None = field(init=False, default=None)

    @property
    def lease(self) -> Lease:
        """The lease: the same object until it is renewed."""
        if self.kept is None:
            self.kept = self.as_lease()
        return self.kept

    def as_lease(self) -> Lease:
        """Return the lease for whoever does not ask again."""
        return Lease(
            self.registration,
            self.revision,
            self.last_seen_us,
            self.expires_at_us,
            self.granted_at_us,
            self.owner,
        )


class Census:
    """Follows which leases come and go. A renewal is nothing to it, unless another owner makes it."""

    def __init__(self) -> None:
        self._colonies = Roster[Entry]()
        self._agents = Roster[Entry]()
        self._owned = Counter[str]()

    def add(self, entry: Entry) -> None:
        """Take in a lease that was granted."""
        (self._agents if entry.registration.agent_id else self._colonies).add(entry)
        self._own(entry, 1)

    def remove(self, entry: Entry) -> None:
        """Take out one that is over."""
        (self._agents if entry.registration.agent_id else self._colonies).remove(entry)
        self._own(entry, -1)

    def pass_on(self, entry: Entry, owner: str) -> None:
        """Give a lease another owner."""
        self._own(entry, -1)
        entry.owner = owner
        self._own(entry, 1)

    def counts(self) -> Counts:
        """Return how many there are."""
        return Counts(len(self._colonies), len(self._agents))

    def standing(self, owner: str, of_mesh: int) -> Quotas:
        """Return what is held against quotas, given how many agents a mesh has."""
        return Quotas(self._owned[owner], of_mesh, len(self._colonies) + len(self._agents))

    def roster(self, *, agents: bool) -> Roster[Entry]:
        """Return the list of agents, or of colonies."""
        return self._agents if agents else self._colonies

    def _own(self, entry: Entry, change: int) -> None:
        if entry.owner and not entry.registration.agent_id:
            self._owned[entry.owner] += change
            if not self._owned[entry.owner]:
                del self._owned[entry.owner]
