"""Running until it is done, or until somebody wants it to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any


def run_until_stopped(
    work: Coroutine[Any, Any, None], tell: Callable[[], None] = lambda: None
) -> bool:
    """Run `work` in an event loop of its own; return whether it came to its end.

    SIGTERM and SIGINT cancel it, so that it cleans up; `tell` is called then. A second signal cancels what it does to
    clean up, too.
    """
    return asyncio.run(_until_stopped(work, tell))


async def _until_stopped(work: Coroutine[Any, Any, None], tell: Callable[[], None]) -> bool:
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        tell()
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return not task.cancelled()
