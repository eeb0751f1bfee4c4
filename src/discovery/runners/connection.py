"""Being connected to a colony, and staying so: it may move, go silent, or come back with another key."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass

from discovery.runners.dialing import Dialer
from discovery.runners.report import Report
from discovery.runners.waiting import now
from discovery.runners.whereabouts import Finder

_PATIENCE, _MOST_PATIENCE = 1.0, 8.0
"""Seconds that an endpoint has to answer in the first round, and in late ones: the double in each."""

_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two rounds at most, in the beginning and in the end."""

_CHECK = 5.0
"""Seconds between two looks at the tunnel."""

_SILENCE = 60.0
"""Seconds without a byte from the colony after which the connection is tried anew. Both ends keep alive each 25."""


@dataclass(slots=True)
class _Session:
    """A connection that stands."""

    pubkey: str
    endpoint: str
    received: int = 0
    heard: float = 0.0
    """When something was last received, on the event loop's clock."""


class Connection:
    """The connection to one colony."""

    def __init__(self, dialer: Dialer, finder: Finder, news: asyncio.Event, report: Report) -> None:
        """Dial where `finder` says; `news` is set whenever it may know better."""
        self._dialer = dialer
        self._finder = finder
        self._news = news
        self._report = report
        self._session: _Session | None = None

    async def connect(self) -> str:
        """Try the colony's endpoints until one answers, and return it.

        Raises:
            TunnelError: the tunnel is broken.
        """
        patience, pause = _PATIENCE, _PAUSE
        while True:
            self._news.clear()
            where = self._finder.latest()
            endpoint = await self._dialer.dial(where.pubkey, where.endpoints, patience)
            if endpoint is not None:
                await self._connected(where.pubkey, endpoint)
                return endpoint
            self._finder.failed()
            patience = min(2 * patience, _MOST_PATIENCE)
            await self._wait_for_news(pause * random.random())  # noqa: S311 - no secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def keep(self) -> None:
        """Stay connected, once connected, without end.

        Raises:
            TunnelError: the tunnel is broken.
        """
        while True:
            await self._wait_for_news(_CHECK)
            self._news.clear()
            if trouble := await self._trouble():
                self._report.warn("connection-lost", f"{trouble}; connecting again")
                endpoint = await self.connect()
                self._report.say("reconnected", f"Connected again at {endpoint}", endpoint=endpoint)

    async def _connected(self, pubkey: str, endpoint: str) -> None:
        old, self._session = self._session, _Session(pubkey, endpoint, heard=now())
        self._finder.connected(endpoint)
        if old is not None and old.pubkey != pubkey:
            await self._dialer.forget(old.pubkey)

    async def _trouble(self) -> str:
        """Return what is wrong with the connection; empty if nothing is."""
        session, where = self._session, self._finder.latest()
        if session is None or session.pubkey != where.pubkey:
            return "the colony has a new key"
        if session.endpoint not in where.endpoints:
            return f"the colony is no longer at {session.endpoint}"
        return await self._silence(session)

    async def _silence(self, session: _Session) -> str:
        status = await self._dialer.status(session.pubkey)
        received = status.received if status is not None else -1
        if received != session.received:
            session.received, session.heard = received, now()
        silent = now() - session.heard
        return f"nothing was heard for {silent:.0f} s" if silent > _SILENCE else ""

    async def _wait_for_news(self, longest: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._news.wait()
