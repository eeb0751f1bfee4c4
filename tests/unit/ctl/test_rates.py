from __future__ import annotations

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.rates import MethodRate, rates


def stats(uptime: int, **counts: int) -> pb.StatsResponse:
    calls = []
    for name, count in counts.items():
        method, status = name.split("__")
        calls.append(pb.CallCount(method, status, count))
    return pb.StatsResponse(uptime_seconds=uptime, calls=calls)


def test_rates_are_by_method_the_busiest_first_with_errors_apart() -> None:
    before = stats(10, Lookup__OK=100, Lookup__NOT_FOUND=10, Register__OK=7)
    after = stats(12, Lookup__OK=140, Lookup__NOT_FOUND=16, Register__OK=7)
    assert rates(before, after, 2) == [
        MethodRate("Lookup", 23, 3, 156),
        MethodRate("Register", 0, 0, 7),
    ]


def test_a_method_that_was_not_called_before_counts_from_zero() -> None:
    assert rates(stats(1), stats(2, Lookup__OK=4), 1) == [MethodRate("Lookup", 4, 0, 4)]


def test_a_restart_in_between_makes_no_negative_rates() -> None:
    (rate,) = rates(stats(1000, Lookup__OK=500), stats(1, Lookup__OK=2), 2)
    assert rate == MethodRate("Lookup", 1, 0, 2)
