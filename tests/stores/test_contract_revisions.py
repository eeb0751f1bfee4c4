"""The contract on revisions: they grow with every change of a mesh, stay with none, and never come back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from discovery.models import Endpoint, PublicEndpoint
from tests.stores.rigs import TTL, Rig
from tests.support import OTHER_KEY, registration

DAY = 86_400.0

CHANGES: list[dict[str, Any]] = [
    {"endpoints": ("192.0.2.9:1",)},
    {"endpoints": tuple(reversed(registration().endpoints))},
    {"metadata": {}},
    {"metadata": {"region": "eu-east"}},
    {"metadata": {"region": "eu-west", "more": ""}},
    {"mesh_ipv4": "10.0.0.1"},
    {"mesh_ipv6": "fd00::1"},
    {"connect_port": 9000},
    {"public_port": 8443},
    {"observed_endpoint": Endpoint("198.51.100.7", 41820)},
    {"public_endpoint": PublicEndpoint()},
]


@pytest.fixture(params=["", "agent-1"], ids=["colony", "agent"])
def agent_id(request: pytest.FixtureRequest) -> str:
    """All of this holds for a colony and for an agent."""
    name: str = request.param
    return name


async def _revision(store: Rig, **changes: Any) -> int:
    return (await store.register(registration(**changes))).lease.revision


async def test_the_first_revision_is_not_before_the_present(store: Rig) -> None:
    assert await _revision(store) >= store.now().unix_us


@pytest.mark.parametrize("change", CHANGES, ids=str)
async def test_each_change_of_content_grows_the_revision(
    store: Rig, change: dict[str, Any]
) -> None:
    before = await _revision(store)
    changed = await _revision(store, **change)
    back = await _revision(store)

    assert before < changed < back
    found = await store.lookup()
    assert found is not None
    assert found.revision == back


async def test_a_renewal_that_changes_nothing_keeps_the_revision(store: Rig) -> None:
    before = await _revision(store)
    await store.advance(100)

    assert await _revision(store) == before


async def test_the_order_of_metadata_is_no_content(store: Rig) -> None:
    before = await _revision(store, metadata={"a": "1", "b": "2"})

    assert await _revision(store, metadata={"b": "2", "a": "1"}) == before


async def test_the_length_of_the_lease_is_no_content(store: Rig) -> None:
    short = await store.register(registration(), ttl=10)
    long = await store.register(registration(), ttl=TTL)

    assert long.lease.expires_at_us > short.lease.expires_at_us
    assert long.lease.revision == short.lease.revision


@pytest.mark.parametrize("step", [-DAY, 0.0, DAY])
async def test_revisions_grow_with_changes_whatever_the_wall_clock_says(
    store: Rig, step: float
) -> None:
    before = await _revision(store)
    store.step_wall(step)

    assert await _revision(store, public_port=1) > before


@pytest.mark.parametrize("pubkey", [registration().pubkey, OTHER_KEY], ids=["same", "other"])
@pytest.mark.parametrize("step", [-DAY, 0.0, DAY])
async def test_revisions_grow_across_a_deregistration(store: Rig, step: float, pubkey: str) -> None:
    before = await _revision(store)
    store.step_wall(step)
    await store.deregister()

    assert await _revision(store, pubkey=pubkey) > before


@pytest.mark.parametrize("pubkey", [registration().pubkey, OTHER_KEY], ids=["same", "other"])
@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("step", [-DAY, 0.0, DAY])
async def test_revisions_grow_across_an_expiry(
    store: Rig, step: float, swept: bool, pubkey: str
) -> None:
    before = await _revision(store)
    await store.advance(TTL)
    store.step_wall(step)
    if swept:
        await store.sweep_all()

    assert await _revision(store, pubkey=pubkey) > before


async def test_revisions_grow_beyond_those_before_the_wall_clock_was_set_right(store: Rig) -> None:
    store.step_wall(DAY)
    ahead = await _revision(store)
    await store.deregister()
    store.step_wall(-DAY)

    behind = await _revision(store)
    await store.deregister()
    await store.advance(2 * DAY)

    assert ahead < behind < await _revision(store)


async def test_revisions_grow_while_time_stands_still(store: Rig) -> None:
    revisions = []
    for port in range(10):
        revisions.append(await _revision(store, public_port=port))
        if port % 3 == 0:
            await store.deregister()

    assert revisions == sorted(set(revisions))


async def test_each_mesh_has_its_own_revision(store: Rig) -> None:
    before = await _revision(store)
    await store.register(replace(registration(), mesh_id="mesh-2"))
    await store.deregister("mesh-2")
    await store.advance(1)

    assert await _revision(store) == before
