"""Our numbers against prometheus_client's own: what both are told alike, both must tell alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.openmetrics import exposition as openmetrics

from discovery.exposition import expose
from discovery.series import Registry
from tests.support import examples

BOUNDS = (0.0001, 0.25, 1.0, 10.0)
TEXT = 'What a "test" did.\nAnd how \\ often.'

series = st.tuples(st.sampled_from(["a", "", 'b"\\\n']), st.sampled_from(["x", "y"]))
amounts = st.sampled_from(BOUNDS) | st.floats(0, 20)


class Theirs(CollectorRegistry):
    """A registry without the `_created` series that ours never has."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


@pytest.fixture
def ours() -> Registry:
    return Registry("test_")


def told(registry: CollectorRegistry) -> list[bytes]:
    """Return what a scrape reads, in either format, twice: reading changes nothing."""
    formats: list[Callable[[CollectorRegistry], bytes]] = [
        generate_latest,
        openmetrics.generate_latest,
    ]
    return [written(registry) for written in formats * 2]


@given(st.lists(st.tuples(series, st.integers(0, 3))))
@examples(100)
def test_a_counter_tells_what_theirs_tells(steps: list[tuple[tuple[str, str], int]]) -> None:
    ours, theirs = Registry("test_"), Theirs()
    count = ours.counter("steps_total", TEXT, "one", "two")
    counter = Counter("test_steps_total", TEXT, ["one", "two"], registry=theirs)
    for values, number in steps:
        count.labels(*values).inc(number)
        counter.labels(*values).inc(number)
        assert told(expose(ours)) == told(theirs)


@given(st.lists(st.tuples(series, st.integers(-3, 3))))
@examples(100)
def test_a_gauge_tells_what_theirs_tells(steps: list[tuple[tuple[str, str], int]]) -> None:
    ours, theirs = Registry("test_"), Theirs()
    count = ours.gauge("depth", TEXT, "one", "two")
    gauge = Gauge("test_depth", TEXT, ["one", "two"], registry=theirs)
    for values, number in steps:
        count.labels(*values).number += number
        gauge.labels(*values).inc(number)
    assert told(expose(ours)) == told(theirs)


@given(st.lists(st.tuples(series, st.none() | amounts)))
@examples(100)
def test_a_histogram_tells_what_theirs_tells(
    steps: list[tuple[tuple[str, str], float | None]],
) -> None:
    ours, theirs = Registry("test_"), Theirs()
    spread = ours.histogram(BOUNDS, "took_seconds", TEXT, "one", "two")
    histogram = Histogram(
        "test_took_seconds", TEXT, ["one", "two"], buckets=BOUNDS, registry=theirs
    )
    for values, seconds in steps:
        mine, yours = spread.labels(*values), histogram.labels(*values)
        if seconds is not None:
            mine.observe(seconds)
            yours.observe(seconds)
    assert told(expose(ours)) == told(theirs)


def test_a_series_without_labels_is_there_at_zero(ours: Registry) -> None:
    theirs = Theirs()
    ours.counter("steps_total", TEXT).labels()
    Counter("test_steps_total", TEXT, registry=theirs)

    assert told(expose(ours)) == told(theirs)
    assert b"\ntest_steps_total 0.0\n" in generate_latest(expose(ours))


def test_a_metric_without_a_series_is_there_by_name(ours: Registry) -> None:
    ours.gauge("depth", TEXT, "one")
    assert [(metric.name, metric.samples) for metric in expose(ours).collect()] == [
        ("test_depth", [])
    ]


def test_two_metrics_of_one_name_are_refused(ours: Registry) -> None:
    ours.counter("steps_total", TEXT)
    ours.gauge("steps", TEXT)
    with pytest.raises(ValueError, match="test_steps"):
        expose(ours)
