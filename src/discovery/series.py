"""Numbers that cost next to nothing to add to, and become Prometheus' metrics when those are asked for.

A call that is answered takes seven steps, and each step of prometheus_client's own counters and histograms takes locks
and several function calls. These add to plain numbers, and leave the rest to the moment of a scrape. Nothing is locked:
who adds and who collects must share a thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector


class Registry(CollectorRegistry):
    """A registry, and what makes metrics in it. All that are made here are called `prefix` and then their name.

    It refuses a second metric of one name. There are no `_created` series: no Prometheus reads them by default.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__(auto_describe=True)
        self._prefix = prefix

    def counter(self, name: str, text: str, *labels: str) -> Counts:
        """Return a new counter."""
        return self._counts(CounterMetricFamily, name, text, labels)

    def gauge(self, name: str, text: str, *labels: str) -> Counts:
        """Return a new gauge."""
        return self._counts(GaugeMetricFamily, name, text, labels)

    def histogram(self, bounds: Sequence[float], name: str, text: str, *labels: str) -> Spreads:
        """Return a new histogram. Its buckets end at each of `bounds`, which ascend, and at infinity."""
        spreads = Spreads(bounds, self._prefix + name, text, labels)
        self.register(spreads)
        return spreads

    def _counts(self, kind: _CountsKind, name: str, text: str, labels: Sequence[str]) -> Counts:
        counts = Counts(kind, self._prefix + name, text, labels)
        self.register(counts)
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


_CountsKind = type[CounterMetricFamily] | type[GaugeMetricFamily]


class Counts(Collector):
    """A counter or gauge: its series by the values of its labels."""

    def __init__(self, kind: _CountsKind, name: str, text: str, labels: Sequence[str]) -> None:
        self._empty = partial(kind, name, text, labels=labels)
        self._series: defaultdict[tuple[str, ...], Count] = defaultdict(Count)

    def labels(self, *values: str) -> Count:
        """Return the series of these values, in the labels' order. From the first time on it is there, at zero."""
        return self._series[values]

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it is now: see Collector."""
        family = self._empty()
        for values, count in self._series.items():
            family.add_metric(values, count.number)
        yield family


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


class Spreads(Collector):
    """A histogram: its series by the values of its labels."""

    def __init__(
        self, bounds: Sequence[float], name: str, text: str, labels: Sequence[str]
    ) -> None:
        self._empty = partial(HistogramMetricFamily, name, text, labels=labels)
        # Below a million, `str` writes a number as prometheus_client does.
        self._bounds = [*map(str, bounds), "+Inf"]
        self._series: defaultdict[tuple[str, ...], Spread] = defaultdict(partial(Spread, bounds))

    def labels(self, *values: str) -> Spread:
        """Return the series of these values, in the labels' order. From the first time on it is there, at zero."""
        return self._series[values]

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it is now: see Collector. Each of its buckets has what those before it have too."""
        family = self._empty()
        for values, spread in self._series.items():
            buckets = zip(self._bounds, accumulate(spread.numbers), strict=True)
            family.add_metric(values, list(buckets), spread.total)
        yield family
