"""The rate in memory: what it admits to the call, when it has room again, and that names made up cost nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.clock import SystemClock
from discovery.ratelimits import MemoryMeter, Rate
from discovery.ratelimits.recent import Recent
from tests.support import ManualClock, examples


def _at_once(call: Coroutine[Any, Any, float]) -> float:
    """Return what the coroutine returns, if it never suspends."""
    with pytest.raises(StopIteration) as done:
        call.send(None)
    return float(done.value.value)


class Rig:
    def __init__(self, amount: int = 3, seconds: int = 60, room: int = 100) -> None:
        self.clock = ManualClock()
        self._meter = MemoryMeter(Rate(amount, seconds), self.clock, room)

    def take(self, name: str = "mesh-1") -> float:
        return _at_once(self._meter.take(name))


@pytest.mark.parametrize("amount", [1, 3, 7, 60_000])
def test_all_calls_of_a_period_may_come_at_once_and_not_one_more(amount: int) -> None:
    rig = Rig(amount)

    assert [rig.take() for _ in range(amount)] == [0.0] * amount
    assert rig.take() > 0


@pytest.mark.parametrize("amount, seconds", [(1, 1), (3, 60), (7, 3600), (60_000, 60)])
def test_the_wait_is_exactly_until_there_is_room(amount: int, seconds: int) -> None:
    rig = Rig(amount, seconds)
    for _ in range(amount):
        rig.take()

    wait = rig.take()
    assert wait == pytest.approx(seconds / amount)
    rig.clock.advance(wait - 0.00001)
    assert rig.take() == pytest.approx(0.00001, abs=2e-6)
    rig.clock.advance(0.000012)
    assert rig.take() == 0


def test_what_is_refused_does_not_put_off_the_next_call() -> None:
    rig = Rig()
    for _ in range(3):
        rig.take()

    waits = {rig.take() for _ in range(1000)}

    assert waits == {20.0}


def test_who_was_away_for_long_has_no_more_calls_than_others() -> None:
    rig = Rig()
    rig.take()
    rig.clock.advance(86_400)

    assert [rig.take() for _ in range(4)] == [0.0, 0.0, 0.0, 20.0]


def test_names_do_not_share_a_rate() -> None:
    rig = Rig(amount=1)

    assert rig.take("mesh-1") == 0
    assert rig.take("mesh-2") == 0
    assert rig.take("mesh-1") > 0


def test_a_step_of_the_wall_clock_changes_nothing() -> None:
    rig = Rig(amount=1)
    rig.take()

    rig.clock.step_wall(-86_400)
    assert rig.take() == 60.0
    rig.clock.step_wall(2 * 86_400)
    assert rig.take() == 60.0


@examples(200)
@given(
    amount=st.integers(1, 20),
    gaps=st.lists(st.sampled_from([0.0, 0.001, 0.5, 1.0, 3.0, 30.0, 61.0]), max_size=200),
)
def test_no_stretch_of_time_admits_more_than_its_share_and_a_full_period(
    amount: int, gaps: list[float]
) -> None:
    rig, now, admitted = Rig(amount), 0.0, list[float]()
    for gap in gaps:
        rig.clock.advance(gap)
        now += gap
        if rig.take() == 0:
            admitted.append(now)

    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            most = amount + (admitted[last] - start) * amount / 60
            assert last - first + 1 <= most + 1e-6


@examples(100)
@given(
    amount=st.integers(1, 20),
    jitter=st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=100),
)
def test_whoever_stays_below_the_rate_is_never_refused(amount: int, jitter: list[float]) -> None:
    rig = Rig(amount)

    for extra in jitter:
        assert rig.take() == 0
        rig.clock.advance(60 / amount + 1e-6 + extra)


def test_a_hundred_thousand_names_made_up_take_no_more_memory_than_the_room_there_is() -> None:
    meter = MemoryMeter(Rate(60, 60), SystemClock(), room=1000)

    for number in range(97_000):
        _drive(meter, f"made-up-{number}")
    tracemalloc.start()
    try:
        for number in range(97_000, 100_000):
            _drive(meter, f"made-up-{number}")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert len(meter._whole_at) <= 2000
    assert kept < 2000 * 200


def _drive(meter: MemoryMeter, name: str) -> None:
    try:
        meter.take(name).send(None)
    except StopIteration:
        return
    raise AssertionError("it suspended")


def test_names_of_any_length_take_the_same_memory() -> None:
    meter = MemoryMeter(Rate(60, 60), SystemClock(), room=100)
    tracemalloc.start()
    try:
        for number in range(1000):
            _drive(meter, f"{number:065536}")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert kept < 2 * 65_536


def test_a_name_that_is_refused_is_remembered_for_as_long_as_it_calls() -> None:
    rig = Rig(amount=1, room=10)
    rig.take("flood")

    for number in range(1000):
        rig.take(f"made-up-{number}")
        if number % 9 == 0:
            assert rig.take("flood") > 0


def test_a_name_is_forgotten_once_enough_others_were_used() -> None:
    rig = Rig(amount=1, room=10)
    rig.take()

    for number in range(21):
        rig.take(f"other-{number}")

    assert rig.take() == 0


# What the meters keep names in


@examples(200)
@given(room=st.integers(1, 5), keys=st.lists(st.integers(0, 12), max_size=100))
def test_the_last_used_keys_are_kept_and_no_more_than_twice_the_room(
    room: int, keys: list[int]
) -> None:
    recent = Recent[int, str](room)
    for place, key in enumerate(keys):
        if recent.get(key) is None:
            recent.put(key, str(key))
        assert len(recent) <= 2 * room
        last = list(dict.fromkeys(reversed(keys[: place + 1])))[:room]
        assert all(recent._young.get(k, recent._old.get(k)) == str(k) for k in last)


def test_to_set_a_key_that_is_there_makes_others_forgotten_no_sooner() -> None:
    recent = Recent[str, int](2)
    for key in ("a", "b", "c", "d"):
        recent.put(key, 0)

    for number in range(10):
        recent.put("d", number)

    assert len(recent) == 4
    assert recent.get("a") == 0
    assert recent.get("d") == 9
