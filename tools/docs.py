"""Write the reference pages of the documentation, `docs/reference/`, or check that they are up to date.

They say what the code and the protocol's comments say: `docs.py` writes them, `docs.py --check` fails if one differs
from what it would write.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs as a script, too

from tools.reference import api, cli, configuration  # noqa: E402 - see above

FOLDER = Path("docs/reference")

PAGES: Mapping[str, Callable[[], str]] = {
    "api.md": api.page,
    "configuration.md": configuration.page,
    "cli.md": cli.page,
}
"""Each page with what makes its text."""


def write() -> int:
    """Write every page."""
    (ROOT / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (ROOT / FOLDER / name).write_text(make())
    return 0


def check() -> int:
    """Fail if a page is not what `write` would write."""
    stale = [name for name, make in PAGES.items() if _text(name) != make()]
    for name in stale:
        print(f"stale: {FOLDER / name}")
    if stale:
        print("run `python tools/docs.py`")
    return 1 if stale else 0


def _text(name: str) -> str | None:
    path = ROOT / FOLDER / name
    return path.read_text() if path.exists() else None


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help=check.__doc__)
    return check() if parser.parse_args().check else write()


if __name__ == "__main__":
    sys.exit(main())
