"""Where a mesh's keys are: 16 shards, each with one hash tag, so that a cluster keeps all of a shard in one slot."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from redis.crc import key_slot

# Where meshes are depends on these, so they never change. Each hashes to the middle of another sixteenth of a cluster's
# 16384 slots: nodes hold contiguous ranges, so each of N nodes gets about a Nth of the shards.
_TAGS = (
    "18",
    "4a9",
    "1a",
    "223",
    "19",
    "2",
    "64",
    "222",
    "21a",
    "375",
    "2d3",
    "49",
    "273",
    "22",
    "2ba",
    "48",
)


SLOTS = tuple(key_slot(tag.encode()) for tag in _TAGS)
"""The slots of a cluster that have shards, in the order of the shards."""


@dataclass(frozen=True, slots=True)
class AgentKeys:
    """The names of those keys of a shard that are for agents. Nothing of a colony's begins with `prefix`."""

    prefix: bytes
    ends: bytes = field(init=False)
    """A sorted set: "mesh_id/agent_id" by the end of that agent's live lease, in microseconds."""
    absences: bytes = field(init=False)
    """A sorted set: mesh_id by the last revision of its agents, which counts when there are none."""
    revisions: bytes = field(init=False)
    """A sorted set: mesh_id by the last revision of its agents, while there are any."""

    def __post_init__(self) -> None:
        for name in ("ends", "absences", "revisions"):
            object.__setattr__(self, name, b"%b:%b" % (self.prefix, name.encode()))

    def leases(self, mesh_id: bytes) -> bytes:
        """Return what the keys of the leases of a mesh's agents begin with; the agent_id follows."""
        return b"%b:lease:%b/" % (self.prefix, mesh_id)

    def reserved(self, mesh_id: bytes) -> bytes:
        """Return what the keys of the reservations of a mesh's agents begin with; the agent_id follows."""
        return b"%b:reserved:%b/" % (self.prefix, mesh_id)

    def index(self, mesh_id: bytes) -> bytes:
        """Return the key of a sorted set of a mesh's agents, all with the same score: in the order of their bytes."""
        return b"%b:of:%b" % (self.prefix, mesh_id)

    def shared(self, events: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """Return what the scripts on agents take as KEYS, whichever the mesh, given the key of the events."""
        return self.ends, self.absences, events, self.revisions


@dataclass(frozen=True, slots=True)
class Shard:
    """The names of one shard's keys. `prefix` is what they begin with, hash tag and all."""

    prefix: bytes
    slot: int
    """Where a cluster keeps it."""
    ends: bytes = field(init=False)
    """A sorted set: mesh_id by the end of its colony's live lease, in microseconds."""
    absences: bytes = field(init=False)
    """A sorted set: mesh_id by the revision of its colony's absence, present or to come."""
    events: bytes = field(init=False)
    """A capped stream of changes."""
    agents: AgentKeys = field(init=False)

    def __post_init__(self) -> None:
        for name in ("ends", "absences", "events"):
            object.__setattr__(self, name, b"%b:%b" % (self.prefix, name.encode()))
        object.__setattr__(self, "agents", AgentKeys(self.prefix + b":agents"))

    def lease(self, mesh_id: bytes, agent_id: bytes = b"") -> bytes:
        """Return the key that lives as long as the lease of the colony of `mesh_id`, or of its agent."""
        if agent_id:
            return self.agents.leases(mesh_id) + agent_id
        return b"%b:lease:%b" % (self.prefix, mesh_id)

    def reserved(self, mesh_id: bytes, agent_id: bytes = b"") -> bytes:
        """Return the key that lives as long as the name is reserved."""
        if agent_id:
            return self.agents.reserved(mesh_id) + agent_id
        return b"%b:reserved:%b" % (self.prefix, mesh_id)

    def owned(self, owner: bytes = b"") -> bytes:
        """Return the key of a sorted set: the mesh_id of each colony of `owner` by the end of its lease.

        It lives as long as the last of these leases, and may hold some that have ended.
        """
        return b"%b:owned:%b" % (self.prefix, owner)

    def once(self, name: bytes) -> bytes:
        """Return the key of what is set once, which is in the shard of a mesh of that name."""
        return b"%b:once:%b" % (self.prefix, name)

    def keys(self, mesh_id: bytes, agent_id: bytes = b"") -> tuple[bytes, ...]:
        """Return what the scripts that deal with one lease take as KEYS."""
        own, agents = (self.lease(mesh_id, agent_id), self.reserved(mesh_id, agent_id)), self.agents
        if agent_id:
            return *own, *agents.shared(self.events), agents.index(mesh_id)
        return *own, self.ends, self.absences, self.events

    def page_keys(self, mesh_id: bytes) -> tuple[bytes, ...]:
        """Return what the script that lists a mesh's agents takes as KEYS."""
        agents = self.agents
        return *agents.shared(self.events), agents.index(b""), agents.leases(mesh_id)

    def sweep_keys(self) -> tuple[bytes, ...]:
        """Return what the script that reports expiries takes as KEYS."""
        agents = self.agents
        return (
            *(self.events, self.ends, self.absences),
            *(agents.ends, agents.absences, agents.revisions, agents.index(b"")),
        )


def make_shards(prefix: str) -> tuple[Shard, ...]:
    """Return every shard under the key prefix `prefix`."""
    names = (f"{prefix}:{{{tag}}}".encode() for tag in _TAGS)
    return tuple(map(Shard, names, SLOTS))


def shard_number(mesh_id: bytes) -> int:
    """Return in which shard a mesh is."""
    return zlib.crc32(mesh_id) % len(_TAGS)
