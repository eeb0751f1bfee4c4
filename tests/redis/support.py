"""What the tests of the Redis store share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from discovery.clock import Instant
from discovery.errors import StoreUnavailableError
from discovery.models import Counts, Lease, Registration, Reservation, Terms, WatchEvent
from discovery.stores.base import NO_TERMS, AgentsPage, Grant, LeasesPage, OnceStore, RegistryStore
from tests.redis.servers import PATIENCE, eventually
from tests.support import KEY, MESH, registration

T = TypeVar("T")

NOW = Instant(0, 0)
"""The caller's clock. It must not matter, so it is as wrong as can be."""

TTL = 300
TIMEOUT = 0.5
"""How long a store waits for its server where that will not answer, in seconds."""


@dataclass
class Replica:
    """A store as one replica of the service has it, and what its listener is told."""

    store: RegistryStore
    events: list[WatchEvent] = field(default_factory=list)
    gaps: int = 0

    def __post_init__(self) -> None:
        self.store.listen(self.events.append, self._missed)

    def _missed(self) -> None:
        self.gaps += 1

    async def register(
        self, wanted: Registration | None = None, ttl: int = TTL, terms: Terms = NO_TERMS
    ) -> Grant:
        return await self.store.register(wanted or registration(), ttl=ttl, now=NOW, terms=terms)

    async def lookup(self, mesh_id: str = MESH, agent_id: str = "") -> Lease | None:
        return await self.store.lookup(mesh_id, now=NOW, agent_id=agent_id)

    async def deregister(self, mesh_id: str = MESH, pubkey: str = KEY, agent_id: str = "") -> bool:
        return await self.store.deregister(mesh_id, pubkey, now=NOW, agent_id=agent_id)

    async def evict(self, mesh_id: str = MESH, agent_id: str = "") -> bool:
        return await self.store.evict(mesh_id, now=NOW, agent_id=agent_id)

    async def reservation(self, mesh_id: str = MESH, agent_id: str = "") -> Reservation | None:
        return await self.store.reservation(mesh_id, now=NOW, agent_id=agent_id)

    async def leases(
        self, *, agents: bool = False, prefix: str = "", after: str = "", limit: int = 100
    ) -> LeasesPage:
        return await self.store.leases(
            agents=agents, prefix=prefix, after=after, limit=limit, now=NOW
        )

    async def once(self, name: str, value: str, until_ms: int | None = None) -> str | None:
        assert isinstance(self.store, OnceStore)
        return await self.store.once(name, value, until_ms)

    async def agents(self, mesh_id: str = MESH, after: str = "", limit: int = 100) -> AgentsPage:
        return await self.store.agents(mesh_id, after=after, limit=limit, now=NOW)

    async def counts(self) -> Counts:
        return await self.store.count(now=NOW)

    async def count(self) -> int:
        return (await self.counts()).colonies

    async def sweep(self, limit: int = 100) -> bool:
        return await self.store.sweep(now=NOW, limit=limit)

    async def current(self, mesh_id: str = MESH) -> WatchEvent:
        return await self.store.current(mesh_id, now=NOW)

    def every_call(self) -> dict[str, Coroutine[Any, Any, object]]:
        """One call of each kind, yet to be awaited."""
        return {
            "register": self.register(registration(public_port=1)),
            "lookup": self.lookup(),
            "deregister": self.deregister(),
            "evict": self.evict("mesh-2"),
            "reservation": self.reservation(),
            "leases": self.leases(),
            "agents": self.agents(),
            "count": self.count(),
            "sweep": self.sweep(),
            "current": self.current(),
        }

    async def follows(self, gaps: int = 1) -> None:
        """Return once it was told, for the `gaps`th time, that it may have missed something: now it is told all."""
        await eventually(lambda: _now(self.gaps >= gaps))

    async def hears(self, what: Callable[[WatchEvent], bool]) -> WatchEvent:
        """Return the first event that is so."""
        await eventually(lambda: _now(any(map(what, self.events))))
        return next(filter(what, self.events))

    async def learns_of(self, revision: int, gaps: int) -> None:
        """Return once it was told of `revision`, or that it missed something and has to ask.

        `gaps` is how often it was told the latter before the change was made.
        """
        await eventually(
            lambda: _now(self.gaps > gaps or any(e.revision == revision for e in self.events))
        )

    async def has_heard(self, events: int) -> bool:
        return len(self.events) == events

    async def lacks(self, mesh_id: str, agent_id: str = "") -> bool:
        return await self.lookup(mesh_id, agent_id) is None

    async def works(self) -> bool:
        """Say whether calls are answered."""
        try:
            await self.register(registration(mesh_id="probe"))
            await self.lookup("probe")
        except StoreUnavailableError:
            return False
        return True


async def _now(answer: bool) -> bool:
    return answer


async def refusal(call: Coroutine[Any, Any, object], timeout: float = TIMEOUT) -> object:
    """Return the StoreUnavailableError that `call` raises, or what it returns. It must not take longer than it may."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(PATIENCE):
            return await call
    except StoreUnavailableError as error:
        assert loop.time() - started < timeout + 3  # seconds that a busy machine may add
        return error


async def refusals(calls: dict[str, Coroutine[Any, Any, object]]) -> dict[str, object]:
    """Return `refusal` of each, made at the same time."""
    answers = await asyncio.gather(*map(refusal, calls.values()))
    return dict(zip(calls, answers, strict=True))
