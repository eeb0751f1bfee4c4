"""What a package promises before it is built. `.ci/package.sh` builds it, and looks into it."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import entry_points, metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

import discovery

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(request.param.read_text())
    return loaded


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", ())]


def test_the_package_is_typed_and_has_all_that_it_reads() -> None:
    package = files("discovery")

    assert (package / "py.typed").is_file()
    assert (package / "_gen" / "descriptors.binpb").is_file()
    assert [one for one in (package / "stores" / "redis").iterdir() if one.name.endswith(".lua")]


def test_the_version_of_the_package_is_what_the_server_says() -> None:
    assert metadata("coral-discovery")["Version"] == discovery.__version__


def test_the_package_has_three_commands() -> None:
    installed = {
        one.name
        for one in entry_points(group="console_scripts")
        if one.dist is not None and one.dist.name == "coral-discovery"
    }

    assert installed == {"coral", "coral-discovery", "coral-discoveryctl"}


def test_ci_runs_each_python_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    named = [one.removeprefix(prefix) for one in project["classifiers"] if one.startswith(prefix)]
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())

    matrix = ci["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert matrix == [f"3.{minor}" for minor in named]


def test_a_workflow_may_read_and_nothing_else_unless_a_job_says_so(
    workflow: dict[str, Any],
) -> None:
    assert workflow["permissions"] == {"contents": "read"}


def test_a_workflow_has_an_end_and_does_not_pile_up(workflow: dict[str, Any]) -> None:
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job or "uses" in job


def test_no_step_leaves_a_token_behind_or_takes_an_action_of_any_version(
    workflow: dict[str, Any],
) -> None:
    for step in steps(workflow):
        if uses := step.get("uses"):
            assert uses.partition("@")[2] not in {"", "main", "master"}
            assert "checkout" not in uses or step["with"]["persist-credentials"] is False


def test_no_step_puts_what_others_may_write_into_a_shell(workflow: dict[str, Any]) -> None:
    assert not [step for step in steps(workflow) if "${{" in step.get("run", "")]


def test_nothing_is_published_before_everything_is_tested_and_built() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())["jobs"]

    for name in ("pypi", "image"):
        assert {"ci", "build"} <= set(jobs[name]["needs"])
    assert "image" in jobs["chart"]["needs"]
    assert set(jobs["page"]["needs"]) == {"build", "pypi", "image", "chart"}


def test_renovate_pins_actions_and_images() -> None:
    config = json.loads((ROOT / ".github" / "renovate.json").read_text())

    assert {"helpers:pinGitHubActionDigests", "docker:pinDigests"} <= set(config["extends"])
