"""The alert rules, the dashboard and the runbook fit each other, and the metrics that the server has."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from prometheus_client import Metric

from discovery.errors import Code
from discovery.metrics import Metrics
from tests.deploy.observability import (
    RUNBOOK,
    Query,
    alerts,
    all_queries,
    dashboard,
    dashboard_queries,
    panels,
    records,
    rule_queries,
    rules,
    runbook_sections,
    tried_alerts,
)
from tests.docs.markdown import ROOT, tables

FROM_PROMETHEUS = frozenset({"up", "ALERTS"})
# The labels by which services and replicas are told apart are for each installation to say.
WHERE = frozenset({"job", "namespace", "instance"})
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
}


def series(metric: Metric) -> Iterator[str]:
    for suffix in SUFFIXES[metric.type]:
        yield metric.name + suffix


@pytest.fixture(scope="module")
def served() -> frozenset[str]:
    """Return the names of all series that a server has."""
    metrics = Metrics("1.2.3")
    metrics.observer((), ())
    metrics.follow_certificate(lambda: 0)
    return frozenset(name for metric in metrics.registry.collect() for name in series(metric))


@pytest.fixture(scope="module")
def label_values() -> Mapping[str, frozenset[str]]:
    """Return what values each label may have, as docs/metrics.md says."""
    found: dict[str, frozenset[str]] = {}
    for _metrics, label, text in tables("docs/metrics.md", "metrics", "label", "values"):
        words = frozenset(re.findall(r"[\w/.]+", text))
        found[label] = found.get(label, frozenset()) | words
    return {**found, "status": frozenset(code.name for code in Code)}


# -- Rules ----------------------------------------------------------------------------------------


def test_each_alert_is_tried_where_it_fires_and_where_it_does_not() -> None:
    tried = set(tried_alerts())
    assert tried == set(itertools.product(alerts(), (True, False)))


def test_no_two_rules_have_one_name() -> None:
    names = Counter(rule.get("alert") or rule["record"] for rule in rules())
    assert not [name for name, times in names.items() if times > 1]


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_urgent_it_is_what_users_see_and_where_to_read_on(name: str) -> None:
    alert = alerts()[name]
    assert name.startswith("CoralDiscovery")
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert all(alert["annotations"].values())
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOK}#{name.lower()}"
    assert "$labels.job" in alert["annotations"]["summary"]


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    severities = {name: alert["labels"]["severity"] for name, alert in alerts().items()}
    assert runbook_sections() == severities
    headings = re.findall(r"^## (.+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)
    assert Counter(headings) == Counter(severities.keys())


@pytest.mark.parametrize("query", [*rule_queries()], ids=lambda query: query.place)
def test_rules_work_whatever_the_service_is_called(query: Query) -> None:
    assert not WHERE & {label for label, _operator, _value in query.matchers}


# -- Queries --------------------------------------------------------------------------------------


def test_names_of_metrics_are_told_from_other_words() -> None:
    query = Query(
        "",
        'sum by (le, job) (rate(a_total{method=~"b|c"}[5m])) # d\n'
        "/ on (job) group_left (version) e:f:rate5m > bool 0.5e3 and avg_over_time((g > 1)[1d:1m])",
    )
    assert query.metrics == {"a_total", "e:f:rate5m", "g"}
    assert query.matchers == [("method", "=~", "b|c")]


@pytest.mark.parametrize("query", all_queries(), ids=lambda query: query.place)
def test_queries_ask_for_what_there_is(
    query: Query, served: frozenset[str], label_values: Mapping[str, frozenset[str]]
) -> None:
    assert query.metrics, "it asks for nothing"
    assert not query.metrics - served - records() - FROM_PROMETHEUS
    for label, operator, text in query.matchers:
        wanted = text.split("|") if operator.endswith("~") else [text]
        if (known := label_values.get(label)) is not None:
            unknown = [one for one in wanted if not any(re.fullmatch(one, v) for v in known)]
            assert not unknown, f"{label} is never {unknown}"


def test_what_is_recorded_is_read() -> None:
    read = {name for query in all_queries() for name in query.metrics}
    assert records() <= read


# -- The dashboard --------------------------------------------------------------------------------


def variables() -> Mapping[str, Mapping[str, Any]]:
    return {variable["name"]: variable for variable in dashboard()["templating"]["list"]}


def test_the_dashboard_can_be_provisioned() -> None:
    assert dashboard()["uid"] == "coral-discovery"
    assert dashboard()["id"] is None
    assert dashboard()["schemaVersion"] >= 42
    assert variables().keys() == {"datasource", "namespace", "job", "instance"}
    assert all(not variable["options"] for variable in variables().values())


def test_panels_have_ids_of_their_own() -> None:
    ids = Counter(panel["id"] for panel in dashboard()["panels"])
    assert set(ids.values()) == {1}


def test_panels_do_not_overlap() -> None:
    cells = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard()["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert set(cells.values()) == {1}
    assert max(x for x, _y in cells) == 23


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_in_what_unit(panel: Mapping[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("query", [*dashboard_queries()], ids=lambda query: query.place)
def test_the_dashboard_shows_the_service_that_is_chosen(query: Query) -> None:
    assert {("namespace", "=~", "$namespace"), ("job", "=", "$job")} <= set(query.matchers)
    assert all(value == f"${label}" for label, _, value in query.matchers if label in WHERE)


def test_every_metric_of_ours_is_shown(served: frozenset[str]) -> None:
    shown = {name for query in dashboard_queries() for name in query.metrics}
    ours = {name for name in served if name.startswith("coral_discovery_")}
    # A sum and a count of seconds make a mean, which hides what percentiles show.
    assert not {name for name in ours - shown if not name.endswith(("_sum", "_count"))}
