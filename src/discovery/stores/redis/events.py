"""Following the streams of changes, on whatever server they are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import cast

from redis.exceptions import ResponseError

from discovery.errors import StoreUnavailableError
from discovery.stores.base import Listener
from discovery.stores.redis.codec import decode_event
from discovery.stores.redis.failures import unavailable
from discovery.stores.redis.link import Link, Reply

EVENTS_KEPT = 512
"""How many changes a stream holds at least. Falling further behind is no harm: see `missed`."""

BLOCK = 1.0
"""For how many seconds the server holds back an empty answer. One that hangs is noticed not much later."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

_START = b"0-0"
_Entry = tuple[bytes, list[bytes]]


class EventReader:
    """Reads the streams that one server holds, from now on."""

    def __init__(
        self,
        link: Link,
        streams: Sequence[bytes],
        changed: Listener,
        missed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        """Call `changed` with each event, `missed` if some may have been lost, `lost` if the server may have been."""
        self._link = link
        self._changed = changed
        self._missed = missed
        self._lost = lost
        self._places = dict.fromkeys(streams, _START)
        self._pause = _SHORTEST_PAUSE
        self.following = asyncio.Event()
        """Set while every change from now on will be reported."""

    async def run(self) -> None:
        """Read on and on, whatever happens, until cancelled."""
        while True:
            try:
                await self._follow()
            except StoreUnavailableError:
                self._lost()
            except Exception as defect:  # noqa: BLE001 - reported, and no reason to be deaf from now on
                what = {"message": "reading events failed", "exception": defect}
                asyncio.get_running_loop().call_exception_handler(what)
            self.following.clear()
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    async def _follow(self) -> None:
        """Start at the end, then say that something may have been missed: what is to come will not be."""
        await self._go_to_the_end()
        self._pause = _SHORTEST_PAUSE
        self.following.set()
        self._missed()
        while True:
            await self._read()

    async def _go_to_the_end(self) -> None:
        commands = [(b"XREVRANGE", stream, b"+", b"-", b"COUNT", 1) for stream in self._places]
        replies = await self._link.exchange(commands)
        for stream, reply in zip(self._places, replies, strict=True):
            entries = cast("list[_Entry]", _checked(reply))
            self._places[stream] = entries[0][0] if entries else _START

    async def _read(self) -> None:
        [reply] = await self._link.exchange(
            [
                (
                    b"XREAD",
                    b"BLOCK",
                    round(BLOCK * 1000),
                    b"STREAMS",
                    *self._places,
                    *self._places.values(),
                )
            ]
        )
        for stream, entries in cast("list[tuple[bytes, list[_Entry]]]", _checked(reply) or []):
            self._places[stream] = entries[-1][0]
            self._report(entries)

    def _report(self, entries: Sequence[_Entry]) -> None:
        # So many may be all that is left of more.
        complete = len(entries) < EVENTS_KEPT
        for _, fields in entries:
            try:
                event = decode_event(fields)
            except StoreUnavailableError:
                complete = False
                continue
            if event is not None:
                self._changed(event)
        if not complete:
            self._missed()


def _checked(reply: Reply) -> Reply:
    if isinstance(reply, ResponseError):
        raise unavailable(reply) from reply
    return reply
