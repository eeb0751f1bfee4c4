"""What the documents hold that a test can act on: code blocks, with a marker before each, and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>[^\n]+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)
_CELLS = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


@dataclass(frozen=True, slots=True)
class Block:
    """A code block; `place` says where it begins.

    Its marker is the HTML comment on the line before:

        run                the code must succeed, against the server that listens on localhost:8080
        run: fails         it must not
        run: until TEXT    it must print TEXT; then it is ended
        run: after N s     N seconds after the block before; joins with the others by a comma
        prints             what the block before it printed, but for what changes from run to run
        skip: WHY          not run
    """

    place: str
    marker: str
    language: str
    text: str

    @property
    def verb(self) -> str:
        """The marker's first word, if it has a marker."""
        return self.marker.partition(":")[0]

    @property
    def detail(self) -> str:
        """What the marker says after its first word."""
        return self.marker.partition(":")[2].strip()


def blocks(document: str) -> Iterator[Block]:
    """Yield the code blocks of a document, which is named relative to the repository's root."""
    text = (ROOT / document).read_text()
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        yield Block(f"{document}:{line}", match["marker"] or "", match["language"], match["text"])


def tables(document: str, *head: str) -> Sequence[Sequence[str]]:
    """Return the rows of all tables of a document that begin with a row of the cells `head`."""
    text = (ROOT / document).read_text()
    found = [
        rows
        for block in _TABLE.findall(text)
        for first, _dashes, *rows in [[_cells(line) for line in block.splitlines()]]
        if first == list(head)
    ]
    assert found, f"{document} has no table with the columns {head}"
    return [row for rows in found for row in rows]


def links(document: str) -> Sequence[str]:
    """Return what the document links to within the repository."""
    return _LINK.findall((ROOT / document).read_text())


def _cells(line: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in _CELLS.split(line)[1:-1]]
