"""Every dependency has its reason."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from tests.docs.markdown import ROOT, tables

HEAD = ("package", "last", "rank", "MB", "why it is here")
_NAME = re.compile(r"[a-z0-9-]+")


def dependencies() -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"].values()
    for requirement in (
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(entry for group in groups for entry in group if isinstance(entry, str)),
    ):
        match = _NAME.match(requirement)
        assert match, requirement
        yield match[0]


def test_each_dependency_is_explained() -> None:
    explained = {row[0].split()[0] for row in tables("docs/decisions.md", *HEAD) if all(row)}
    assert not set(dependencies()) - explained
