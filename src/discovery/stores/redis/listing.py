"""Lists all leases, a step at a time: no command costs the server much, nor its reply this process."""

from __future__ import annotations

import re
from typing import cast

from discovery.models import Lease
from discovery.stores.base import LeasesPage
from discovery.stores.redis.backend import Backend
from discovery.stores.redis.codec import decode_lease
from discovery.stores.redis.shards import Shard

# How many leases are looked at in one step.
_STEP = 100

_PLACE = re.compile(r"([0-9]{1,2})\.([0-9]{1,20})")
_PATTERN = re.compile(rb"([*?\[\]\\^-])")


class Listing:
    """Reads the indexes of ends from one shard to the next, by the server's cursors.

    Those are good for as long as the server is: who is in the middle of a list when another takes over may miss some.
    """

    def __init__(self, backend: Backend, *, agents: bool, prefix: str) -> None:
        """List agents or colonies of the meshes whose ids begin with `prefix`."""
        self._backend = backend
        self._agents = agents
        self._prefix = prefix
        self._pattern = _PATTERN.sub(rb"\\\1", prefix.encode()) + b"*"

    async def page(self, after: str, limit: int) -> LeasesPage:
        """See `leases` of RegistryStore."""
        shard, cursor = _place(after, len(self._backend.shards))
        leases: list[Lease] = []
        while limit > 0 and shard < len(self._backend.shards):
            looked_at, cursor, found = await self._step(shard, cursor, min(limit, _STEP))
            leases += found
            limit -= looked_at
            shard += not cursor
        over = shard == len(self._backend.shards)
        return LeasesPage(tuple(leases), "" if over else f"{shard}.{cursor}")

    async def _step(self, number: int, cursor: int, count: int) -> tuple[int, int, list[Lease]]:
        """Return at how many it looked, as far as that is known, where to go on (0: nowhere), and what it found."""
        shard, server = self._backend.shards[number], self._backend.server(number)
        ends = shard.agents.ends if self._agents else shard.ends
        scan = (b"ZSCAN", ends, cursor, b"MATCH", self._pattern, b"COUNT", count)
        go_on, scores = cast("tuple[bytes, list[bytes]]", await self._backend.ask(server, *scan))
        keys = [_lease_key(shard, name) for name in scores[::2]]
        values = await self._backend.ask(server, b"MGET", *keys) if keys else []
        leases = [decode_lease(value) for value in cast("list[bytes | None]", values) if value]
        found = [one for one in leases if one.registration.mesh_id.startswith(self._prefix)]
        return max(len(keys), count if int(go_on) else 1), int(go_on), found


def _lease_key(shard: Shard, name: bytes) -> bytes:
    mesh_id, _, agent_id = name.partition(b"/")
    return shard.lease(mesh_id, agent_id)


def _place(after: str, shards: int) -> tuple[int, int]:
    """Return which shard to go on with, and at what cursor.

    Raises:
        ValueError: no page has said so.
    """
    found = _PLACE.fullmatch(after or "0.0")
    if found is None or int(found[1]) >= shards or int(found[2]) >= 1 << 64:
        raise ValueError("a page of a list cannot begin there")
    return int(found[1]), int(found[2])
