"""What the metrics are to Prometheus. It is imported when they are first asked for: its client is slow to import.

There are no `_created` series: no Prometheus reads them by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from discovery.series import Counts, Registry, Spreads

_KINDS = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


def expose(metrics: Registry) -> CollectorRegistry:
    """Return what Prometheus' client makes of `metrics`, as they are at each scrape.

    Raises:
        ValueError: two have the same name.
    """
    registry = CollectorRegistry(auto_describe=True)
    for counts in metrics.counts:
        registry.register(_Counted(counts))
    for spreads in metrics.spreads:
        registry.register(_Spread(spreads))
    return registry


class _Counted(Collector):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it is now: see Collector."""
        counts = self._counts
        family = _KINDS[counts.kind](counts.name, counts.text, labels=counts.names)
        for values, count in counts.series.items():
            family.add_metric(values, count.number)
        yield family


class _Spread(Collector):
    def __init__(self, spreads: Spreads) -> None:
        self._spreads = spreads
        # Below a million, `str` writes a number as prometheus_client does.
        self._bounds = [*map(str, spreads.bounds), "+Inf"]

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it is now: see Collector. Each of its buckets has what those before it have too."""
        spreads = self._spreads
        family = HistogramMetricFamily(spreads.name, spreads.text, labels=spreads.names)
        for values, spread in spreads.series.items():
            buckets = zip(self._bounds, accumulate(spread.numbers), strict=True)
            family.add_metric(values, list(buckets), spread.total)
        yield family
