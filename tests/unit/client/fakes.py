"""A discovery server in a few lines, whose failures a test scripts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable

from discovery.client.pacing import Pacing
from discovery.clock import MICROSECONDS
from discovery.errors import DiscoveryError, NotRegisteredError, UnreachableError
from discovery.models import Lease, Registered, Registration, Synced, WatchEvent
from tests.support import MESH, registration
from tests.unit.client.virtual_time import START_US, VirtualClock

DAY = 24 * 3600.0
LATENCY = 0.01


def pacing(clock: VirtualClock, seed: int = 1, **changes: float) -> Pacing:
    return Pacing(clock=clock, spread=random.Random(seed).random, **changes)


def lease(revision: int = 1, **changes: object) -> Lease:
    return Lease(registration(**changes), revision, START_US, START_US + 300 * MICROSECONDS)


class FakeRegistry:
    """Grants leases, and remembers when it was called with what."""

    def __init__(self, clock: VirtualClock, *, ttl: int = 300, refresh_after: int = 60) -> None:
        self.clock = clock
        self.ttl, self.refresh_after = ttl, refresh_after
        self.trouble: Callable[[], DiscoveryError | None] = lambda: None
        self.latency = LATENCY
        self.arrivals: list[float] = []
        self.granted: list[tuple[float, Registration]] = []
        self.farewells: list[tuple[str, ...]] = []
        self.lease_end = 0.0

    async def register_colony(self, registration: Registration) -> Registered:
        self.arrivals.append(self.clock.seconds())
        await asyncio.sleep(self.latency)
        if (error := self.trouble()) is not None:
            raise error
        now = self.clock.seconds()
        self.granted.append((now, registration))
        self.lease_end = now + self.ttl
        end_us = START_US + round(self.lease_end * MICROSECONDS)
        return Registered(1, self.ttl, end_us, self.refresh_after, None)

    async def deregister_colony(self, mesh_id: str, pubkey: str) -> bool:
        return await self._leave(mesh_id, pubkey)

    async def register_agent(self, registration: Registration) -> Registered:
        assert registration.agent_id
        return await self.register_colony(registration)

    async def deregister_agent(self, mesh_id: str, agent_id: str, pubkey: str) -> bool:
        return await self._leave(mesh_id, agent_id, pubkey)

    async def _leave(self, *owner: str) -> bool:
        await asyncio.sleep(self.latency)
        if (error := self.trouble()) is not None:
            raise error
        self.farewells.append(owner)
        return True


def away() -> DiscoveryError:
    return UnreachableError("away")


class FakeDiscovery:
    """Answers lookups and watches. `watch_trouble` spoils watches alone, `trouble` everything."""

    def __init__(self, clock: VirtualClock, known: Lease | None = None) -> None:
        self.clock = clock
        self.trouble: Callable[[], DiscoveryError | None] = lambda: None
        self.watch_trouble: Callable[[], DiscoveryError | None] = lambda: None
        self.known = known
        self.agents: dict[str, Lease] = {}
        self.revision = 1
        self.lookups: list[float] = []
        self.watches: list[float] = []
        self.asked_after: list[int] = []
        self.latency = LATENCY
        self.cuts_after_the_beginning = False
        self.breaks_off = False
        self._open: set[asyncio.Queue[WatchEvent | DiscoveryError]] = set()

    def _fail(self, *troubles: Callable[[], DiscoveryError | None]) -> None:
        for trouble in troubles:
            if (error := trouble()) is not None:
                raise error

    async def lookup_colony(self, mesh_id: str) -> Lease:
        self.lookups.append(self.clock.seconds())
        answer = self.known
        await asyncio.sleep(self.latency)
        self._fail(self.trouble)
        if answer is None:
            raise NotRegisteredError(mesh_id)
        return answer

    async def watch_colony(self, mesh_id: str) -> AsyncGenerator[WatchEvent]:
        async for event in self._watch([WatchEvent(mesh_id, self.revision, self.known)]):
            assert isinstance(event, WatchEvent)
            yield event

    async def watch_agents(
        self, mesh_id: str, after_revision: int
    ) -> AsyncGenerator[WatchEvent | Synced]:
        self.asked_after.append(after_revision)
        beginning: list[WatchEvent | Synced] = [Synced(mesh_id, self.revision)]
        if after_revision != self.revision:
            named = [WatchEvent(mesh_id, v.revision, v, k) for k, v in self.agents.items()]
            beginning = [*named, *beginning]
        async for event in self._watch(beginning):
            yield event

    async def _watch(
        self, beginning: Iterable[WatchEvent | Synced]
    ) -> AsyncGenerator[WatchEvent | Synced]:
        self.watches.append(self.clock.seconds())
        news: asyncio.Queue[WatchEvent | DiscoveryError] = asyncio.Queue()
        self._open.add(news)
        try:
            await asyncio.sleep(self.latency)
            self._fail(self.trouble, self.watch_trouble)
            for event in beginning:
                if self.breaks_off and isinstance(event, Synced):
                    raise away()
                yield event
            if self.cuts_after_the_beginning:
                raise away()
            while True:
                change = await news.get()
                if isinstance(change, DiscoveryError):
                    raise change
                yield change
        finally:
            self._open.discard(news)

    @property
    def watchers(self) -> int:
        return len(self._open)

    def change(self, known: Lease | None) -> None:
        """Replace the colony, and tell the watchers."""
        self.known = known
        self.revision += 1
        self._tell(WatchEvent(MESH, self.revision, known))

    def change_agent(self, agent_id: str, known: Lease | None) -> None:
        self.revision += 1
        self.agents.pop(agent_id, None)
        if known is not None:
            self.agents[agent_id] = known
        self._tell(WatchEvent(MESH, self.revision, known, agent_id))

    def cut(self, error: DiscoveryError | None = None) -> None:
        """End every watch that is open."""
        self._tell(error or away())

    def _tell(self, news: WatchEvent | DiscoveryError) -> None:
        for queue in self._open:
            queue.put_nowait(news)


def most_in_a_second(arrivals: Iterable[float]) -> int:
    """Return how many arrivals the fullest second holds, wherever it begins."""
    times = sorted(arrivals)
    first, most = 0, 0
    for last, time in enumerate(times):
        while times[first] <= time - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most
