"""What a command prints: tables for people, JSON for jq, YAML for both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from discovery.ctl.text import clean, duration, short_key

Format = Literal["table", "json", "yaml"]
Row = Mapping[str, object]
Column = tuple[str, Callable[[object], str]]
"""A field's name, and how its value is shown in a table's cell."""

_UNBOUNDED = 10_000


def plain(value: object) -> str:
    """Show a value as it is; what is not there as `-`, a list with commas, a mapping as `key=value`."""
    return _joined(value, ", ")


def key(value: object) -> str:
    """Show enough of a public key to tell it from others."""
    return short_key(plain(value))


def first(value: object) -> str:
    """Show the first of a list, and how many more there are: `203.0.113.42:41820 (+1)`."""
    if not isinstance(value, list) or len(value) < 2:  # noqa: PLR2004 - there are more from two on
        return plain(value)
    return f"{plain(value[0])} (+{len(value) - 1})"


def moment(value: object) -> str:
    """Show a time in RFC 3339 by how long ago it is, in one unit to keep a column narrow, or in how long."""
    if value is None:
        return "-"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(str(value))).total_seconds()
    return f"in {duration(-seconds)}" if seconds < 0 else f"{duration(seconds, units=1)} ago"


class Printer:
    """Prints values in one format on one console. Nothing in them is taken for markup or for a terminal's commands."""

    def __init__(self, output: Format, console: Console | None = None) -> None:
        """Print to `console`, which is that of stdout unless it is given."""
        self.output = output
        self.console = console or make_console()

    @property
    def for_people(self) -> bool:
        """Whether tables are asked for."""
        return self.output == "table"

    def rows(self, rows: Iterable[Row], columns: Sequence[Column], none: str) -> None:
        """Print a list; in a table only these columns, and if it is empty the sentence `none` instead."""
        found = list(rows)
        if not self.for_people:
            self._dump(found)
        else:
            self.console.print(table(found, columns) if found else Text(none))

    def record(self, row: Row) -> None:
        """Print one thing, with all its fields."""
        if self.for_people:
            self.console.print(details(row))
        else:
            self._dump(row)

    def item(self, row: Row, line: Text) -> None:
        """Print one of many things that come one after another: for people as `line`, else a line, or a document."""
        match self.output:
            case "table":
                self.console.print(line, soft_wrap=True)
            case "json":
                self._write(json.dumps(row))
            case "yaml":
                self._write(_yaml(row, start=True))
        self.console.file.flush()

    def say(self, row: Row, sentence: str) -> None:
        """Print what was done: for people as a sentence, else as `row`."""
        if self.for_people:
            self.console.print(Text(clean(sentence)), soft_wrap=True)
        else:
            self._dump(row)

    def _dump(self, value: object) -> None:
        self._write(json.dumps(value, indent=2) if self.output == "json" else _yaml(value))

    def _write(self, text: str) -> None:
        self.console.file.write(f"{text.rstrip()}\n")


def make_console(*, stderr: bool = False) -> Console:
    """Return the console of a standard stream: as wide as the terminal, or without bounds where there is none."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED
    return console


def table(rows: Iterable[Row], columns: Sequence[Column]) -> Table:
    """Return rows as a table; what does not fit into the terminal is cut, and shows that it is."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name, _ in columns:
        made.add_column(_heading(name.removesuffix("_at")), no_wrap=True, overflow="ellipsis")
    for row in rows:
        made.add_row(*(Text(clean(show(row.get(name)))) for name, show in columns))
    return made


def details(row: Row) -> Table:
    """Return one thing as a table of its fields, whole, however long."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in row.items():
        lines = _joined(value, "\n").split("\n") if value else [plain(value)]
        made.add_row(_heading(name), Text("\n".join(map(clean, lines))))
    return made


def _heading(name: str) -> str:
    return name.replace("_", " ").upper()


def _joined(value: object, separator: str) -> str:
    match value:
        case None | "" | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Mapping():
            pairs = (f"{name}={_joined(each, ',')}" for name, each in value.items())
            return separator.join(pairs) or "-"
        case list() | tuple():
            return separator.join(_joined(each, " ") for each in value)
        case _:
            return str(value)


def _yaml(value: object, *, start: bool = False) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, explicit_start=start))
