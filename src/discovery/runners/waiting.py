"""Time, as the event loop has it."""

from __future__ import annotations

import asyncio


def now() -> float:
    """Return the event loop's time, in seconds."""
    return asyncio.get_running_loop().time()
