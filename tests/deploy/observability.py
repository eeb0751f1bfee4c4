"""The alert rules, the dashboard and the pages about them, taken apart: what the tests and .ci/observe.sh look at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from tests.docs.markdown import ROOT, blocks

RULES = ROOT / "deploy/prometheus/rules.yaml"
RULE_TESTS = ROOT / "deploy/prometheus/rules.test.yaml"
DASHBOARD = ROOT / "deploy/grafana/coral-discovery.json"
RUNBOOK = "docs/runbook.md"
PAGES = (RUNBOOK, "docs/slo.md", "docs/metrics.md")

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_COMMENT = re.compile(r"#.*")
_MATCHERS = re.compile(r"\{[^}]*\}")
_RANGE = re.compile(r"\[[^\]]*\]")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])")
_WORDS = {"and", "or", "unless", "bool", "offset", "by", "on", "group_left"}
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_SECTION = re.compile(r"^## (.+)\n\n`(page|ticket)`\. ", re.MULTILINE)
_FIRING = re.compile(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}')


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and where it stands."""

    place: str
    expr: str

    @property
    def metrics(self) -> frozenset[str]:
        """The names of the series it reads."""
        text = self.expr
        for noise in (_COMMENT, _STRING, _MATCHERS, _RANGE, _LABELS):
            text = noise.sub(" ", text)
        return frozenset(_NAME.findall(text)) - _WORDS

    @property
    def matchers(self) -> Sequence[tuple[str, str, str]]:
        """What it asks of labels: label, operator, value."""
        return _MATCHER.findall(self.expr)


# -- Rules ----------------------------------------------------------------------------------------


@cache
def rules() -> Sequence[Mapping[str, Any]]:
    """Return every rule, of all groups."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> Mapping[str, Mapping[str, Any]]:
    """Return the alert rules by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def records() -> frozenset[str]:
    """Return the names of the series that recording rules make."""
    return frozenset(rule["record"] for rule in rules() if "record" in rule)


def rule_queries() -> Iterator[Query]:
    """Yield what the rules ask."""
    for rule in rules():
        yield Query(str(rule.get("alert") or rule.get("record")), rule["expr"])


def tried_alerts() -> Iterator[tuple[str, bool]]:
    """Yield which alerts the unit tests expect to fire, and which to be quiet for a service that is `near`."""
    for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]:
        near = any('job="near"' in series["series"] for series in test["input_series"])
        for check in test["promql_expr_test"]:
            for name in _FIRING.findall(check["expr"]):
                labels = [sample["labels"] for sample in check.get("exp_samples", [])]
                yield name, bool(labels)
                if near and not any("near" in text for text in labels):
                    yield name, False


# -- The dashboard --------------------------------------------------------------------------------


@cache
def dashboard() -> Mapping[str, Any]:
    """Return the dashboard."""
    loaded: Mapping[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def panels() -> Sequence[Mapping[str, Any]]:
    """Return the panels that show something; rows do not."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_queries() -> Iterator[Query]:
    """Yield what the panels and the annotations ask."""
    for panel in panels():
        for target in panel["targets"]:
            place = f"panel {panel['title']!r} {target['refId']}"
            yield Query(place, target["expr"])
    for annotation in dashboard()["annotations"]["list"]:
        if "expr" in annotation:
            yield Query(f"annotation {annotation['name']!r}", annotation["expr"])


# -- The pages ------------------------------------------------------------------------------------


def runbook_sections() -> Mapping[str, str]:
    """Return the severity that the runbook gives each alert."""
    return dict(_SECTION.findall((ROOT / RUNBOOK).read_text()))


def page_queries() -> Iterator[Query]:
    """Yield the queries that the pages give; a block may hold several, with an empty line between."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "promql":
                for number, text in enumerate(block.text.strip().split("\n\n"), 1):
                    yield Query(f"{block.place} query {number}", text)


def all_queries() -> Sequence[Query]:
    """Return every query that somebody could see fail."""
    return [*rule_queries(), *dashboard_queries(), *page_queries()]
