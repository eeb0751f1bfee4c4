"""How fast a replica works: from how often each call was counted, twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from discovery._gen.coral.discovery.admin import v1 as pb

_OK = "OK"


@dataclass(frozen=True, slots=True)
class MethodRate:
    """One method: answers a second, those of them that were errors, and how many there were since the start."""

    method: str
    per_second: float
    errors_per_second: float
    total: int


def rates(before: pb.StatsResponse, after: pb.StatsResponse, seconds: float) -> list[MethodRate]:
    """Return the rate of each method between two counts that are `seconds` apart, the busiest first."""
    old = {} if after.uptime_seconds < before.uptime_seconds else _counts(before.calls)
    methods: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for (method, status), count in _counts(after.calls).items():
        methods[method][status] = count
    found = [_rate(method, counts, old, seconds) for method, counts in methods.items()]
    return sorted(found, key=lambda rate: (-rate.per_second, -rate.total, rate.method))


def _rate(
    method: str, counts: Mapping[str, int], old: Mapping[tuple[str, str], int], seconds: float
) -> MethodRate:
    grown = {status: count - old.get((method, status), 0) for status, count in counts.items()}
    errors = sum(count for status, count in grown.items() if status != _OK)
    total = sum(counts.values())
    return MethodRate(method, sum(grown.values()) / seconds, errors / seconds, total)


def _counts(calls: Sequence[pb.CallCount]) -> Mapping[tuple[str, str], int]:
    return {(call.method, call.status): call.count for call in calls}
