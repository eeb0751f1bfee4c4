"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

GENERATED = "<!-- Made by tools/docs.py: change what it reads, not this page. -->"


def page(title: str, *parts: str) -> str:
    """Return a page that says first that it is generated."""
    return "\n\n".join((GENERATED, f"# {title}", *filter(None, parts))) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; nothing if there are no rows."""
    lines = [_row(row) for row in rows]
    return "\n".join((_row(head), "|" + "---|" * len(head), *lines)) if lines else ""


def code(text: str) -> str:
    """Return `text` as code; nothing if it is empty."""
    return f"`{text}`" if text else ""


def anchor(heading: str) -> str:
    """Return the fragment that leads to a heading, made as the site makes it."""
    plain = re.sub(r"[^\w\s-]", "", heading).strip().lower()
    return "#" + re.sub(r"[-\s]+", "-", plain)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
