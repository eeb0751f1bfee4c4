"""What the contract does not say but the memory store promises: how much work and memory a call costs.

Work is counted, not timed: the heap is asked for by name, and a dict that refuses to be scanned holds the leases.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, cast

import pytest

from discovery.clock import MICROSECONDS, Instant
from discovery.errors import ConfigError
from discovery.models import Terms
from discovery.stores import open_store
from discovery.stores.memory import MemoryStore, reminders, revisions
from discovery.watch import WatchHub
from tests.stores.rigs import TTL, Rig, memory_rig
from tests.support import KEY, MESH, ManualClock, key, registration


class HeapSpy:
    """Stands in for the heapq module and counts what is asked of it."""

    def __init__(self) -> None:
        self.calls = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(heapq, name)


class Unscannable(dict[str, Any]):
    """A dict that only answers for single keys."""

    def _refuse(self, *_: object) -> NoReturn:
        raise AssertionError("the store went through all its leases")

    __iter__ = keys = values = items = copy = _refuse


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with memory_rig() as opened:
        yield opened


@pytest.fixture
def store(rig: Rig) -> MemoryStore:
    assert isinstance(rig.store, MemoryStore)
    return rig.store


@pytest.fixture
def heap(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the operations on the heap, from here on."""
    spy = HeapSpy()
    monkeypatch.setattr(reminders, "heapq", spy)
    return spy.calls


async def _register(rig: Rig, count: int, ttl: int = TTL) -> None:
    for number in range(count):
        await rig.register(registration(mesh_id=f"mesh-{number}"), ttl)


async def _register_agents(rig: Rig, count: int, ttl: int = TTL) -> None:
    for number in range(count):
        await rig.register(registration(mesh_id=f"mesh-{number % 10}", agent_id=f"{number}"), ttl)


def _size(store: MemoryStore) -> tuple[int, int]:
    return len(store._entries), len(store._reminders)


async def test_renewals_take_no_memory(rig: Rig, store: MemoryStore) -> None:
    for _ in range(5000):
        await rig.register(registration())
        await rig.advance(1)

    assert _size(store) == (1, 1)


async def test_changes_take_no_memory(rig: Rig, store: MemoryStore) -> None:
    for port in range(5000):
        await rig.register(registration(public_port=port))

    assert _size(store) == (1, 1)


async def test_a_renewal_does_not_touch_the_heap(rig: Rig, heap: Counter[str]) -> None:
    await _register(rig, 1000)
    heap.clear()
    await rig.advance(100)

    await rig.register(registration(mesh_id="mesh-500"))
    await rig.register(registration(mesh_id="mesh-500", public_port=1))

    assert not heap


async def test_a_grant_is_one_push_however_many_leases_there_are(
    rig: Rig, heap: Counter[str]
) -> None:
    await _register(rig, 1000)
    heap.clear()

    await rig.register(registration(mesh_id="another"))

    assert heap == {"heappush": 1}


async def test_no_call_for_one_mesh_goes_through_the_others(rig: Rig, store: MemoryStore) -> None:
    await _register(rig, 1000)
    store._entries = Unscannable(store._entries)

    await rig.register(registration(mesh_id="another"))
    await rig.register(registration(mesh_id="another", public_port=1))
    await rig.lookup("another")
    await rig.deregister("another")
    await rig.advance(TTL)
    await rig.register(registration(mesh_id="mesh-0", pubkey=key(3)))
    await rig.lookup("mesh-1")
    await rig.deregister("mesh-2")
    await rig.sweep(limit=10)
    await rig.count()


async def test_a_refused_registration_costs_nothing(
    rig: Rig, store: MemoryStore, heap: Counter[str]
) -> None:
    await rig.register(registration())
    heap.clear()
    contenders = [registration(pubkey=key(number)) for number in range(2, 102)]

    await asyncio.gather(*(rig.register(one) for one in contenders), return_exceptions=True)

    assert not heap
    assert _size(store) == (1, 1)


