"""How many leases there are, and how many of those that quotas are about."""

from __future__ import annotations

import asyncio

from discovery.models import Counts, Registration
from discovery.stores.base import Quotas
from discovery.stores.redis.backend import Backend, Server
from discovery.stores.redis.codec import encode_owner

# How many ends are noted in one go before the agents of a mesh are counted.
_BATCH = 1000


async def there_are_against(
    most: Quotas, backend: Backend, registration: Registration, owner: str
) -> Quotas:
    """Return the numbers that matter to `registration`: those that `most` limits."""
    mesh, word = registration.mesh_id.encode(), encode_owner(owner)
    return Quotas(
        await _of_owner(backend, word) if most.of_owner else 0,
        await _of_mesh(backend, mesh, most.of_mesh) if most.of_mesh else 0,
        await _in_all(backend) if most.in_all else 0,
    )


async def _of_owner(backend: Backend, owner: bytes) -> int:
    async def count(server: Server) -> int:
        owned = [shard.owned(owner) for shard in server.shards]
        [number] = await backend.run(server, "owned", owned)
        return int(number)

    return sum(await asyncio.gather(*map(count, backend.servers)))


async def _of_mesh(backend: Backend, mesh_id: bytes, enough: int) -> int:
    shard, server = backend.place(mesh_id)
    keys, more = shard.page_keys(mesh_id), 1
    while more:
        joined, more = await backend.run(server, "joined", keys, mesh_id, enough, _BATCH)
    return int(joined)


async def _in_all(backend: Backend) -> int:
    return sum(await count_leases(backend))


async def count_leases(backend: Backend) -> Counts:
    """Return how many live leases there are on all servers."""

    async def count(server: Server) -> list[int]:
        ends = [key for shard in server.shards for key in (shard.ends, shard.agents.ends)]
        return await backend.run(server, "count", ends)

    counts = await asyncio.gather(*map(count, backend.servers))
    return Counts(*map(sum, zip(*counts, strict=True)))
