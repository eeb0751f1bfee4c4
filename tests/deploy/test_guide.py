"""What docs/deployment.md and docs/operations.md give to be copied does what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from discovery.config import load_settings
from tests.deploy.charts import render
from tests.docs.examples import RUNNABLE, Reader
from tests.docs.markdown import ROOT, Block, blocks, tables
from tests.integration.support import running

DEPLOYMENT, OPERATIONS = "docs/deployment.md", "docs/operations.md"
CONFIG = "# /etc/coral-discovery/config.yaml"
MESH = "my-app-prod"


def titled(title: str) -> list[Block]:
    """Return the blocks that begin with a line that names their file."""
    found = [block for block in blocks(DEPLOYMENT) if block.text.startswith(f"{title}\n")]
    assert found, title
    return found


# -- What can be copied ---------------------------------------------------------------------------


@pytest.mark.parametrize("document", [DEPLOYMENT, OPERATIONS])
def test_each_block_that_could_be_run_is_run_or_says_why_not(document: str) -> None:
    unsaid = [b.place for b in blocks(document) if b.language in RUNNABLE and not b.marker]
    assert not unsaid


async def test_the_blocks_that_can_be_run_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with running() as server:
        reader = Reader(server)
        for block in blocks(OPERATIONS):
            await reader.follow(block)


@pytest.mark.parametrize("block", [pytest.param(b, id=b.place) for b in titled(CONFIG)])
def test_the_server_takes_its_settings(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(block.text)
    given = yaml.safe_load(block.text)
    settings = load_settings({}, file).model_dump(mode="json")
    assert given == {name: settings[name.replace("-", "_")] for name in given}


def test_the_chart_takes_its_values() -> None:
    [block] = titled("# values.yaml")
    rendered = render(yaml.safe_load(block.text))
    assert rendered.one("Deployment")["spec"]["replicas"] == 3
    assert rendered.one("ServiceMonitor")


def alerts() -> set[str]:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())
    return {
        rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule
    }


def test_each_alert_that_a_failure_mode_names_is_one() -> None:
    rows = tables(OPERATIONS, "fault", "colonies", "agents", "the operator sees", "alert")
    named = {name for row in rows for name in re.findall(r"#(coraldiscovery\w+)\)", row[-1])}
    assert named
    assert named <= {alert.lower() for alert in alerts()}


def test_every_alert_is_in_the_list_of_alerts() -> None:
    linked = {row[0] for row in tables(OPERATIONS, "alert", "in a word")}
    assert linked == {f"[{alert}](runbook.md#{alert.lower()})" for alert in alerts()}
