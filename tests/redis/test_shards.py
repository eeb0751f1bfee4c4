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
        keys |= {*shard.keys(b"one-mesh", b"agent"), *shard.page_keys(b"one-mesh")}
        keys |= {*shard.sweep_keys(), shard.owned(b"an-owner"), shard.once(b"a-name")}

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
    assert SHARDS[5].lease(b"mesh-1", b"a") == b"prefix:{2}:agents:lease:mesh-1/a"
    assert SHARDS[5].reserved(b"mesh-1") == b"prefix:{2}:reserved:mesh-1"
    assert SHARDS[5].reserved(b"mesh-1", b"a") == b"prefix:{2}:agents:reserved:mesh-1/a"
    assert SHARDS[5].owned(b"an-owner") == b"prefix:{2}:owned:an-owner"


def test_an_agent_is_where_the_script_that_lists_agents_looks_for_it() -> None:
    *_, revisions, index = SHARDS[0].keys(b"mesh", b"agent")
    *page_keys, indexes, leases = SHARDS[0].page_keys(b"mesh")

    assert page_keys[-1] == revisions
    assert indexes + b"mesh" == index
    assert leases + b"agent" == SHARDS[0].lease(b"mesh", b"agent")
    assert SHARDS[0].sweep_keys()[-1] + b"mesh" == index


def test_no_key_of_an_agent_is_a_colonys() -> None:
    colony = {*SHARDS[0].keys(b"agents"), *SHARDS[0].keys(b"agents:lease:m")}
    agent = {*SHARDS[0].keys(b"m", b"a"), *SHARDS[0].page_keys(b"m")}

    assert colony & agent == {SHARDS[0].events}
