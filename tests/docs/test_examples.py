"""The documents' examples work as they stand, from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.examples import RUNNABLE, Reader, missing_tool
from tests.docs.markdown import ROOT, Block, blocks, links
from tests.integration.support import LOOPBACK, running

DOCUMENTS = (
    "README.md",
    "docs/api.md",
    "docs/clients/curl.md",
    "docs/clients/go.md",
    "docs/clients/node.md",
    "docs/clients/python.md",
    "docs/coral.md",
    "docs/ctl.md",
    "docs/getting-started.md",
    "docs/migration.md",
)
EVERY_BLOCK = [
    pytest.param(block, id=block.place) for document in DOCUMENTS for block in blocks(document)
]
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
)


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_the_examples_work(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    examples = list(blocks(document))
    if missing := next(filter(None, map(missing_tool, examples)), None):
        pytest.skip(f"{missing} is not installed")
    async with running(admin_listen=f"{LOOPBACK}:0") as server:
        reader = Reader(server)
        for block in examples:
            await reader.follow(block)


@pytest.mark.parametrize("block", EVERY_BLOCK)
def test_no_example_is_left_out_silently(block: Block) -> None:
    fitting = {"run", "skip"} if block.language in RUNNABLE else {"", "prints"}
    assert block.verb in fitting, f"{block.place} needs a marker: see markdown.Block"
    assert block.verb != "skip" or block.detail, f"{block.place} does not say why"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    assert not [link for link in links(page) if not (folder / link).exists()]
