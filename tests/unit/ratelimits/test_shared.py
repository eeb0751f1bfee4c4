"""Rates that replicas share: never exceeded, and asked for as seldom as can be."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.errors import StoreUnavailableError
from discovery.ratelimits import parse_rules
from discovery.ratelimits.shared import SharedMeter
from tests.support import ManualClock, examples
from tests.unit.ratelimits.fakes import FakeWindows


class Rig:
    """Replicas that share one rate."""

    def __init__(self, rate: str = "3/minute", replicas: int = 1, room: int = 100) -> None:
        self.clock = ManualClock()
        self.windows = FakeWindows(self.clock)
        [rule] = parse_rules(["off", f"mesh:LookupColony,RegisterColony={rate}"])
        self.meters = [SharedMeter(rule, self.windows, self.clock, room) for _ in range(replicas)]

    async def take(self, name: str = "mesh-1", replica: int = 0) -> float:
        return await self.meters[replica].take(name)

    async def admitted(self, calls: int, name: str = "mesh-1") -> int:
        """Return how many of `calls` are admitted, made at once and at each replica in turn."""
        count = len(self.meters)
        waits = await asyncio.gather(*(self.take(name, n % count) for n in range(calls)))
        return waits.count(0)


async def test_replicas_share_a_rate() -> None:
    rig = Rig("10/minute", replicas=3)

    assert await rig.admitted(30) == 10
    assert await rig.admitted(30) == 0
    assert await rig.admitted(30, "mesh-2") == 10


@pytest.mark.parametrize("replicas", [1, 2, 5])
async def test_a_large_rate_is_never_exceeded_and_hardly_wasted(replicas: int) -> None:
    rig = Rig("1000/minute", replicas)

    admitted = await rig.admitted(5000)

    assert 1000 - 20 * replicas <= admitted <= 1000


async def test_who_calls_often_costs_few_round_trips() -> None:
    rig = Rig("60000/minute")

    for _ in range(60_000):
        assert await rig.take() == 0

    assert len(rig.windows.asked) < 100


async def test_who_calls_seldom_is_charged_for_what_it_uses() -> None:
    rig = Rig("60000/minute", replicas=2)

    await rig.take(replica=0)
    await rig.take(replica=1)

    assert [amount for _, amount in rig.windows.asked] == [1, 1]


async def test_callers_at_once_ask_once_and_use_what_that_brings() -> None:
    rig = Rig("60000/minute")
    for _ in range(7):  # 1, 2 and 4
        await rig.take()

    assert await rig.admitted(8) == 8

    assert [amount for _, amount in rig.windows.asked] == [1, 2, 4, 8]


async def test_the_last_of_a_rate_is_taken_one_by_one() -> None:
    rig = Rig("100/minute", replicas=2)

    admitted = 0
    while await rig.take(replica=0) == 0:
        admitted += 1
    while await rig.take(replica=1) == 0:
        admitted += 1

    assert admitted == 100


async def test_who_is_refused_is_refused_without_a_round_trip_until_there_is_room() -> None:
    rig = Rig()
    await rig.admitted(4)
    wait = await rig.take()
    asked = len(rig.windows.asked)

    for _ in range(10_000):
        assert await rig.take() == wait
    rig.clock.advance(wait - 0.1)
    assert await rig.take() == pytest.approx(0.1)

    assert len(rig.windows.asked) == asked
    rig.clock.advance(0.1)
    assert await rig.take() == 0


async def test_many_refused_at_once_ask_once() -> None:
    rig = Rig()
    await rig.admitted(3)
    asked = len(rig.windows.asked)

    assert await rig.admitted(1000) == 0

    assert len(rig.windows.asked) == asked + 2  # for one call, and for how long


@examples(200)
@given(
    limit=st.integers(1, 200),
    before=st.integers(0, 200),
    present=st.integers(0, 200),
    passed=st.floats(0, 59, allow_nan=False),
)
async def test_the_wait_is_until_there_is_room_and_not_much_longer(
    limit: int, before: int, present: int, passed: float
) -> None:
    rig = Rig(f"{limit}/minute")
    key = f"mesh/LookupColony,RegisterColony/{limit}/minute/mesh-1"
    now = rig.windows._now()
    rig.windows._windows[key] = (now - passed, min(before, limit), min(present, limit))

    wait = await rig.take()

    if wait:
        assert wait <= 60.002
        rig.clock.advance(max(0, wait - 0.01))
        early = await rig.windows.acquire_sliding_window_entry(key, limit, 60, 1)
        assert not early or wait <= 0.01
        rig.clock.advance(min(wait, 0.01) + 0.000002)
        assert early or await rig.take() == 0


async def test_a_caller_who_gives_up_leaves_the_others_theirs() -> None:
    rig = Rig("10/minute")
    rig.windows.hanging = True
    gone, waiting = asyncio.create_task(rig.take()), asyncio.create_task(rig.take())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    rig.windows.hanging = False
    gone.cancel()

    assert await waiting == 0
    assert gone.cancelled()


async def test_a_failure_is_raised_to_who_asked_and_forgotten() -> None:
    rig = Rig()
    rig.windows.failing = True
    with pytest.raises(StoreUnavailableError):
        await rig.take()

    rig.windows.failing = False

    assert await rig.admitted(4) == 3


@pytest.mark.parametrize("name", ["mesh-1", "{}", "a/b", "}{", "é", "\ud800", "\n", "m" * 100_000])
async def test_any_name_counts_in_a_short_and_plain_key(name: str) -> None:
    rig = Rig()

    assert await rig.admitted(4, name) == 3

    [key] = {key for key, _ in rig.windows.asked}
    assert key.startswith("mesh/LookupColony,RegisterColony/3/minute/")
    assert len(key) < 300
    assert key.isascii()
    assert key.isprintable()


async def test_names_made_up_take_no_more_memory_than_the_room_there_is() -> None:
    rig = Rig(room=100)
    tracemalloc.start()
    try:
        for number in range(5000):
            await rig.take(f"made-up-{number}")
            rig.windows.asked.clear()
            rig.windows._windows.clear()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert len(rig.meters[0]._buckets) <= 200
    assert kept < 200 * 2000
