"""The contract on `leases`: all that is registered, page by page, while it comes and goes."""

from __future__ import annotations

import pytest

from discovery.models import Lease
from tests.stores.rigs import TTL, Rig
from tests.support import registration


@pytest.fixture(params=["", "agent-1"], ids=["colony", "agent"])
def agent_id(request: pytest.FixtureRequest) -> str:
    """All of this holds for a colony and for an agent."""
    name: str = request.param
    return name


async def _fill(store: Rig, number: int, name: str = "mesh", ttl: int = TTL) -> list[Lease]:
    wanted = [registration(mesh_id=f"{name}-{n}") for n in range(number)]
    return [(await store.register(one, ttl)).lease for one in wanted]


async def _all(store: Rig, prefix: str = "", limit: int = 100) -> list[Lease]:
    found: list[Lease] = []
    page = await store.leases(prefix, limit=limit)
    found += page.leases
    while page.after:
        page = await store.leases(prefix, page.after, limit)
        found += page.leases
    return found


def _names(leases: list[Lease]) -> list[str]:
    return sorted({lease.registration.mesh_id for lease in leases})


async def test_where_nothing_is_registered_one_page_is_all_and_empty(store: Rig) -> None:
    page = await store.leases()

    assert page.leases == ()
    assert page.after == ""


@pytest.mark.parametrize("limit", [1, 7, 40, 1000])
async def test_every_lease_is_listed(store: Rig, limit: int) -> None:
    leases = await _fill(store, 40)

    found = await _all(store, limit=limit)

    assert _names(found) == _names(leases)
    assert all(lease in leases for lease in found)


async def test_each_kind_is_listed_alone(store: Rig) -> None:
    await store.register(registration(mesh_id="m"))
    other = not store.agent_id
    await store.register(registration(mesh_id="n", agent_id="other" if other else "x"))

    for agents in (True, False):
        page = await store.leases(agents=agents)
        assert all(bool(lease.registration.agent_id) is agents for lease in page.leases)
    assert "m" in _names(await _all(store))


async def test_what_has_ended_is_not_listed_and_what_was_renewed_is(store: Rig) -> None:
    await _fill(store, 5, "ends", ttl=10)
    await _fill(store, 5, "stays", ttl=10)
    await store.advance(9)
    await _fill(store, 5, "stays", ttl=10)
    await store.advance(1)

    assert _names(await _all(store)) == [f"stays-{n}" for n in range(5)]


@pytest.mark.parametrize(
    "prefix, found",
    [
        ("", ["a-0", "a-1", "a.0", "b-0"]),
        ("a", ["a-0", "a-1", "a.0"]),
        ("a-", ["a-0", "a-1"]),
        ("a-0", ["a-0"]),
        ("A", []),
        ("-0", []),
        ("*", []),
        ("?", []),
        ("a?0", []),
        ("[ab]", []),
        ("[^b]", []),
        ("a\\-", []),
        ("\\", []),
        ("a-0/", []),
        ("a-0*", []),
        ("é☂", []),
    ],
)
async def test_a_prefix_is_what_the_mesh_id_begins_with_and_nothing_else(
    store: Rig, prefix: str, found: list[str]
) -> None:
    for mesh_id in ("a-0", "a-1", "a.0", "b-0"):
        await store.register(registration(mesh_id=mesh_id))

    assert _names(await _all(store, prefix)) == found
    assert _names(await _all(store, prefix, limit=1)) == found


async def test_a_page_of_few_looks_at_few(store: Rig) -> None:
    await _fill(store, 400)

    page = await store.leases(limit=10)

    assert page.after
    assert len(page.leases) < 100


async def test_what_stays_is_listed_while_others_come_and_go(store: Rig) -> None:
    stay = await _fill(store, 60, "stays")
    await _fill(store, 60, "goes")
    found: list[Lease] = []
    after, number = "", 0
    while after or not number:
        page = await store.leases(after=after, limit=8)
        found += page.leases
        after = page.after
        for gone in range(10 * number, 10 * number + 10):
            await store.deregister(f"goes-{gone}")
            await store.register(registration(mesh_id=f"comes-{gone}"))
            await store.register(registration(mesh_id=f"stays-{gone % 60}", public_port=number))
        number += 1
        assert number < 1000

    names = {lease.registration.mesh_id for lease in found}
    assert [lease for lease in stay if lease.registration.mesh_id not in names] == []


@pytest.mark.parametrize(
    "after",
    [
        "x",
        "-1",
        "0",
        "00",
        "1.2.3",
        "16.0",
        "99.1",
        "1.99999999999999999999",
        "1.",
        ".1",
        "\u0661",
        " 1",
    ],
)
async def test_a_page_that_begins_nowhere_is_an_error(store: Rig, after: str) -> None:
    await _fill(store, 3)

    with pytest.raises(ValueError, match="cannot begin"):
        await store.leases(after=after)
