"""Waiting for what tells nobody when it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

_POLL = 0.02


async def until(ready: Callable[[], Awaitable[bool]], limit: float) -> None:
    """Ask again and again until it is so.

    Raises:
        TimeoutError: it was not so within `limit` seconds.
    """
    async with asyncio.timeout(limit):
        while not await ready():  # noqa: ASYNC110 - other programs set no asyncio.Event
            await asyncio.sleep(_POLL)


async def for_ever() -> NoReturn:
    """Wait until cancelled."""
    while True:
        await asyncio.get_running_loop().create_future()
