"""The hub, on a store whose answers and whose events the test times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import cast

import pytest

from discovery.clock import Instant
from discovery.errors import DrainingError, StoreUnavailableError
from discovery.models import Lease, WatchEvent
from discovery.stores.base import Listener, RegistryStore
from discovery.watch import Subscription, WatchHub
from tests.support import MESH, ManualClock, registration


def state(revision: int, ends_us: int | None = 2_000_000_000_000_000) -> WatchEvent:
    """Return a state: registered until then, or absent."""
    lease = None if ends_us is None else Lease(registration(), revision, 0, ends_us)
    return WatchEvent(MESH, revision, lease)


class TimedStore:
    """Answers `current` when the test says so, with what was true when it was asked."""

    def __init__(self) -> None:
        self.truth = state(1)
        self.asked = 0
        self.held: asyncio.Event | None = None
        self.away = False

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        assert missed is not None
        self.changed, self.missed = changed, missed

    async def current(self, mesh_id: str, *, now: Instant) -> WatchEvent:
        self.asked += 1
        if self.away:
            raise StoreUnavailableError("away")
        truth = self.truth
        if self.held is not None:
            await self.held.wait()
        return truth


@pytest.fixture
def store() -> TimedStore:
    return TimedStore()


def watch_from(store: TimedStore, clock: ManualClock | None = None) -> WatchHub:
    return WatchHub(cast("RegistryStore", store), clock or ManualClock())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)  # the hub's tasks take turns


async def test_who_waits_is_woken_once_for_each_state_and_for_the_end(store: TimedStore) -> None:
    hub, woken = watch_from(store), list[None]()
    states = hub.watch(MESH, 0)
    assert not states.wait(lambda: woken.append(None))  # nobody asked for the present state yet
    await anext(states)
    for revision in (2, 3):
        assert states.wait(lambda: woken.append(None))
        hub.changed(state(revision))
        assert len(woken) == revision - 1
        assert not states.wait(lambda: woken.append(None))
        assert (await anext(states)).revision == revision
    assert states.wait(lambda: woken.append(None))
    hub.close(lambda: DrainingError("", retry_after=1))
    assert len(woken) == 3
    assert not states.wait(lambda: woken.append(None))
    with pytest.raises(DrainingError):
        await anext(states)
    await states.aclose()


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_watchers_of_a_mesh_come_and_go(store: TimedStore, number: int) -> None:
    hub = watch_from(store)
    watches = [hub.watch(MESH, 0) for _ in range(number)]
    for watch in watches:
        assert (await anext(watch)).revision == 1
    assert hub.watching == number
    hub.changed(state(2))
    for left, watch in zip(reversed(range(number)), watches, strict=True):
        assert (await anext(watch)).revision == 2
        await watch.aclose()
        await watch.aclose()
        assert hub.watching == left


async def test_what_is_missed_while_the_store_is_asked_is_asked_for_again(
    store: TimedStore,
) -> None:
    async with aclosing(watch_from(store).watch(MESH, 0)) as states:
        assert (await anext(states)).revision == 1
        store.held = asyncio.Event()
        store.missed()
        await until(lambda: store.asked == 2)
        store.truth = state(2)
        store.missed()
        store.held.set()

        async with asyncio.timeout(10):
            assert (await anext(states)).revision == 2


async def test_a_store_that_went_back_is_followed_back(store: TimedStore) -> None:
    store.truth = state(5)
    async with aclosing(watch_from(store).watch(MESH, 0)) as states:
        assert (await anext(states)).revision == 5
        store.truth = state(3, None)
        store.missed()

        async with asyncio.timeout(10):
            assert (await anext(states)).lease is None


async def test_an_old_answer_does_not_undo_a_change_that_came_meanwhile(store: TimedStore) -> None:
    async with aclosing(watch_from(store).watch(MESH, 0)) as states:
        assert (await anext(states)).revision == 1
        store.held = asyncio.Event()
        store.missed()
        await until(lambda: store.asked == 2)
        store.truth = state(2)
        store.changed(state(2))
        assert (await anext(states)).revision == 2
        store.held.set()
        await until(lambda: store.asked == 3)
        store.truth = state(3)
        store.changed(state(3))

        async with asyncio.timeout(10):
            assert (await anext(states)).revision == 3


async def test_a_clock_that_is_ahead_of_the_stores_does_not_make_it_ask_without_end(
    store: TimedStore,
) -> None:
    clock = ManualClock()
    store.truth = state(1, clock.now().unix_us - 3_600_000_000)
    hub = watch_from(store, clock)
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    call_later = loop.call_later

    def at_once(delay: float, callback: Callable[..., object], *args: object) -> object:
        waits.append(delay)
        return call_later(0, callback, *args)

    async with aclosing(hub.watch(MESH, 0)) as states:
        loop.call_later = at_once  # type: ignore[method-assign, assignment]
        try:
            await anext(states)
            await until(lambda: len(waits) > 10)
        finally:
            loop.call_later = call_later  # type: ignore[method-assign]

    assert waits[:8] == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]
    assert set(waits[8:]) == {1.0}


async def test_a_store_that_is_away_is_asked_later_and_the_watch_goes_on(
    store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.look._ASK_AGAIN", 0.0)
    async with aclosing(watch_from(store).watch(MESH, 0)) as states:
        await anext(states)
        store.away = True
        store.missed()
        await until(lambda: store.asked > 3)
        store.truth, store.away = state(9, None), False

        async with asyncio.timeout(10):
            assert (await anext(states)).revision == 9


async def test_who_joins_is_told_and_does_not_tell_the_others_what_they_have(
    store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[Subscription] = []
    offer = Subscription.offer

    def counting(self: Subscription, event: WatchEvent, *, certain: bool = False) -> None:
        offered.append(self)
        offer(self, event, certain=certain)

    monkeypatch.setattr(Subscription, "offer", counting)
    hub = watch_from(store)
    watches = [hub.watch(MESH, 0) for _ in range(20)]

    assert [(await anext(watch)).revision for watch in watches] == [1] * 20
    assert offered == watches

    store.truth = state(2)
    late = hub.watch(MESH, 0)
    assert (await anext(late)).revision == 2
    assert [(await anext(watch)).revision for watch in watches] == [
        2
    ] * 20  # nobody had reported it


async def test_nothing_is_left_when_the_last_watcher_goes(store: TimedStore) -> None:
    hub = watch_from(store)
    async with aclosing(hub.watch(MESH, 0)) as states:
        await anext(states)
        assert MESH in hub._topics

    assert hub._topics == {}


async def test_every_watcher_is_ended_by_an_error_of_its_own(store: TimedStore) -> None:
    hub = watch_from(store)
    first, second = hub.watch(MESH, 0), hub.watch(MESH, 0)
    await anext(first)
    await anext(second)
    hub.close(lambda: DrainingError("over"))

    errors = await asyncio.gather(anext(first), anext(second), return_exceptions=True)

    assert all(isinstance(error, DrainingError) for error in errors)
    assert errors[0] is not errors[1]
