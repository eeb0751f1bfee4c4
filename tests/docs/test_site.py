"""The site builds without a broken link, loads nothing from elsewhere, and shows what the pages say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT

_LOADING = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stderr
    return folder


class _Loaded(HTMLParser):
    """Collects what a page loads, as against what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in _LOADING and given.get("rel") not in {"canonical", "next", "prev", "edit"}:
            self.addresses.append(given.get(_LOADING[tag]) or "")


def loaded(page: Path) -> Iterator[str]:
    parser = _Loaded()
    parser.feed(page.read_text())
    yield from filter(None, parser.addresses)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    addresses = [(page, address) for page in pages for address in loaded(page)]
    assert len(pages) > 20
    assert not [each for each in addresses if "//" in each[1]]
    assert not [each for each in addresses if not _resolved(site, *each).exists()]


def _resolved(site: Path, page: Path, address: str) -> Path:
    path = address.partition("#")[0].partition("?")[0]
    # The page for what is not found is served at any depth: its addresses are absolute.
    return site / path.removeprefix("/") if path.startswith("/") else page.parent / path


def test_pages_can_be_searched_and_read_in_the_dark(site: Path) -> None:
    assert "registercolony" in (site / "search/search_index.json").read_text().lower()
    assert 'data-md-color-scheme="slate"' in (site / "index.html").read_text()


def test_markers_of_the_tests_and_escaped_bars_are_not_shown(site: Path) -> None:
    pages = "".join(page.read_text() for page in site.rglob("*.html"))
    assert "<!-- run" not in pages
    assert "<!-- skip" not in pages
    assert "list\\|get" not in pages
    assert "list|get" in pages


def test_links_out_of_the_documents_lead_to_the_repository(site: Path) -> None:
    page = (site / "api/index.html").read_text()
    assert "/blob/main/README.md#tls" in page
    assert "/blob/main/proto/coral/discovery/v1/discovery.proto" in page


def test_pages_can_be_edited_but_for_those_that_are_generated(site: Path) -> None:
    assert "/edit/main/docs/concepts.md" in (site / "concepts/index.html").read_text()
    assert "/edit/main" not in (site / "reference/cli/index.html").read_text()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder like the repository, whose documents may be changed."""
    for entry in ROOT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "docs").unlink()
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    return tmp_path


def test_bad_links_and_a_page_that_is_left_out_fail(clone: Path, tmp_path: Path) -> None:
    bad = ("nowhere.md", "concepts.md#nowhere", "/absolute.md", "../nowhere.py")
    text = "".join(f"[link]({link})\n" for link in bad)
    (clone / "docs/left-out.md").write_text(f"# Left out\n\n{text}")
    built = build(clone, tmp_path / "out")
    assert built.returncode != 0
    for named in ("- left-out.md", *(f"link '{link}'" for link in bad)):
        assert named in built.stderr, built.stderr
