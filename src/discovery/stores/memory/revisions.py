"""The numbers of changes: for each colony a row of its own, for all agents of one mesh another."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field

from discovery.clock import Instant
from discovery.models import Registration, next_revision
from discovery.stores.memory.census import Entry

# How many revisions of what is absent are kept, so that a watcher who comes back is not told again.
_ABSENT_REMEMBERED = 10_000


@dataclass(slots=True)
class Agents:
    """The agents of one mesh that has some."""

    revision: int
    """That of the latest change of any of them."""
    ids: list[str] = field(default_factory=list)
    """In order."""

    def change(self, now: Instant) -> int:
        """Return the revision of another change."""
        self.revision = next_revision(self.revision, now.unix_us)
        return self.revision

    def page(self, after: str, limit: int) -> tuple[list[str], bool]:
        """Return up to `limit` ids behind `after`, and whether there are more."""
        start = bisect_right(self.ids, after)
        return self.ids[start : start + limit], start + limit < len(self.ids)


class Revisions:
    """Knows the latest revision of everything that is there, and of the latest few that are not."""

    def __init__(self) -> None:
        self.agents: dict[str, Agents] = {}
        """By mesh_id."""
        self._last_absent = 0
        # By mesh_id for colonies; "mesh_id/" stands for all agents of a mesh. Not a dict, whose first item must be
        # looked for behind all that were deleted before it.
        self._absent: OrderedDict[str, int] = OrderedDict()

    def granted(self, new: Registration, now: Instant) -> int:
        """Return the revision at which there is a colony or agent that was not there."""
        if new.agent_id:
            return self._join(new, now)
        self._absent.pop(new.mesh_id, None)
        return next_revision(self._last_absent, now.unix_us)

    def changed(self, entry: Entry, now: Instant) -> int:
        """Return the revision at which what `entry` says is changed."""
        whose = entry.registration
        if whose.agent_id:
            return self.agents[whose.mesh_id].change(now)
        return next_revision(entry.revision, now.unix_us)

    def ended(self, entry: Entry, now: Instant) -> int:
        """Return the revision at which there is no longer the one that `entry` is of."""
        whose = entry.registration
        if whose.agent_id:
            return self._part(whose, now)
        return self._note_absence(whose.mesh_id, now, entry.revision)

    def of_absent(self, mesh_id: str, now: Instant) -> int:
        """Return the revision of a mesh that has no colony."""
        return self._absence(mesh_id, now)

    def of_agents(self, mesh_id: str, now: Instant) -> int:
        """Return the revision of the agents of a mesh, whether there are any or not."""
        agents = self.agents.get(mesh_id)
        return agents.revision if agents else self._absence(f"{mesh_id}/", now)

    def agents_of(self, mesh_id: str) -> int:
        """Return how many agents a mesh has."""
        return len(self.agents[mesh_id].ids) if mesh_id in self.agents else 0

    def _join(self, agent: Registration, now: Instant) -> int:
        if agent.mesh_id not in self.agents:
            self._absent.pop(f"{agent.mesh_id}/", None)
            self.agents[agent.mesh_id] = Agents(self._last_absent)
        agents = self.agents[agent.mesh_id]
        insort(agents.ids, agent.agent_id)
        return agents.change(now)

    def _part(self, agent: Registration, now: Instant) -> int:
        agents = self.agents[agent.mesh_id]
        del agents.ids[bisect_left(agents.ids, agent.agent_id)]
        if agents.ids:
            return agents.change(now)
        del self.agents[agent.mesh_id]
        return self._note_absence(f"{agent.mesh_id}/", now, agents.revision)

    def _absence(self, name: str, now: Instant) -> int:
        return self._absent.get(name) or self._note_absence(name, now)

    def _note_absence(self, name: str, now: Instant, last: int = 0) -> int:
        """Give what is absent, and was at the revision `last`, another one, and remember those of the latest few.

        One number for all the others is enough for their revisions to grow: it is never less than any they had.
        """
        revision = next_revision(max(self._last_absent, last), now.unix_us)
        self._last_absent = self._absent[name] = revision
        if len(self._absent) > _ABSENT_REMEMBERED:
            self._absent.popitem(last=False)
        return revision
