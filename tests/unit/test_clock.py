from __future__ import annotations

import time
from itertools import pairwise

from discovery.clock import SystemClock


def test_the_system_clock_tells_unix_time_in_microseconds() -> None:
    before = time.time_ns() // 1000
    now = SystemClock().now().unix_us

    assert before <= now <= time.time_ns() // 1000


def test_the_monotonic_time_never_goes_back() -> None:
    clock = SystemClock()
    moments = [clock.now().monotonic_us for _ in range(1000)]

    assert all(before <= after for before, after in pairwise(moments))


def test_monotonic_time_is_in_microseconds_too() -> None:
    clock = SystemClock()
    began, began_ns = clock.now().monotonic_us, time.perf_counter_ns()
    while time.perf_counter_ns() - began_ns < 2_000_000:
        pass
    ended, ended_ns = clock.now().monotonic_us, time.perf_counter_ns()

    # Far enough apart to tell microseconds from nanoseconds and milliseconds on the busiest machine.
    assert 0.1 < (ended - began) / ((ended_ns - began_ns) / 1000) < 10
