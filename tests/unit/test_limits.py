from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.transport.limits import (
    ConnectionLimits,
    Deadline,
    make_room,
    notice_dead_peers,
)
from tests.support import examples

# -- Connections ----------------------------------------------------------------------------------


def test_the_total_holds_over_all_addresses() -> None:
    limits = ConnectionLimits(total=2, per_address=0)
    assert limits.admit("192.0.2.1")
    assert limits.admit(None)
    assert limits.admit("192.0.2.2") is None
    assert (limits.open, limits.refused) == (2, 1)


def test_one_address_leaves_room_for_others() -> None:
    limits = ConnectionLimits(total=0, per_address=1)
    assert limits.admit("192.0.2.1")
    assert limits.admit("192.0.2.1") is None
    assert limits.admit("192.0.2.2")


def test_a_place_given_back_is_there_for_the_next() -> None:
    limits = ConnectionLimits(total=1, per_address=1)
    place = limits.admit("192.0.2.1")
    assert place is not None
    place.release()
    assert limits.admit("192.0.2.1")


def test_a_place_is_given_back_only_once() -> None:
    limits = ConnectionLimits(total=2, per_address=2)
    place, _other = limits.admit("192.0.2.1"), limits.admit("192.0.2.1")
    assert place is not None
    place.release()
    place.release()
    assert limits.open == 1
    assert limits.admit("192.0.2.1")
    assert limits.admit("192.0.2.1") is None


@pytest.mark.parametrize(
    "one,other,same",
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_an_ipv6_site_counts_as_one_address(one: str, other: str, same: bool) -> None:
    limits = ConnectionLimits(total=0, per_address=1)
    limits.admit(one)
    assert (limits.admit(other) is None) == same


def test_unix_sockets_and_the_exempt_share_only_the_total() -> None:
    limits = ConnectionLimits(total=5, per_address=1, exempt="10.0.0.1".__eq__)
    assert all(limits.admit(address) for address in (None, None, "10.0.0.1", "10.0.0.1"))
    assert limits.admit("10.0.0.2")
    assert limits.admit(None) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
@examples(100)
def test_what_is_counted_is_what_is_open(steps: list[tuple[bool, int]]) -> None:
    limits = ConnectionLimits(total=7, per_address=3)
    held: list[tuple[int, Callable[[], None]]] = []
    for coming, number in steps:
        if coming:
            mine = sum(1 for other, _ in held if other == number)
            place = limits.admit(f"192.0.2.{number}")
            assert (place is not None) == (len(held) < 7 and mine < 3)
            if place is not None:
                held.append((number, place.release))
        elif held:
            held.pop(number % len(held))[1]()
        assert limits.open == len(held)
    for _, release in held:
        release()
    assert not limits._by_site, "memory is for open connections alone"


# -- Descriptors ----------------------------------------------------------------------------------


@dataclass
class FakeLimits:
    """Stands for the system's limit on open files."""

    soft: int
    hard: int
    refuses: bool = False

    def getrlimit(self, _which: int) -> tuple[int, int]:
        return self.soft, self.hard

    def setrlimit(self, _which: int, limits: tuple[int, int]) -> None:
        if self.refuses:
            raise ValueError("current limit exceeds maximum limit")
        self.soft, self.hard = limits


@pytest.mark.parametrize(
    "limits,fits",
    [
        (FakeLimits(1024, 1_000_000), 10_000),
        (FakeLimits(1024, 4096), 4096 - 128),
        (FakeLimits(1024, 4096, refuses=True), 1024 - 128),
        (FakeLimits(1024, resource.RLIM_INFINITY), 10_000),
        (FakeLimits(resource.RLIM_INFINITY, resource.RLIM_INFINITY), 10_000),
        (FakeLimits(100_000, 100_000), 10_000),
        (FakeLimits(64, 64), 1),
    ],
)
def test_as_many_connections_fit_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, limits: FakeLimits, fits: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", limits.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limits.setrlimit)
    before = limits.hard
    assert make_room(10_000) == fits
    assert limits.hard == before


# -- Time -----------------------------------------------------------------------------------------


@dataclass
class FakeTimer:
    due: float
    callback: Callable[[], object]
    cancelled: bool = False

    def when(self) -> float:
        return self.due

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeLoop:
    """An event loop's timers, on a clock that is wound."""

    now: float = 1000.0
    timers: list[FakeTimer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> FakeTimer:
        timer = FakeTimer(when, callback)
        self.timers.append(timer)
        return timer

    @property
    def pending(self) -> list[FakeTimer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while due := [timer for timer in self.pending if timer.due <= self.now]:
            self.timers.remove(due[0])
            due[0].callback()


class Late:
    """A deadline, and how often it was missed."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.times = 0
        self.deadline = Deadline(self._count, self.loop)  # type: ignore[arg-type] # a FakeTimer will do

    def _count(self) -> None:
        self.times += 1


def test_who_is_late_is_told_once() -> None:
    late = Late()
    late.deadline.arm(10)
    late.loop.advance(9)
    assert (late.times, late.deadline.armed) == (0, True)
    late.loop.advance(1)
    late.loop.advance(100)
    assert (late.times, late.deadline.armed) == (1, False)


def test_who_is_in_time_is_not_disturbed() -> None:
    late = Late()
    late.deadline.arm(10)
    late.deadline.disarm()
    late.deadline.disarm()
    late.loop.advance(100)
    assert late.times == 0


def test_what_is_awaited_next_has_its_own_time() -> None:
    late = Late()
    late.deadline.arm(10)
    late.loop.advance(9)
    late.deadline.arm(10)
    late.loop.advance(9)
    assert late.times == 0
    late.loop.advance(1)
    assert late.times == 1


def test_a_shorter_time_counts_from_when_it_is_set() -> None:
    late = Late()
    late.deadline.arm(100)
    late.deadline.arm(1)
    late.loop.advance(1)
    assert late.times == 1


def test_a_deadline_can_be_set_again_after_it_was_missed() -> None:
    late = Late()
    for _ in range(2):
        late.deadline.arm(10)
        late.loop.advance(10)
    assert late.times == 2


def test_a_thousand_requests_make_one_timer() -> None:
    late = Late()
    for _ in range(1000):
        late.deadline.arm(10)
        late.deadline.disarm()
    assert len(late.loop.timers) == 1


def test_nothing_of_a_closed_deadline_is_left_in_the_loop() -> None:
    late = Late()
    late.deadline.arm(10)
    late.deadline.close()
    late.deadline.close()
    assert not late.loop.pending


async def test_the_running_loop_is_the_default() -> None:
    deadline = Deadline(lambda: None)
    deadline.arm(60)
    deadline.close()


# -- Dead peers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_dead_peer_is_noticed_within_the_time(family: socket.AddressFamily) -> None:
    with socket.socket(family) as sock:
        notice_dead_peers(sock, within=30)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined,unused-ignore]
        first, between, count = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (idle, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert 0 < first + between * count <= 30
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_a_unix_socket_is_left_alone() -> None:
    one, other = socket.socketpair()
    with one, other:
        notice_dead_peers(one)
