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
class Shard:
    """The names of one shard's keys. `prefix` is what they begin with, hash tag and all."""

    prefix: bytes
    slot: int
    """Where a cluster keeps it."""
    ends: bytes = field(init=False)
    """A sorted set: mesh_id by the end of its live lease, in microseconds."""
    absences: bytes = field(init=False)
    """A sorted set: mesh_id by the revision of its absence, present or to come."""
    events: bytes = field(init=False)
    """A capped stream of changes."""

    def __post_init__(self) -> None:
        for name in ("ends", "absences", "events"):
            object.__setattr__(self, name, b"%b:%b" % (self.prefix, name.encode()))

    def lease(self, mesh_id: bytes) -> bytes:
        """Return the key that lives as long as the lease on `mesh_id`."""
        return b"%b:lease:%b" % (self.prefix, mesh_id)

    def keys(self, mesh_id: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """Return what the scripts that deal with one mesh take as KEYS."""
        return self.lease(mesh_id), self.ends, self.absences, self.events


def make_shards(prefix: str) -> tuple[Shard, ...]:
    """Return every shard under the key prefix `prefix`."""
    names = (f"{prefix}:{{{tag}}}".encode() for tag in _TAGS)
    return tuple(map(Shard, names, SLOTS))


def shard_number(mesh_id: bytes) -> int:
    """Return in which shard a mesh is."""
    return zlib.crc32(mesh_id) % len(_TAGS)
