"""What mkdocs cannot be told in mkdocs.yml: pages that read well in the repository read well on the site, too."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_GENERATED = "reference/"
_MARKER = re.compile(r"^<!-- .* -->$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|[#/])([^)#\s]+)")
_CODE = re.compile(r"`[^`\n]+`")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:  # noqa: ARG001 - mkdocs passes it by its name
    """Take the edit links away from pages that are generated."""
    for file in files.documentation_pages():
        if file.src_uri.startswith(_GENERATED):
            file.edit_uri = None
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Return the page without the tests' markers, and with its links out of docs/ led to the repository.

    A link to a file that does not exist stays as it is, for mkdocs to complain of.
    """
    root = Path(config.docs_dir).parent
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))
    repository = (config.edit_uri_template or "").partition("/edit/")[0]

    def lead(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        leaves = not path.startswith("docs/") and (root / path).exists()
        return f"{repository}/blob/main/{path}" if leaves else link[1]

    return _LINK.sub(lead, _MARKER.sub("", _with_plain_bars(markdown)))


def _with_plain_bars(markdown: str) -> str:
    """Return the tables with `|` in code unescaped: Python-Markdown would show the backslash, where GitHub does not."""
    lines = markdown.split("\n")
    return "\n".join(
        _CODE.sub(lambda code: code[0].replace("\\|", "|"), line) if line.startswith("|") else line
        for line in lines
    )
