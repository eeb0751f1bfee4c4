"""The README says what the program says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.docs.markdown import ROOT, tables
from tests.integration.support import run_command

HEAD = ("flag", "default", "what it sets")
# Those that set nothing.
_COMMON = {"--version", "--install-completion", "--show-completion", "-h, --help"}
_FLAG_AND_TEXT = re.compile(r"(?P<flag>\S+(?: \S+)*)\s{2,}(?P<text>.*)", re.DOTALL)
_NOTE = re.compile(r"\[((?:env var|default): [^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Flag:
    """A setting, as `--help` shows it."""

    name: str
    default: str
    text: str
    variable: str

    def row(self) -> Sequence[str]:
        """Return what the README's table should say of it."""
        return [f"`{self.name}`", self.default, self.text]


def flags() -> Sequence[Flag]:
    chunks = re.split(r"^  (?=-)", run_command("--help").stdout, flags=re.MULTILINE)[1:]
    return [flag for flag in map(_flag, chunks) if flag.name not in _COMMON]


def _flag(chunk: str) -> Flag:
    match = _FLAG_AND_TEXT.match(chunk)
    assert match, f"not an option: {chunk}"
    text = " ".join(match["text"].split())
    notes = dict(note.split(": ", 1) for found in _NOTE.findall(text) for note in found.split("; "))
    default, variable = notes.get("default", ""), notes.get("env var", "")
    return Flag(match["flag"], default, _NOTE.sub("", text).strip(), variable)


def without_spaces(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Leave out the spaces: where `--help` broke a line, there may be one more than was written."""
    return [["".join(cell.split()) for cell in row] for row in rows]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)


def test_the_table_of_flags_is_what_help_says() -> None:
    rows = [flag.row() for flag in flags()]
    same = without_spaces(tables("README.md", *HEAD)) == without_spaces(rows)
    assert same, f"README.md should have these rows:\n{markdown(rows)}"


def test_each_flag_has_the_variable_that_the_readme_says() -> None:
    for flag in flags():
        name = flag.name.split()[0].removeprefix("--").replace("-", "_")
        assert flag.variable == f"CORAL_DISCOVERY_{name.upper()}"


def test_the_map_leads_somewhere() -> None:
    text = (ROOT / "README.md").read_text().partition("## Where things are")[2]
    places = re.findall(r"^([\w./-]+)  +\S", text, re.MULTILINE)
    assert places
    assert not [place for place in places if not (ROOT / place).exists()]
