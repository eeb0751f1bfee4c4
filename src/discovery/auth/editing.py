"""Changes to the text of a keys file that leave all the rest as a person wrote it, comments too."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import yaml

_INDENT = 2


def with_entry(text: str, name: yaml.Node, entries: yaml.SequenceNode, entry: str) -> str | None:
    """Return `text` with `entry`, the lines of a mapping, behind the others; None if its style leaves no place for it.

    `name` and `entries` are the nodes of the word `keys` and of the list it names.
    """
    if not entries.value:
        item = _item(entry, name.start_mark.column + _INDENT)
        return f"{text[: entries.start_mark.index]}\n{item}{text[entries.end_mark.index :]}"
    if entries.flow_style:
        return None
    _, end = _lines_of(text, entries, len(entries.value) - 1)
    gap = "" if text[:end].endswith("\n") else "\n"
    return f"{text[:end]}{gap}{_item(entry, entries.start_mark.column)}\n{text[end:]}"


def without_entry(text: str, name: yaml.Node, entries: yaml.SequenceNode, index: int) -> str | None:
    """Return `text` without the lines of the entry at `index`; None if its style does not give each its own lines.

    A comment above the entry stays: it may speak of what follows.
    """
    if entries.flow_style:
        return None
    start, end = _lines_of(text, entries, index)
    if len(entries.value) > 1:
        return text[:start] + text[end:]
    colon = text.index(":", name.end_mark.index) + 1
    return f"{text[:colon]} []{text[colon:start]}{text[end:]}"


def first_entry(text: str, entry: str) -> str:
    """Return `text`, which holds nothing but comments, with a list of one entry."""
    gap = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{gap}keys:\n{_item(entry, _INDENT)}\n"


def _item(entry: str, column: int) -> str:
    mapping = textwrap.indent(entry.strip(), " " * (column + _INDENT))
    return f"{' ' * column}- {mapping.lstrip()}"


def _lines_of(text: str, entries: yaml.SequenceNode, index: int) -> tuple[int, int]:
    """Return where an entry's lines begin and end: its last ones may be comments, if they are as deep as its fields."""
    start = _dash(text, entries, index)
    is_last = index + 1 == len(entries.value)
    limit = entries.end_mark.index if is_last else _dash(text, entries, index + 1)
    deep = " " * (entries.start_mark.column + 1)
    lines = text[start:limit].split("\n")
    count = len(lines)
    while count and _says_nothing(lines[count - 1]):
        count -= 1
    while count < len(lines) and lines[count].startswith(deep) and lines[count].strip():
        count += 1
    return start, min(start + sum(len(line) + 1 for line in lines[:count]), limit)


def _says_nothing(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _dash(text: str, entries: yaml.SequenceNode, index: int) -> int:
    """Return where the line begins whose dash makes the entry one. The entry itself may begin below it."""
    dash = " " * entries.start_mark.column + "-"
    line = _line_start(text, entries.value[index].start_mark.index)
    while line > 0 and not text.startswith(dash, line):
        line = _line_start(text, line - 1)
    return line


def _line_start(text: str, position: int) -> int:
    return text.rfind("\n", 0, position) + 1
