"""Following a stream of the server's for as long as somebody cares, across the ends it comes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from discovery.client.pacing import Pacing, elapsed, is_transient
from discovery.errors import DiscoveryError

E = TypeVar("E")


async def keep_watching(
    watch: Callable[[], AsyncGenerator[E]],
    take: Callable[[E], None],
    lost: Callable[[DiscoveryError], None],
    *,
    pacing: Pacing,
    refused_pause: float,
) -> None:
    """Open `watch` again and again, `take` what it yields, and say with which error it was `lost`.

    A watch that is refused, because the server or a proxy does not serve it, is tried again after about `refused_pause`
    seconds: servers are replaced by newer ones. One that lasted is followed by a short wait; one that was cut down soon
    is not, however much it yielded, or a proxy that cuts all streams would be hammered.
    """
    backoff = pacing.backoff()
    never = asyncio.Event()
    while True:
        began = pacing.clock.now()
        try:
            async with aclosing(watch()) as events:
                async for event in events:
                    take(event)
        except DiscoveryError as error:
            lost(error)
            if elapsed(began, pacing.clock.now()) >= pacing.cap:
                backoff.reset()
            again = is_transient(error)
            wait = backoff.next(error.retry_after) if again else pacing.soon(refused_pause)
            await pacing.wait(wait, never)
