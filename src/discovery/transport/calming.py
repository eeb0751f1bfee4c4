"""What a flood of calls is met with: its connection is not read for a while.

To refuse a call costs nearly as much as to answer it. A client that goes on calling after it was told that it calls too
often would keep the others waiting, however it is answered; so for a second it is not even heard, and longer if more
connections of its address do the same: they are heard one after another. A trusted proxy's connection is left alone:
it has others' calls too.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar

Wait = Callable[[], float]
"""Takes a turn, and tells in how many seconds that is."""
Hush = Callable[[Wait], None]
"""Stops hearing a caller until its turn; none is taken if it is not heard already."""

PAUSE = 1.0
"""Seconds for which nothing is read, at least."""
TURN = 0.5
"""Seconds from one connection of an address to the next."""
_ADDRESSES = 10_000

SCOPE_KEY = "discovery.hush"
"""Where in an ASGI scope a connection has its Hush."""


def keep_hearing(wait: Wait) -> None:
    """Do nothing: the Hush of who cannot be told from others, or has no connection."""
    del wait


HUSH: ContextVar[Hush] = ContextVar("HUSH", default=keep_hearing)
"""The Hush of the HTTP request that is being answered: not every adapter sees its ASGI scope."""


def hush(connection: asyncio.Transport, wait: Wait) -> None:
    """Read nothing from a connection for a while, unless that is so already."""
    if connection.is_reading():
        connection.pause_reading()
        asyncio.get_running_loop().call_later(wait(), connection.resume_reading)


class ConnectionHush:
    """The Hush of a connection. A `partial` would take five times as much, and each watch has one."""

    __slots__ = ("_connection",)

    def __init__(self, connection: asyncio.Transport) -> None:
        self._connection = connection

    def __call__(self, wait: Wait) -> None:
        """Read nothing from it for a while: see `hush`."""
        hush(self._connection, wait)


class Turns:
    """When the connections of an address are heard again: each connection adds to what the others wait."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, float] = OrderedDict()

    def take(self, site: str) -> float:
        """Take the next turn of an address, or of an IPv6 /64; return in how many seconds it is."""
        now = asyncio.get_running_loop().time()
        turn = max(now + PAUSE, self._last.pop(site, 0) + TURN)
        self._last[site] = turn
        if len(self._last) > _ADDRESSES:
            self._last.popitem(last=False)
        return turn - now
