"""The skip policy: a skip is for a machine that lacks a tool, and CI lacks none.

Where CI is set, a skipped test or module fails, so that a check cannot fall silent there. xfail is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

IN_CI = bool(os.environ.get("CI"))
E2E = Path(__file__).parent / "e2e"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests that need root, and programs that pip cannot install, are for who asks for them."""
    parser.addoption("--e2e", action="store_true", help="collect tests/e2e too: see its conftest")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path == E2E and not config.getoption("--e2e") else None


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One more than xdist takes: a sixth of the time, tests wait for processes of their own."""
    workers = yield
    return workers + 1


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, "")
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason or report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report