async def test_a_sweep_frees_all_memory_of_what_ended(rig: Rig, store: MemoryStore) -> None:
    await _register(rig, 1000)
    await rig.advance(TTL)
    await rig.sweep_all()

    assert _size(store) == (0, 0)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_mesh_without_agents_leaves_nothing_behind_but_its_last_revision(
    rig: Rig, store: MemoryStore, leaves: bool
) -> None:
    await _register_agents(rig, 1000)
    for number in range(1000 if leaves else 0):
        await rig.deregister(f"mesh-{number % 10}", agent_id=f"{number}")
    await rig.advance(TTL)
    await rig.sweep_all()

    assert _size(store) == (0, 0)
    assert not store._revisions.agents
    assert len(store._revisions._absent) == 10


async def test_agents_that_are_there_are_not_remembered_as_absent(
    rig: Rig, store: MemoryStore
) -> None:
    await rig.agents()
    await rig.register(registration(agent_id="a"))

    assert not store._revisions._absent


async def test_an_agents_renewal_touches_neither_the_heap_nor_the_others(
    rig: Rig, store: MemoryStore, heap: Counter[str]
) -> None:
    await _register_agents(rig, 1000)
    ids = store._revisions.agents["mesh-0"].ids
    before = [*ids]
    heap.clear()
    store._entries = Unscannable(store._entries)

    await rig.register(registration(mesh_id="mesh-0", agent_id="500"))
    await rig.register(registration(mesh_id="mesh-0", agent_id="500", public_port=1))

    assert not heap
    assert store._revisions.agents["mesh-0"].ids is ids
    assert ids == before


async def test_a_page_goes_through_no_other_leases(rig: Rig, store: MemoryStore) -> None:
    await _register_agents(rig, 1000)
    looked_up: list[str] = []

    class Watched(Unscannable):
        def get(self, name: str, *default: Any) -> Any:
            looked_up.append(name)
            return super().get(name, *default)

    store._entries = Watched(store._entries)

    await rig.agents("mesh-0", after="5", limit=3)

    assert looked_up == ["mesh-0/50", "mesh-0/500", "mesh-0/510"]


async def test_a_sweep_answers_no_more_reminders_than_its_limit(
    rig: Rig, heap: Counter[str]
) -> None:
    await _register(rig, 100)
    await rig.advance(TTL)
    heap.clear()

    assert await rig.sweep(limit=7)

    assert heap == {"heappop": 7}


async def test_a_sweep_with_nothing_due_does_not_touch_the_heap(
    rig: Rig, heap: Counter[str]
) -> None:
    await _register(rig, 100)
    heap.clear()
    await rig.advance(TTL - rig.tick)

    assert not await rig.sweep()

    assert not heap


async def test_a_lease_is_looked_at_about_once_a_ttl_however_often_it_is_renewed(
    rig: Rig, heap: Counter[str]
) -> None:
    await rig.register(registration())
    heap.clear()
    for _ in range(10 * TTL):
        await rig.advance(1)
        await rig.register(registration())
        await rig.sweep()

    assert heap["heappop"] <= 11


async def test_reminders_that_deregistrations_leave_behind_are_dropped(
    rig: Rig, store: MemoryStore
) -> None:
    for number in range(20_000):
        await rig.register(registration(mesh_id=f"mesh-{number}"))
        await rig.deregister(f"mesh-{number}")
        assert len(store._reminders) < 2000


async def _renew(store: MemoryStore, _: WatchHub, number: int) -> None:
    now = Instant(number, number)
    await store.register(registration(), ttl=TTL, now=now)
    await store.lookup(MESH, now=now)
    await store.lookup(f"never-{number}", now=now)


async def _change(store: MemoryStore, _: WatchHub, number: int) -> None:
    wanted = registration(metadata={f"key-{number}": f"value-{number}"})
    await store.register(wanted, ttl=TTL, now=Instant(number, number))


async def _come_and_go(store: MemoryStore, _: WatchHub, number: int) -> None:
    now, mesh_id, agent_id = Instant(number, number), f"mesh-{number}", "a" * (number % 2)
    await store.register(registration(mesh_id=mesh_id, agent_id=agent_id), ttl=TTL, now=now)
    await store.deregister(mesh_id, KEY, agent_id=agent_id, now=now)


async def _come_and_end(store: MemoryStore, _: WatchHub, number: int) -> None:
    now = Instant(number * MICROSECONDS, number * MICROSECONDS)
    terms = Terms(owner=f"owner-{number}", reserve=1)
    await store.register(registration(mesh_id=f"mesh-{number}"), ttl=1, now=now, terms=terms)
    await store.sweep(now=now, limit=10)


