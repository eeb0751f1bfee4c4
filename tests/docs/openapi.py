"""docs/openapi.yaml, read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, cast

import yaml

from tests.docs.markdown import ROOT

Object = Mapping[str, Any]


@cache
def described() -> Object:
    """Return the whole description."""
    return cast("Object", yaml.safe_load((ROOT / "docs/openapi.yaml").read_text()))


def schema(name: str) -> Object:
    """Return a schema by its name."""
    return cast("Object", described()["components"]["schemas"][name])


def operations() -> Iterator[tuple[str, str, Object]]:
    """Yield path, method in capitals, and operation."""
    for path, item in described()["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def resolved(item: Object) -> Object:
    """Return what `item` is, or refers to."""
    found: Any = item
    if reference := item.get("$ref"):
        found = described()
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    return cast("Object", found)


def examples(node: object) -> Iterator[tuple[str, object]]:
    """Yield (reference of a schema, example of it), wherever in `node` messages have examples."""
    if isinstance(node, list):
        for item in node:
            yield from examples(item)
    elif isinstance(node, dict):
        if "examples" in node and "schema" in node:
            for example in node["examples"].values():
                yield node["schema"]["$ref"], example["value"]
        for item in node.values():
            yield from examples(item)
