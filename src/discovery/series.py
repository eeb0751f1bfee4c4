"""Numbers that cost next to nothing to add to, and become Prometheus' metrics when those are asked for (`exposition`).

A call that is answered takes seven steps, and each step of prometheus_client's own counters and histograms takes locks
and several function calls. These add to plain numbers, and leave the rest to the moment of a scrape. Nothing is locked:
who adds and who collects must share a thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal


class Registry:
    """Makes metrics, and has all that it made. They are called `prefix` and then their name."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.counts: list[Counts] = []
        self.spreads: list[Spreads] = []

    def counter(self, name: str, text: str, *labels: str) -> Counts:
        """Return a new counter."""
        return self._count(Counts("counter", self.prefix + name, text, labels))

    def gauge(self, name: str, text: str, *labels: str) -> Counts:
        """Return a new gauge."""
        return self._count(Counts("gauge", self.prefix + name, text, labels))

    def histogram(self, bounds: Sequence[float], name: str, text: str, *labels: str) -> Spreads:
        """Return a new histogram. Its buckets end at each of `bounds`, which ascend, and at infinity."""
        spreads = Spreads(bounds, self.prefix + name, text, labels)
        self.spreads.append(spreads)
        return spreads

    def _count(self, counts: Counts) -> Counts:
        self.counts.append(counts)
        return counts


# -- Counters and gauges --------------------------------------------------------------------------


class Count:
    """One series of a counter or a gauge. Whoever is in a hurry adds to `number`."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def inc(self, by: int = 1) -> None:
        """Add `by`."""
        self.number += by


@dataclass(frozen=True, slots=True)
class Counts:
    """A counter or gauge: its series by the values of its labels."""

    kind: Literal["counter", "gauge"]
    name: str
    text: str
    names: Sequence[str]
    """Of its labels."""
    series: defaultdict[tuple[str, ...], Count] = field(default_factory=partial(defaultdict, Count))

    def labels(self, *values: str) -> Count:
        """Return the series of these values, in the labels' order. From the first time on it is there, at zero."""
        return self.series[values]


# -- Histograms -----------------------------------------------------------------------------------


class Spread:
    """One series of a histogram: how many observations there were between each two bounds, and their sum."""

    __slots__ = ("_bounds", "numbers", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.numbers = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, amount: float) -> None:
        """Take note of `amount`. One that is just at a bound is below it."""
        self.numbers[bisect_left(self._bounds, amount)] += 1
        self.total += amount


class Spreads:
    """A histogram: its series by the values of its labels."""

    def __init__(self, bounds: Sequence[float], name: str, text: str, names: Sequence[str]) -> None:
        self.bounds = bounds
        self.name = name
        self.text = text
        self.names = names
        """Of its labels."""
        self._series: defaultdict[tuple[str, ...], Spread] = defaultdict(partial(Spread, bounds))

    def labels(self, *values: str) -> Spread:
        """Return the series of these values, in the labels' order. From the first time on it is there, at zero."""
        return self._series[values]

    @property
    def series(self) -> Mapping[tuple[str, ...], Spread]:
        """All that are there."""
        return self._series