async def _watch_what_is_absent(_: MemoryStore, hub: WatchHub, number: int) -> None:
    watch = hub.watch(f"never-{number}", 0)
    await anext(watch)
    await watch.aclose()


@pytest.mark.parametrize(
    "call", [_renew, _change, _come_and_go, _come_and_end, _watch_what_is_absent]
)
async def test_memory_does_not_grow_with_the_number_of_calls(
    call: Callable[[MemoryStore, WatchHub, int], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered for a while has been reached before the first look; it may still go up and down a bit."""
    monkeypatch.setattr(revisions, "_ABSENT_REMEMBERED", 100)
    store = MemoryStore()
    hub = WatchHub(store, ManualClock())
    blocks = []
    for calls in (range(1, 5000), range(5000, 25_000)):
        for number in calls:
            await call(store, hub, number)
        gc.collect()
        blocks.append(sys.getallocatedblocks())

    assert blocks[1] - blocks[0] < 10_000, "a call in two leaves something behind"


async def test_what_left_holds_on_to_no_registration(rig: Rig, store: MemoryStore) -> None:
    for number in range(100):
        await rig.register(registration(mesh_id=f"mesh-{number}"))
        await rig.deregister(f"mesh-{number}")

    assert len(store._reminders) == 100
    assert not any(hasattr(entry, "lease") for entry in store._reminders._heap)


async def test_colonies_share_the_words_of_their_metadata(rig: Rig) -> None:
    for mesh, sent in (("a", b"zone"), ("b", b"region"), ("b", b"zone")):
        metadata = {sent.decode(): sent.decode()}  # a string of its own, as each request has
        await rig.register(registration(mesh_id=mesh, metadata=metadata))
    words = []
    for mesh in ("a", "b"):
        lease = await rig.lookup(mesh)
        assert lease is not None
        words.append([*lease.registration.metadata.items()])

    assert words == [[("zone", "zone")]] * 2
    assert words[0][0][0] is words[1][0][0] is words[1][0][1]


async def test_few_words_are_remembered(rig: Rig, store: MemoryStore) -> None:
    for number in range(2000):
        await rig.register(registration(metadata={f"key-{number}": f"{number}"}))
        assert len(store._words) <= 1024


async def test_few_absent_meshes_are_remembered(rig: Rig, store: MemoryStore) -> None:
    for number in range(11_000):
        await rig.current(f"never-{number}")
        await rig.agents(f"never-{number}")
        await rig.register(registration(mesh_id=f"mesh-{number}"))
        await rig.deregister(f"mesh-{number}")

    assert len(store._revisions._absent) <= 10_000


async def test_meshes_that_are_there_are_not_remembered_as_absent(
    rig: Rig, store: MemoryStore
) -> None:
    await rig.current()
    await rig.register(registration())

    assert not store._revisions._absent


async def test_reminders_are_dropped_rarely_enough_to_cost_little(
    rig: Rig, heap: Counter[str]
) -> None:
    await _register(rig, 5000)
    heap.clear()
    for _ in range(20_000):
        await rig.register(registration(mesh_id="another"))
        await rig.deregister("another")

    assert heap["heappush"] <= 20_000 + 4 * 5000


async def test_however_many_leave_none_of_them_waits_for_the_others(
    rig: Rig, store: MemoryStore, heap: Counter[str]
) -> None:
    await _register(rig, 5000)
    for number in range(5000):
        heap.clear()
        await rig.deregister(f"mesh-{number}")
        assert heap.total() <= 4

    assert _size(store) < (1, 1100)


async def test_leases_end_in_time_while_reminders_are_dropped(
    rig: Rig, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reminders, "_SPARE", 0)
    monkeypatch.setattr(reminders, "_STEP", 1)
    dice, ends, dropping = random.Random(8), dict[str, int](), 0
    for second in range(3000):
        mesh, ttl = f"mesh-{dice.randrange(60)}", dice.randrange(1, 600)
        if dice.random() < 0.6:
            await rig.register(registration(mesh_id=mesh), ttl)
            ends[mesh] = max(ends.get(mesh, 0), second + ttl)
        else:
            await rig.deregister(mesh)
            ends.pop(mesh, None)
        await rig.advance(1)
        ends = {mesh: end for mesh, end in ends.items() if end > second + 1}
        await rig.sweep_all()
        assert store._entries.keys() == ends.keys()
        dropping += bool(store._reminders._old)

    assert 500 < dropping < 2900


async def test_leases_end_as_they_should_after_reminders_were_dropped(
    rig: Rig, store: MemoryStore
) -> None:
    for ttl in range(20, 0, -1):
        await rig.register(registration(mesh_id=f"stays-{ttl}"), ttl)
    await rig.advance(0.5)
    for ttl in range(20, 0, -1):
        await rig.register(registration(mesh_id=f"stays-{ttl}"), ttl)
    for number in range(1100):
        await rig.register(registration(mesh_id=f"goes-{number}"))
        await rig.deregister(f"goes-{number}")
    assert len(store._reminders) < 1100

    left = []
    for _ in range(20):
        await rig.advance(1)
        assert not await rig.sweep()
        left.append(len(store._entries))

    assert left == list(range(19, -1, -1))


async def test_a_lease_registered_again_and_again_is_swept_once(
    rig: Rig, store: MemoryStore
) -> None:
    for _ in range(10):
        await rig.register(registration())
        await rig.deregister()
    await rig.register(registration())
    await rig.advance(TTL)
    before = len(rig.events)

    await rig.sweep_all()

    assert len(rig.events) == before + 1
    assert _size(store) == (0, 0)


async def test_a_reminder_of_a_lease_that_was_left_is_not_set_anew(
    rig: Rig, store: MemoryStore
) -> None:
    for _ in range(10):
        await rig.register(registration(), ttl=10)
        await rig.deregister()
    await rig.register(registration(), ttl=TTL)
    await rig.advance(10)
    await rig.sweep_all()

    assert _size(store) == (1, 1)


async def test_a_long_count_lets_other_calls_run(rig: Rig) -> None:
    await _register(rig, 3000)
    await rig.advance(TTL)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    assert await rig.count() == 0
    other.cancel()

    assert turns >= 2


async def test_a_short_call_never_suspends(rig: Rig) -> None:
    """So that one `send(None)` answers it (the design, "One call path")."""
    calls = (rig.register(registration()), rig.lookup(), rig.count(), rig.agents())
    for call in (*calls, rig.deregister()):
        with pytest.raises(StopIteration):
            call.send(None)


async def test_a_store_needs_no_listener() -> None:
    store, now = MemoryStore(), ManualClock().now()
    await store.register(registration(), ttl=TTL, now=now)

    assert await store.deregister(registration().mesh_id, registration().pubkey, now=now)


def test_open_store_knows_the_memory_store() -> None:
    assert isinstance(open_store("memory"), MemoryStore)


@pytest.mark.parametrize("url", ["", "Memory", "memory://", "etcd://localhost"])
def test_open_store_refuses_what_it_does_not_know(url: str) -> None:
    with pytest.raises(ConfigError, match="unknown store") as refusal:
        open_store(url)

    assert repr(url) in str(refusal.value)


# -- Reservations and listing ---------------------------------------------------------------------

RESERVED = Terms(reserve=TTL)


def _reserved(store: MemoryStore) -> tuple[int, int]:
    return len(store._reservations), len(store._reservations._reminders)


async def test_reservations_are_freed_by_the_sweep_when_they_are_over(
    rig: Rig, store: MemoryStore
) -> None:
    for number in range(1000):
        await rig.register(registration(mesh_id=f"mesh-{number}"), terms=RESERVED)
    await rig.advance(TTL)
    await rig.sweep_all()
    assert _size(store) == (0, 0)
    assert _reserved(store) == (1000, 1000)

    await rig.advance(TTL)
    assert await rig.sweep(limit=7)
    assert _reserved(store) == (993, 993)
    await rig.sweep_all()
    assert _reserved(store) == (0, 0)


async def test_renewals_of_what_is_reserved_take_no_memory(
    rig: Rig, store: MemoryStore, heap: Counter[str]
) -> None:
    await rig.register(registration(), terms=RESERVED)
    heap.clear()
    for _ in range(TTL - 1):
        await rig.advance(1)
        await rig.register(registration(), terms=RESERVED)

    assert not heap
    assert _reserved(store) == (1, 1)


@pytest.mark.parametrize("leave", ["deregister", "evict"])
async def test_what_is_reserved_again_and_again_takes_little_memory(
    rig: Rig, store: MemoryStore, leave: str
) -> None:
    for number in range(20_000):
        await rig.register(registration(), TTL if number % 2 else 10, RESERVED)
        await getattr(rig, leave)()
        assert _reserved(store)[1] < 2000


async def test_a_reservation_that_was_shortened_is_freed_in_time_and_only_once(
    rig: Rig, store: MemoryStore
) -> None:
    for ttl in (TTL, 10, 10, TTL, 10):
        await rig.register(registration(), ttl, RESERVED)
        await rig.deregister()
    await rig.advance(TTL + 10)
    await rig.sweep_all()
    assert _reserved(store)[0] == 0
    await rig.register(registration(), TTL, RESERVED)
    await rig.advance(TTL)
    await rig.sweep_all()

    assert _reserved(store)[0] == 1


async def test_owners_that_have_nothing_are_forgotten(rig: Rig, store: MemoryStore) -> None:
    for number in range(100):
        wanted = registration(mesh_id=f"mesh-{number % 2}")
        await rig.register(wanted, terms=Terms(owner=f"owner-{number}", most_of_owner=5))
        await rig.register(registration(agent_id="a"), terms=Terms(owner=f"owner-{number}"))
    assert store._census._owned == {"owner-98": 1, "owner-99": 1}
    await rig.deregister("mesh-0")
    await rig.evict("mesh-1")

    assert store._census._owned == {}


async def test_a_renewal_costs_a_list_of_leases_nothing(rig: Rig, store: MemoryStore) -> None:
    await _register(rig, 100)
    colonies = store._census.roster(agents=False)
    colonies._listed = cast("Any", _Untouchable())

    await rig.register(registration(mesh_id="mesh-50"))
    await rig.register(registration(mesh_id="mesh-50", public_port=1), terms=Terms(owner="one"))
    await rig.lookup("mesh-50")


class _Untouchable:
    """Stands in for a list that nobody should read or change."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"the list was touched: {name}")


async def test_a_page_touches_its_own_leases_and_no_others(rig: Rig, store: MemoryStore) -> None:
    await _register(rig, 5000)
    store._entries = Unscannable(store._entries)
    colonies, taken = store._census.roster(agents=False), list[object]()

    class Watched(list[Any]):
        def _refuse(self, *_: object) -> NoReturn:
            raise AssertionError("the list was gone through")

        def __getitem__(self, part: Any) -> Any:
            taken.append(part)
            return super().__getitem__(part)

        def index(self, item: Any, start: Any = 0, stop: Any = 5000, /) -> int:
            assert stop - start <= 8
            return super().index(item, start, stop)

        __iter__ = copy = sort = reverse = __contains__ = cast("Any", _refuse)

    colonies._listed = Watched(colonies._listed)
    page = await rig.leases(limit=1000)
    await rig.leases("nowhere", page.after, limit=1000)
    await rig.deregister("mesh-17")
    await rig.register(registration(mesh_id="another"))

    slices = [part for part in taken if isinstance(part, slice)]
    assert slices == [slice(4000, 5000), slice(3000, 4000)]


async def test_a_call_on_terms_never_suspends_unless_it_counts_many(rig: Rig) -> None:
    terms = Terms(reserve=10, owner="one", most_of_owner=1, most_in_all=5, old_pubkey=key(2))
    calls = (
        rig.register(registration(), terms=terms),
        rig.register(registration(), terms=terms),
        rig.leases(),
        rig.reservation(),
        rig.evict(),
    )
    for call in calls:
        with pytest.raises(StopIteration):
            call.send(None)


async def test_what_was_granted_is_held_until_it_changes_or_leaves() -> None:
    async with memory_rig() as rig:
        first, second = registration(metadata={"a": "b"}), registration()
        held = [rig.store.holds(first)]
        for wanted in (first, first, second):
            await rig.register(wanted)
            held.append(rig.store.holds(registration(metadata={"a": "b"})))
        await rig.deregister()
        held.append(rig.store.holds(second))
    assert held == [False, True, True, False, False]
