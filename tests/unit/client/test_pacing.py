from __future__ import annotations

import asyncio

import pytest

from discovery.client.pacing import Backoff, Pacing, elapsed, is_transient
from discovery.clock import Instant
from discovery.errors import (
    Code,
    DeadlineExceededError,
    DiscoveryError,
    DrainingError,
    InternalError,
    InvalidFieldError,
    MeshIdTakenError,
    NotOwnerError,
    OtherError,
    StoreUnavailableError,
    TooLargeError,
    UnimplementedError,
    UnreachableError,
)
from tests.unit.client.virtual_time import VirtualClock, in_virtual_time

TRANSIENT = [
    DeadlineExceededError("late"),
    DrainingError("stops"),
    InternalError("defect"),
    OtherError(Code.ABORTED, "", "again"),
    OtherError(Code.CANCELLED, "", "by a proxy"),
    OtherError(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "slowly"),
    OtherError(Code.UNKNOWN, "", "what?"),
    StoreUnavailableError("away"),
    UnreachableError("away"),
]
PERMANENT = [
    InvalidFieldError(()),
    MeshIdTakenError("mesh-1", 0),
    NotOwnerError("mesh-1"),
    OtherError(Code.PERMISSION_DENIED, "", "no"),
    OtherError(Code.UNAUTHENTICATED, "", "who?"),
    OtherError(Code.FAILED_PRECONDITION, "", "not so"),
    TooLargeError("too large"),
    UnimplementedError("no such call"),
]


def by_name(error: DiscoveryError) -> str:
    return f"{type(error).__name__}-{error.code.name}"


@pytest.mark.parametrize("error", TRANSIENT, ids=by_name)
def test_what_passes_by_itself_is_transient(error: DiscoveryError) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", PERMANENT, ids=by_name)
def test_what_stays_wrong_is_not_transient(error: DiscoveryError) -> None:
    assert not is_transient(error)


def test_ceilings_double_up_to_the_cap_and_stay_there() -> None:
    backoff = Backoff(1.0, 30.0, lambda: 1.0)

    assert [backoff.next() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert {backoff.next() for _ in range(5000)} == {30}  # 2 ** 5000 is no float


def test_a_wait_is_anything_up_to_its_ceiling() -> None:
    draws = iter([0.0, 0.25, 0.999])
    backoff = Backoff(1.0, 30.0, lambda: next(draws))

    assert [backoff.next(), backoff.next(), backoff.next()] == [0.0, 0.5, pytest.approx(3.996)]


def test_a_cap_below_the_base_holds_from_the_start() -> None:
    assert Backoff(1.0, 0.2, lambda: 1.0).next() == 0.2


def test_an_attempt_that_succeeded_begins_the_waits_anew() -> None:
    backoff = Backoff(1.0, 30.0, lambda: 1.0)
    backoff.next()
    backoff.next()

    backoff.reset()

    assert backoff.next() == 1.0


def test_jitter_comes_on_top_of_what_the_server_asks_for() -> None:
    draws = iter([0.0, 0.5])
    backoff = Backoff(1.0, 30.0, lambda: next(draws))

    assert [backoff.next(10.0), backoff.next(10.0)] == [10.0, 11.0]


@pytest.mark.parametrize("asked, heeded", [(-5.0, 0.0), (1e9, 300.0), (float("inf"), 300.0)])
def test_a_senseless_retry_after_is_brought_to_reason(asked: float, heeded: float) -> None:
    assert Backoff(1.0, 30.0, lambda: 0.0).next(asked) == heeded


def test_a_repeated_call_comes_up_to_a_tenth_early_and_never_late() -> None:
    assert Pacing(spread=lambda: 0.0).soon(60) == 60
    assert Pacing(spread=lambda: 1.0).soon(60) == pytest.approx(54)


@pytest.mark.parametrize(
    "wall, monotonic, passed",
    [(5, 5, 5), (3600, 5, 3600), (-3600, 5, 5)],
    ids=["both", "suspended where monotonic time stops", "wall clock set back"],
)
def test_time_has_passed_if_either_clock_says_so(wall: int, monotonic: int, passed: int) -> None:
    later = Instant(wall * 1_000_000, monotonic * 1_000_000)

    assert elapsed(Instant(0, 0), later) == passed


@in_virtual_time
async def test_a_wait_ends_on_time() -> None:
    clock = VirtualClock()

    await Pacing(clock=clock).wait(61.5, asyncio.Event())

    assert clock.seconds() == pytest.approx(61.5, abs=0.001)


@in_virtual_time
async def test_a_wait_counts_from_the_moment_it_is_given() -> None:
    clock = VirtualClock()
    since = clock.now()
    await asyncio.sleep(40)

    await Pacing(clock=clock).wait(60, asyncio.Event(), since=since)

    assert clock.seconds() == pytest.approx(60, abs=0.001)


@in_virtual_time
async def test_a_wait_ends_when_it_is_woken() -> None:
    clock, wake = VirtualClock(), asyncio.Event()
    asyncio.get_running_loop().call_later(7, wake.set)

    await Pacing(clock=clock).wait(float("inf"), wake)

    assert clock.seconds() == pytest.approx(7)


@in_virtual_time
async def test_a_wait_that_a_suspended_machine_slept_through_ends_soon_after() -> None:
    clock = VirtualClock()
    asyncio.get_running_loop().call_later(10, clock.suspend, 3600)

    await Pacing(clock=clock).wait(300, asyncio.Event())

    assert 3610 <= clock.seconds() <= 3620


@in_virtual_time
async def test_a_wall_clock_that_is_set_back_does_not_stretch_a_wait() -> None:
    clock = VirtualClock()
    asyncio.get_running_loop().call_later(10, clock.step_wall, -7200)

    await Pacing(clock=clock).wait(60, asyncio.Event())

    assert clock.seconds() == pytest.approx(60, abs=0.001)
