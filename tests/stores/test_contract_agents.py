"""The contract on agents: a namespace of their own in each mesh, and one row of revisions for all of a mesh."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from discovery.errors import MeshIdTakenError, NotOwnerError
from discovery.models import Counts, WatchEvent
from tests.stores.rigs import TTL, Rig
from tests.support import MESH, OTHER_KEY, registration

DAY = 86_400.0

Change = Callable[[Rig], Awaitable[object]]


async def _grant(store: Rig) -> None:
    await store.register(registration(agent_id="new"))


async def _change(store: Rig) -> None:
    await store.register(registration(agent_id="a", public_port=1))


async def _leave(store: Rig) -> None:
    await store.deregister(agent_id="a")


async def _expire(store: Rig) -> None:
    await store.register(registration(agent_id="b"), ttl=10)
    await store.advance(10)
    await store.sweep_all()


async def _all_leave(store: Rig) -> None:
    for agent_id in ("a", "b", "c"):
        await store.deregister(agent_id=agent_id)


async def _all_expire(store: Rig) -> None:
    await store.advance(TTL)
    await store.sweep_all()


EVERY_CHANGE = [_grant, _change, _leave, _expire, _all_leave, _all_expire]


async def _three(store: Rig) -> list[int]:
    """Register agents a, b and c (b for ten seconds); return their revisions."""
    ttls = {"a": TTL, "b": 10, "c": TTL}
    grants = [await store.register(registration(agent_id=a), ttl) for a, ttl in ttls.items()]
    return [grant.lease.revision for grant in grants]


# -- Namespaces -----------------------------------------------------------------------------------


async def test_a_colony_and_agents_of_the_same_names_are_apart(store: Rig) -> None:
    names = [("m", ""), ("m", "m"), ("m", "n"), ("n", ""), ("n", "m")]
    grants = [
        await store.register(registration(mesh_id=mesh, agent_id=agent, public_port=n))
        for n, (mesh, agent) in enumerate(names, 1)
    ]

    assert not any(grant.renewed for grant in grants)
    found = [await store.lookup(mesh, agent) for mesh, agent in names]
    assert found == [grant.lease for grant in grants]
    assert await store.counts() == Counts(2, 3)
    assert (await store.agents("m")).leases == (grants[1].lease, grants[2].lease)
    assert (await store.agents("n")).leases == (grants[4].lease,)


async def test_an_agent_keeps_nobody_out_but_those_of_its_name(store: Rig) -> None:
    await store.register(registration(agent_id="a"))

    await store.register(registration(pubkey=OTHER_KEY))
    await store.register(registration(pubkey=OTHER_KEY, agent_id="b"))
    await store.register(registration(pubkey=OTHER_KEY, agent_id="a", mesh_id="mesh-2"))
    with pytest.raises(MeshIdTakenError) as refusal:
        await store.register(registration(pubkey=OTHER_KEY, agent_id="a"))

    assert refusal.value.agent_id == "a"


async def test_leaving_ends_no_lease_but_the_one_that_is_named(store: Rig) -> None:
    await store.register(registration())
    await store.register(registration(agent_id="a"))
    await store.register(registration(agent_id="b"))

    assert await store.deregister() is True
    assert [lease.registration.agent_id for lease in (await store.agents()).leases] == ["a", "b"]
    assert await store.deregister(agent_id="a") is True
    assert await store.lookup(agent_id="a") is None
    assert await store.lookup(agent_id="b") is not None
    assert await store.deregister() is False


async def test_a_colonys_key_does_not_own_its_agents(store: Rig) -> None:
    await store.register(registration())
    await store.register(registration(pubkey=OTHER_KEY, agent_id="a"))

    with pytest.raises(NotOwnerError) as refusal:
        await store.deregister(agent_id="a")

    assert refusal.value.agent_id == "a"


async def test_the_state_of_a_colony_is_not_that_of_its_agents(store: Rig) -> None:
    absent = await store.current()
    await store.register(registration(agent_id="a"))
    await store.register(registration(agent_id=MESH))

    assert await store.current() == absent
    assert await store.lookup() is None


async def test_a_colony_that_comes_changes_or_leaves_is_no_change_of_its_agents(store: Rig) -> None:
    await _three(store)
    page = await store.agents()

    await store.register(registration(), ttl=10)
    await store.register(registration(public_port=1))
    await store.deregister()

    assert await store.agents() == page


async def test_the_events_say_who_it_was(store: Rig) -> None:
    colony = (await store.register(registration())).lease
    agent = (await store.register(registration(agent_id="a"))).lease
    await store.deregister(agent_id="a")

    registered, joined, left = await store.seen()
    assert registered == WatchEvent(MESH, colony.revision, colony)
    assert joined == WatchEvent(MESH, agent.revision, agent, "a")
    assert left == WatchEvent(MESH, left.revision, None, "a")


async def test_a_sweep_counts_agents_towards_its_limit(store: Rig) -> None:
    for number in range(2):
        await store.register(registration(mesh_id=f"mesh-{number}"))
        for agent_id in ("a", "b"):
            await store.register(registration(mesh_id=f"mesh-{number}", agent_id=agent_id))
    await store.advance(TTL)

    noticed = []
    for _ in range(3):
        before = len(await store.seen())
        noticed.append((await store.sweep(limit=2), len(await store.seen()) - before))

    assert noticed == [(True, 2), (True, 2), (False, 2)]
    assert store.store.expired == 6
    assert await store.counts() == Counts(0, 0)


# -- One row of revisions -------------------------------------------------------------------------


async def test_agents_of_a_mesh_have_growing_revisions(store: Rig) -> None:
    revisions = await _three(store)

    assert revisions == sorted(set(revisions))
    assert (await store.agents()).revision == revisions[-1]


@pytest.mark.parametrize("step", [-DAY, 0.0, DAY])
@pytest.mark.parametrize("change", EVERY_CHANGE)
async def test_each_change_of_any_agent_grows_the_revision_of_all(
    store: Rig, change: Change, step: float
) -> None:
    await _three(store)
    before = await store.agents()
    store.step_wall(step)

    await change(store)

    after = (await store.agents()).revision
    assert before.revision < after
    assert after == (await store.seen())[-1].revision
    await store.register(registration(agent_id="c", connect_port=1))
    assert after < (await store.agents()).revision


async def test_a_renewal_keeps_the_lease_and_the_page_at_their_revisions(store: Rig) -> None:
    first, _, last = await _three(store)
    await store.advance(5)

    renewal = await store.register(registration(agent_id="a"))

    assert renewal.lease.revision == first
    assert (await store.agents()).revision == last


async def test_a_change_after_a_renewal_goes_beyond_all_others(store: Rig) -> None:
    *_, last = await _three(store)
    await store.register(registration(agent_id="a"))

    change = await store.register(registration(agent_id="a", public_port=1))

    assert change.lease.revision > last


async def test_events_of_all_agents_of_a_mesh_come_in_the_order_of_their_revisions(
    store: Rig,
) -> None:
    for step in (0, -100, 50, -100):
        store.step_wall(step)
        await _three(store)
        await store.register(registration(agent_id="a", public_port=1))
        await store.advance(10)
        await store.register(registration(agent_id="b", pubkey=OTHER_KEY), ttl=10)
        await store.deregister(agent_id="c")
        await store.advance(TTL)
        await store.agents(limit=1)
        await store.sweep_all()

    seen = await store.seen()
    assert len(seen) == 4 * 9
    assert all(before.revision < after.revision for before, after in pairwise(seen))


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("gone", [_all_leave, _all_expire])
async def test_revisions_grow_beyond_those_before_all_were_gone(
    store: Rig, gone: Change, asked: bool
) -> None:
    await _three(store)
    await gone(store)
    absent = (await store.seen())[-1].revision
    if asked:
        assert (await store.agents()).revision == absent

    assert (await store.register(registration(agent_id="z"))).lease.revision > absent


async def test_the_revision_of_no_agents_stays_for_a_while(store: Rig) -> None:
    await store.register(registration(mesh_id="left", agent_id="a"))
    await store.deregister("left", agent_id="a")
    before = [await store.agents(mesh_id) for mesh_id in ("left", "never")]
    await store.advance(1)
    await store.sweep_all()

    assert [await store.agents(mesh_id) for mesh_id in ("left", "never")] == before
    assert all(page.revision > 0 and page.leases == () for page in before)


async def test_a_first_agent_has_a_greater_revision_than_no_agents_before(store: Rig) -> None:
    nobody = await store.agents()

    assert (await store.register(registration(agent_id="a"))).lease.revision > nobody.revision


async def test_other_meshes_agents_are_no_change(store: Rig) -> None:
    await _three(store)
    page = await store.agents()
    for mesh_id in ("mesh-2", "mesh-", "mesh-1.a", "mesh-10"):
        await store.register(registration(mesh_id=mesh_id, agent_id="a"))
        await store.deregister(mesh_id, agent_id="a")

    assert await store.agents() == page


# -- Pages ----------------------------------------------------------------------------------------


async def _agents(store: Rig, *agent_ids: str, mesh_id: str = MESH, ttl: int = TTL) -> None:
    for agent_id in agent_ids:
        await store.register(registration(mesh_id=mesh_id, agent_id=agent_id), ttl)


async def _listed(store: Rig, limit: int) -> list[str]:
    return [agent_id for page in await _pages(store, limit) for agent_id in page]


async def _pages(store: Rig, limit: int, mesh_id: str = MESH) -> list[list[str]]:
    pages, after = [], ""
    while True:
        page = await store.agents(mesh_id, after, limit)
        pages.append([lease.registration.agent_id for lease in page.leases])
        if not (after := page.after):
            return pages


async def test_a_mesh_without_agents_is_one_empty_page(store: Rig) -> None:
    await store.register(registration())

    page = await store.agents()
    assert (page.leases, page.after) == ((), "")


async def test_agents_come_in_the_order_of_code_points_however_they_came(store: Rig) -> None:
    agent_ids = ["b", "a-b", "A", "a", "a.b", "9", "aa", "a_b", "10", "a0", "Z", "b" * 253]
    await _agents(store, *agent_ids)

    assert await _pages(store, 100) == [sorted(agent_ids)]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
async def test_each_agent_is_in_exactly_one_page(store: Rig, limit: int) -> None:
    agent_ids = sorted(f"agent-{number}" for number in range(7))
    await _agents(store, *agent_ids)

    pages = await _pages(store, limit)

    assert pages == [agent_ids[start : start + limit] for start in range(0, 7, limit)]


async def test_a_page_holds_the_whole_leases(store: Rig) -> None:
    await _agents(store, "a", "b")
    await store.advance(1)
    renewed = (await store.register(registration(agent_id="a"))).lease

    page = await store.agents()

    assert page.leases == (renewed, await store.lookup(agent_id="b"))


@pytest.mark.parametrize(
    "after, first", [("a", "c"), ("b", "c"), ("", "a"), ("c", None), ("~", None), ("A", "a")]
)
async def test_a_page_begins_behind_a_name_that_need_not_exist(
    store: Rig, after: str, first: str | None
) -> None:
    await _agents(store, "a", "c")

    page = await store.agents(after=after)

    assert next((lease.registration.agent_id for lease in page.leases), None) == first
    assert page.after == ""


@pytest.mark.parametrize("mesh_id", ["a", "a-b", "a.b", "a0", "A", "ab"])
async def test_meshes_whose_names_begin_alike_are_apart(store: Rig, mesh_id: str) -> None:
    for mesh in ("a", "a-b", "a.b", "a0", "A", "ab"):
        await _agents(store, f"of-{mesh}", "b", mesh_id=mesh)

    assert await _pages(store, 1, mesh_id) == [["b"], [f"of-{mesh_id}"]]


async def test_an_agent_that_stays_is_in_exactly_one_page_whatever_others_do(store: Rig) -> None:
    staying = [f"s{number}" for number in range(6)]
    await _agents(store, *staying, "a", "s1-goes", "s3-goes", "z")

    seen, after = [], ""
    for turn in range(20):
        page = await store.agents(after=after, limit=2)
        seen += [lease.registration.agent_id for lease in page.leases]
        if not (after := page.after):
            break
        await store.deregister(agent_id=("a", "s1-goes", "s3-goes", "z")[turn % 4])
        await _agents(store, f"s{turn}-new", f"a{turn}")

    assert sorted(agent_id for agent_id in seen if agent_id in staying) == staying
    assert len(seen) == len(set(seen))


async def test_a_page_goes_on_behind_an_agent_that_left(store: Rig) -> None:
    await _agents(store, "a", "b", "c")
    page = await store.agents(limit=2)
    await store.deregister(agent_id=page.after)

    rest = await store.agents(after=page.after, limit=2)

    assert [lease.registration.agent_id for lease in rest.leases] == ["c"]


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("swept", [False, True])
async def test_agents_that_ended_are_in_no_page(store: Rig, limit: int, swept: bool) -> None:
    await _agents(store, "a", "c", "d", "f", ttl=10)
    await _agents(store, "b", "e")
    await store.advance(10 - store.tick)
    assert await _listed(store, limit) == list("abcdef")
    await store.advance(store.tick)
    if swept:
        await store.sweep_all()

    assert await _listed(store, limit) == ["b", "e"]


async def test_an_end_that_a_page_notices_is_covered_by_its_revision(store: Rig) -> None:
    await _three(store)
    before = (await store.agents()).revision
    await store.advance(10)

    page = await store.agents()

    *_, ended = await store.seen()
    assert ended == WatchEvent(MESH, page.revision, None, "b")
    assert page.revision > before
    assert await store.agents() == page


@pytest.mark.parametrize("after, limit", [("", 1), ("b", 1), ("b", 100)])
async def test_a_page_covers_an_end_that_it_would_not_have_shown(
    store: Rig, after: str, limit: int
) -> None:
    await _three(store)
    before = (await store.agents()).revision
    await store.advance(10)

    page = await store.agents(after=after, limit=limit)

    assert page.revision == (await store.seen())[-1].revision > before


async def test_an_end_that_a_page_noticed_is_reported_once(store: Rig) -> None:
    await _three(store)
    await store.advance(TTL)
    await store.agents(limit=2)
    await store.agents()
    await store.sweep_all()

    assert sorted(event.agent_id for event in await store.seen() if event.lease is None) == [
        "a",
        "b",
        "c",
    ]
    assert store.store.expired == 3


async def test_a_page_does_no_more_than_its_limit_allows(store: Rig) -> None:
    await _agents(store, *(f"agent-{number}" for number in range(10)))
    await store.advance(TTL)

    page = await store.agents(limit=3)

    assert page.leases == ()
    assert page.after
    assert 0 < store.store.expired <= 2 * 3


async def test_asking_for_a_page_changes_nothing(store: Rig) -> None:
    await _three(store)
    page = await store.agents()
    await store.advance(1)

    assert await store.agents() == page
    assert len(await store.seen()) == 3
    assert await store.counts() == Counts(0, 3)


async def test_many_agents_of_one_mesh_are_listed_in_order(store: Rig) -> None:
    agent_ids = [f"agent-{number * 7919 % 1000:03}" for number in range(1000)]
    await _agents(store, *agent_ids)

    pages = await _pages(store, 300)

    assert [len(page) for page in pages] == [300, 300, 300, 100]
    assert await _listed(store, 300) == sorted(agent_ids)
