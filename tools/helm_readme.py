"""Write the table of values in the Helm chart's README.md, from the comments in its values.yaml.

A value's description is the comment right above it. A mapping whose values have none is one row, with all of it as the
default; `--check` fails if the README is not what would be written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

CHART = Path(__file__).resolve().parent.parent / "deploy" / "helm" / "coral-discovery"
BEGIN = "<!-- values: made by tools/helm_readme.py -->"
END = "<!-- /values -->"


class Row(NamedTuple):
    """A value by its path, as `store.type`; `default` is None if the rows of its parts follow."""

    path: str
    default: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Values:
    """The text of a values.yaml."""

    lines: Sequence[str]

    def rows(self, node: yaml.MappingNode, above: str = "") -> Iterator[Row]:
        """Return the rows of a mapping that is called `above`, in the order in which they are written.

        Raises:
            ValueError: a value has no description.
        """
        for key, value in node.value:
            path = f"{above}{key.value}"
            description = self._comment(key)
            if not description:
                raise ValueError(f"{path} has no description: write a comment above it")
            if not self._has_rows(value):
                yield Row(path, _shown(value), description)
                continue
            yield Row(path, None, description)
            yield from self.rows(value, f"{path}.")

    def _has_rows(self, node: yaml.Node) -> bool:
        return isinstance(node, yaml.MappingNode) and any(
            self._comment(key) for key, _ in node.value
        )

    def _comment(self, key: yaml.Node) -> str:
        indent = " " * key.start_mark.column
        first = last = key.start_mark.line
        while self.lines[first - 1].startswith(f"{indent}# "):
            first -= 1
        return " ".join(line.strip().removeprefix("# ") for line in self.lines[first:last])


def table(text: str) -> str:
    """Return the table for the values.yaml `text`; raises ValueError as `Values.rows`."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise TypeError("values.yaml holds no mapping")
    lines = ["| value | default | what it sets |", "|---|---|---|"]
    lines += map(_line, Values(text.splitlines()).rows(root))
    return "\n".join(lines)


def replace(readme: str, new: str) -> str:
    """Return `readme` with `new` between its two markers."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{new}\n\n{END}{tail}"


def _line(row: Row) -> str:
    default = "" if row.default is None else f"`{row.default}`"
    return f"| `{row.path}` | {_cell(default)} | {_cell(row.description)} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _shown(node: yaml.Node) -> str:
    return json.dumps(yaml.SafeLoader("").construct_document(node))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the README, or with `--check` say whether that would change it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    readme = CHART / "README.md"
    old = readme.read_text()
    new = replace(old, table((CHART / "values.yaml").read_text()))
    if parser.parse_args(arguments).check:
        if new != old:
            print(f"stale: {readme.name}; run tools/helm_readme.py")
        return int(new != old)
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
