"""Imports that leave out what takes long and is not used here."""

from __future__ import annotations

import sys
from typing import Any, cast


def import_structlog() -> None:
    """Import structlog without rich, which it would draw tracebacks with, and ours are plain.

    Where rich is installed it takes an eighth of the time until the first call is answered.
    """
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = cast("Any", None)  # how Python says that there is none
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
