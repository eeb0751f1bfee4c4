"""Which mesh is in which shard, and which shard in which slot of a cluster."""

from __future__ import annotations

from collections import Counter

import pytest
from redis.crc import key_slot

from discovery.stores.redis.shards import SLOTS, make_shards, shard_number

SHARDS = make_shards("prefix")


def test_every_key_of_a_shard_is_in_one_slot() -> None:
    for shard in SHARDS:
        keys = {*shard.keys(b"one-mesh"), *shard.keys(b"another.mesh_"), shard.events}

        assert {key_slot(key) for key in keys} == {shard.slot}


@pytest.mark.parametrize("nodes", range(1, 17))
def test_nodes_of_a_cluster_get_equal_shares(nodes: int) -> None:
    shares = Counter(slot * nodes // 16384 for slot in SLOTS)

    assert len(shares) == nodes
    assert max(shares.values()) - min(shares.values()) <= 1


def test_meshes_are_spread_evenly() -> None:
    shares = Counter(shard_number(f"mesh-{number}".encode()) for number in range(16_000))

    assert len(shares) == 16
    assert min(shares.values()) > 800


def test_a_mesh_stays_where_it_is() -> None:
    """Replicas of two versions must agree on it."""
    assert [shard_number(name) for name in (b"mesh-1", b"a", b"my-mesh.example")] == [5, 3, 8]
    assert SHARDS[5].lease(b"mesh-1") == b"prefix:{2}:lease:mesh-1"
