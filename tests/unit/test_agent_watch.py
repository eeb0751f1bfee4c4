"""Following agents, on a store whose answers and whose events the test times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import cast

import pytest

from discovery.agent_watch import AgentHub, AgentSubscription
from discovery.clock import Instant
from discovery.errors import DrainingError, StoreUnavailableError
from discovery.models import Lease, Synced, WatchEvent
from discovery.stores.base import AgentsPage, RegistryStore
from tests.support import MESH, ManualClock, registration

FAR = 2_000_000_000_000_000
PATIENCE = 10


def state(agent_id: str, revision: int, ends_us: int | None = FAR) -> WatchEvent:
    """Return an agent's state: registered until then, or absent."""
    if ends_us is None:
        return WatchEvent(MESH, revision, None, agent_id)
    lease = Lease(registration(agent_id=agent_id), revision, 0, ends_us)
    return WatchEvent(MESH, revision, lease, agent_id)


class TimedStore:
    """Answers `agents`, two a page, when the test says so."""

    def __init__(self) -> None:
        self.truth: dict[str, WatchEvent] = {}
        self.revision = 0
        self.asked = 0
        self.held: dict[str, asyncio.Event] = {}
        """Holds back the page behind an agent until the event is set."""
        self.away = False

    def have(self, *states: WatchEvent) -> None:
        self.truth = {event.agent_id: event for event in states if event.lease}
        self.revision = max((self.revision, *(event.revision for event in states)))

    async def agents(self, mesh_id: str, *, after: str, limit: int, now: Instant) -> AgentsPage:
        assert (mesh_id, limit > 2) == (MESH, True)
        self.asked += 1
        if self.away:
            raise StoreUnavailableError("away")
        if after in self.held:
            await self.held[after].wait()
        names = sorted(name for name in self.truth if name > after)[:2]
        leases = tuple(event.lease for name in names if (event := self.truth[name]).lease)
        return AgentsPage(self.revision, leases, names[-1] if len(names) == 2 else "")


@pytest.fixture
def store() -> TimedStore:
    return TimedStore()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def hub(store: TimedStore, clock: ManualClock) -> AgentHub:
    return AgentHub(cast("RegistryStore", store), clock)


Watch = AsyncGenerator[WatchEvent | Synced]


async def read(watch: Watch) -> WatchEvent | Synced:
    async with asyncio.timeout(PATIENCE):
        return await anext(watch)


async def read_until_synced(watch: Watch) -> tuple[Mapping[str, int], int]:
    """Return the revision of each agent that is named, and that of Synced."""
    named: dict[str, int] = {}
    while isinstance(event := await read(watch), WatchEvent):
        assert event.lease is not None
        assert event.agent_id not in named
        named[event.agent_id] = event.revision
    return named, event.revision


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)  # the hub's tasks take turns


async def test_a_watch_begins_with_every_agent_by_name_and_says_when_these_were_all(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(*(state(f"agent-{number}", 10 - number) for number in range(5)))
    async with aclosing(hub.watch(MESH, 0)) as watch:
        named, revision = await read_until_synced(watch)

    assert list(named.items()) == [(f"agent-{number}", 10 - number) for number in range(5)]
    assert revision == 10


async def test_a_mesh_without_agents_is_synced_at_once(hub: AgentHub, store: TimedStore) -> None:
    store.revision = 7
    async with aclosing(hub.watch(MESH, 0)) as watch:
        assert await read(watch) == Synced(MESH, 7)


async def test_who_knows_the_present_revision_is_told_nothing_else(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 5), state("b", 6))
    async with aclosing(hub.watch(MESH, 6)) as watch:
        assert await read(watch) == Synced(MESH, 6)
        hub.changed(state("a", 7))
        assert await read(watch) == state("a", 7)


async def test_who_knows_an_earlier_revision_is_told_everything(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 5), state("b", 6))
    async with aclosing(hub.watch(MESH, 5)) as watch:
        assert await read_until_synced(watch) == ({"a": 5, "b": 6}, 6)


async def test_changes_come_in_the_order_of_their_revisions(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1), state("b", 2))
    async with aclosing(hub.watch(MESH, 2)) as watch:
        await read(watch)
        changes = [state("b", 3), state("c", 4), state("a", 5, None)]
        for change in changes:
            hub.changed(change)

        assert [await read(watch) for _ in changes] == changes


