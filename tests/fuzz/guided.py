"""Coverage-guided fuzzing of both codecs, for as long as you like: `python -m tests.fuzz.guided corpus/`.

It needs atheris, which is no dependency of ours: `.venv/bin/pip install atheris`. The directory must be there; while it
is empty, it is given something to start from. Options are libFuzzer's, for instance `-max_total_time=600`. A finding
is printed with the bytes that it takes; make it a case of test_codecs.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path


def sow(seeds: Iterable[bytes], corpus: Path) -> None:
    """Write the seeds into `corpus`, unless it has something already."""
    if not any(corpus.iterdir()):
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(seed)


def main() -> None:
    """Fuzz until something breaks or the time is up."""
    atheris = import_module("atheris")
    # Only what is imported here, and for the first time, is watched.
    with atheris.instrument_imports(include=["betterproto", "discovery"]):
        targets = import_module("tests.fuzz.targets")
    for argument in sys.argv[1:]:
        if not argument.startswith("-"):
            sow(targets.seeds(), Path(argument))
    atheris.Setup(sys.argv, targets.check_any)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