async def test_a_slow_reader_is_told_the_latest_of_each_and_misses_nothing_before_it(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1), state("b", 2))
    async with aclosing(hub.watch(MESH, 2)) as watch:
        await read(watch)
        for change in (state("a", 3), state("b", 4), state("a", 5), state("c", 6), state("c", 7)):
            hub.changed(change)

        assert [await read(watch) for _ in range(3)] == [
            state("b", 4),
            state("a", 5),
            state("c", 7),
        ]


async def test_a_renewal_is_no_news_and_neither_is_the_end_of_an_unknown_agent(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1))
    async with aclosing(hub.watch(MESH, 1)) as watch:
        await read(watch)
        hub.changed(state("a", 1, FAR + 1))
        hub.changed(state("nobody", 2, None))
        hub.changed(state("b", 3))

        assert await read(watch) == state("b", 3)


async def test_what_changes_while_the_agents_are_named_comes_after_them(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1), state("b", 2), state("c", 3))
    async with aclosing(hub.watch(MESH, 0)) as watch:
        assert await read(watch) == state("a", 1)
        hub.changed(state("a", 4, None))
        hub.changed(state("b", 5))

        assert await read_until_synced(watch) == ({"b": 2, "c": 3}, 3)
        assert [await read(watch), await read(watch)] == [state("a", 4, None), state("b", 5)]


async def test_what_changes_while_the_store_is_read_is_named_once_and_as_it_is_now(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1), state("b", 2), state("c", 3))
    store.held["b"] = asyncio.Event()
    async with aclosing(hub.watch(MESH, 0)) as watch:
        first = asyncio.create_task(read(watch))
        await until(lambda: store.asked == 2)
        hub.changed(state("a", 4))
        hub.changed(state("b", 5, None))
        store.held.pop("b").set()

        assert await first == state("a", 4)
        assert await read_until_synced(watch) == ({"c": 3}, 3)


async def test_an_agent_that_leaves_while_its_page_is_under_way_is_not_brought_back(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1), state("b", 2))
    store.held[""] = asyncio.Event()
    async with aclosing(hub.watch(MESH, 0)) as watch:
        first = asyncio.create_task(read(watch))
        await until(lambda: store.asked == 1)
        hub.changed(state("a", 3, None))
        store.held.pop("").set()

        assert await first == state("b", 2)
        assert await read_until_synced(watch) == ({}, 2)


async def test_an_agent_that_is_gone_when_the_store_is_asked_again_is_reported_gone(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1), state("b", 2))
    async with aclosing(hub.watch(MESH, 2)) as watch:
        await read(watch)
        store.have(state("b", 2), state("a", 3, None))
        hub.missed()

        gone = await read(watch)
    assert isinstance(gone, WatchEvent)
    assert (gone.agent_id, gone.lease) == ("a", None)


async def test_whoever_was_told_a_revision_was_told_all_before_it_also_of_what_was_missed(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1), state("b", 2), state("c", 3), state("d", 4))
    async with aclosing(hub.watch(MESH, 4)) as watch:
        await read(watch)
        left = {"a": 5, "c": 6}
        store.have(
            state("d", 4),
            state("b", 7),
            state("e", 8),
            *(state(a, r, None) for a, r in left.items()),
        )
        hub.missed()
        hub.changed(state("e", 8))

        told = [await read(watch) for _ in range(4)]
    names = [event.agent_id for event in told if isinstance(event, WatchEvent)]
    assert sorted(names[:2]) == ["a", "c"]
    assert names[2:] == ["b", "e"]
    for event in told[:2]:
        assert isinstance(event, WatchEvent)
        assert event.revision <= left[event.agent_id]


async def test_nothing_is_read_while_something_may_have_been_missed(
    hub: AgentHub, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.look._ASK_AGAIN", 0.0)
    store.have(state("a", 1))
    async with aclosing(hub.watch(MESH, 1)) as watch:
        await read(watch)
        store.away = True
        hub.missed()
        hub.changed(state("c", 3))
        reading = asyncio.create_task(read(watch))
        await until(lambda: store.asked > 3)
        assert not reading.done()

        store.have(state("a", 1), state("b", 2), state("c", 3))
        store.away = False
        assert await reading == state("b", 2)
        assert await read(watch) == state("c", 3)


async def test_a_change_between_the_first_page_and_synced_reaches_who_knows_the_rest(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1), state("b", 2), state("c", 3))
    store.held["b"] = asyncio.Event()
    async with aclosing(hub.watch(MESH, 3)) as watch:
        first = asyncio.create_task(read(watch))
        await until(lambda: store.asked == 2)
        hub.changed(state("a", 4))
        store.held.pop("b").set()

        assert await first == Synced(MESH, 3)
        assert await read(watch) == state("a", 4)


async def test_a_store_that_went_back_is_followed_back(hub: AgentHub, store: TimedStore) -> None:
    store.have(state("a", 9))
    async with aclosing(hub.watch(MESH, 9)) as watch:
        await read(watch)
        store.have(state("a", 4))
        hub.missed()

        assert await read(watch) == state("a", 4)


async def test_an_old_page_does_not_undo_a_change_that_came_meanwhile(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1))
    async with aclosing(hub.watch(MESH, 1)) as watch:
        await read(watch)
        store.held[""] = asyncio.Event()
        hub.missed()
        await until(lambda: store.asked == 2)
        hub.changed(state("a", 2))
        hub.changed(state("b", 3))
        store.held.pop("").set()
        assert [await read(watch), await read(watch)] == [state("a", 2), state("b", 3)]

        hub.changed(state("c", 4))
        assert await read(watch) == state("c", 4)


async def test_the_store_is_asked_when_the_first_lease_ends(
    hub: AgentHub, store: TimedStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_us = clock.now().unix_us + 40_000_000
    store.have(state("a", 1, FAR), state("b", 2, ends_us))
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def at_once(delay: float, callback: Callable[..., object], *args: object) -> object:
        delays.append(delay)
        clock.advance(delay)
        store.have(state("a", 1, FAR), state("b", 3, None))
        return call_later(0, callback, *args)

    async with aclosing(hub.watch(MESH, 2)) as watch:
        monkeypatch.setattr(loop, "call_later", at_once)
        await anext(watch)
        event = await anext(watch)
        monkeypatch.undo()

    assert event == state("b", 3, None)
    assert 40.0 in delays


async def test_a_store_that_is_away_ends_a_watch_that_begins(
    hub: AgentHub, store: TimedStore
) -> None:
    store.away = True
    with pytest.raises(StoreUnavailableError):
        await read(hub.watch(MESH, 0))
    assert hub._meshes == {}


async def test_a_store_that_is_away_is_asked_later_and_nobody_is_reported_gone(
    hub: AgentHub, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.look._ASK_AGAIN", 0.0)
    store.have(state("a", 1))
    async with aclosing(hub.watch(MESH, 1)) as watch:
        await read(watch)
        store.away = True
        hub.missed()
        await until(lambda: store.asked > 3)
        store.have(state("a", 1), state("b", 2))
        store.away = False

        assert await read(watch) == state("b", 2)


async def test_every_watcher_is_ended_by_an_error_of_its_own_wherever_it_is(
    hub: AgentHub, store: TimedStore
) -> None:
    store.have(state("a", 1), state("b", 2))
    async with aclosing(hub.watch(MESH, 0)) as begun, aclosing(hub.watch(MESH, 2)) as synced:
        await read(begun)
        await read(synced)
        hub.close(lambda: DrainingError("stopping"))

        endings = []
        for watch in (begun, synced):
            with pytest.raises(DrainingError) as caught:
                await read(watch)
            endings.append(caught.value)
    assert endings[0] is not endings[1]


async def test_nothing_is_left_when_the_last_watcher_goes(hub: AgentHub, store: TimedStore) -> None:
    store.have(state("a", 1))
    before = asyncio.all_tasks()
    async with aclosing(hub.watch(MESH, 0)) as one, aclosing(hub.watch(MESH, 0)) as two:
        await read(one)
        await read(two)
        hub.missed()
    assert hub._meshes == {}
    await until(lambda: asyncio.all_tasks() == before)


async def test_an_unread_state_is_held_once_for_each_agent() -> None:
    subscription = AgentSubscription()
    for revision in range(1, 1001):
        subscription.offer(state(f"agent-{revision % 3}", revision))

    assert len(subscription._unread) == 3
    assert [(await subscription.read()).revision for _ in range(3)] == [998, 999, 1000]
