"""Knowing where a colony is: what an agent does to find it, and to notice when it moves.

    async with ColonyResolver(client, "my-app-prod", cache_file=path) as resolver:
        await resolver.resolve()
        for endpoint in resolver.endpoints():
            if await connect(endpoint, resolver.state.lease.registration.pubkey):
                resolver.connected(endpoint)
                break
        else:
            resolver.report_failure()

Once something is known it is kept, however long discovery is away and whatever it has forgotten: only another
registration replaces it. The state says how sure it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

from discovery.client.memory import ColonyMemory
from discovery.client.pacing import Pacing, elapsed, is_transient
from discovery.client.sound import require_colony
from discovery.client.state import ResolverPhase, ResolverState
from discovery.client.watching import keep_watching
from discovery.client.worker import Worker
from discovery.clock import Instant
from discovery.errors import DiscoveryError, NotRegisteredError
from discovery.models import Lease, WatchEvent


class ResolverCalls(Protocol):
    """What a resolver needs of a `DiscoveryClient`."""

    async def lookup_colony(self, mesh_id: str, /) -> Lease:
        """Return a colony's live lease."""
        ...

    def watch_colony(self, mesh_id: str, /) -> AsyncGenerator[WatchEvent]:
        """Yield a colony's state now and whenever it changes."""
        ...


class ColonyResolver(Worker[ResolverState]):
    """Knows where the colony of one mesh is.

    While its `async with` block runs it keeps itself current: it follows the colony by a watch, and looks it up each
    `lookup_interval` too, because not every proxy lets a stream through, nor says that it does not. Each watch begins
    with the present state, whatever its revision, which says that there is nothing to catch up with. Outside of the
    block, `resolve` works as well and nothing happens by itself.
    """

    def __init__(
        self,
        client: ResolverCalls,
        mesh_id: str,
        *,
        cache_ttl: float = 300.0,
        lookup_interval: float = 300.0,
        cache_file: Path | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        """Prepare to resolve `mesh_id`, and read `cache_file`, if it is given and there.

        `resolve` answers from memory for `cache_ttl` seconds after discovery was last heard.

        Raises:
            ValueError: `lookup_interval` is not above 0.
        """
        if lookup_interval <= 0:
            raise ValueError(f"lookup_interval is {lookup_interval}; must be above 0")
        pacing = pacing or Pacing()
        memory = ColonyMemory(mesh_id, cache_file)
        phase = ResolverPhase.UNKNOWN if memory.lease is None else ResolverPhase.STALE
        since_us = pacing.clock.now().unix_us
        super().__init__(
            ResolverState(phase, since_us, lease=memory.lease, cache_problem=memory.problem), pacing
        )
        self._client = client
        self._mesh_id = mesh_id
        self._cache_ttl = cache_ttl
        self._lookup_interval = lookup_interval
        self._memory = memory
        self._heard: Instant | None = None
        self._unsure = asyncio.Event()
        self._failures = asyncio.Event()
        self._patience = pacing.backoff()
        self._asking = asyncio.Lock()
        self._answer: DiscoveryError | None = None
        self._answers = 0
        self._told = 0

    async def resolve(self) -> Lease:
        """Return the colony's lease: from memory if it is fresh, or else as discovery says now.

        If discovery cannot answer, or says that nothing is registered, it is the last one that was known, and `state`
        tells: a colony may be between two leases, or the server between two lives.

        Raises:
            NotRegisteredError: nothing is registered, and nothing was known.
            DiscoveryError: discovery cannot answer and nothing was known; or it refuses to answer.
        """
        error = None if self._is_fresh() else await self._ask()
        lease = self.state.lease
        if lease is None or (error is not None and not _is_excused(error)):
            raise error or NotRegisteredError(self._mesh_id)
        return lease

    def endpoints(self) -> tuple[str, ...]:
        """Return where to reach the colony, in the order to try: what worked last, then as registered.

        The address that was observed comes last, as `host:port` too. Empty if nothing is known.
        """
        return self._memory.endpoints()

    def connected(self, endpoint: str) -> None:
        """Say that `endpoint` worked: it is the first to try from now on, also after a restart."""
        self._patience.reset()
        self._memory.prefer(endpoint)
        self._become(self.state.phase)

    def report_failure(self, endpoint: str = "") -> None:
        """Say that the colony cannot be reached, at `endpoint` or at all: discovery is asked at once.

        Reports that come in a burst make one question. If they go on, the questions are spaced out by the backoff until
        `connected` is called, so that a broken colony is no burden on discovery. Outside of the block it asks nothing.
        """
        self._memory.forget(endpoint)
        self._failures.set()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self._poll())
                tasks.create_task(self._answer_failures())
        finally:
            self._become(self.state.phase, following=False)

    async def _follow(self) -> None:
        await keep_watching(
            lambda: self._client.watch_colony(self._mesh_id),
            self._take,
            self._lost,
            pacing=self._pacing,
            refused_pause=self._lookup_interval,
        )

    def _take(self, event: WatchEvent) -> None:
        self._learn(event.lease, following=True)
        self._told += 1

    def _lost(self, error: DiscoveryError) -> None:
        """Note the end of a watch. It casts no doubt on what is known, as proxies end all streams now and then."""
        if self.state.following:
            self._unsure.set()
        self._become(self.state.phase, following=False, error=error)

    async def _poll(self) -> None:
        """Ask whenever nothing was heard for the whole of a wait, which is a short one after something went wrong."""
        # In an outage it soon leaves it to the watch to try often.
        backoff, never = self._pacing.backoff(cap=self._lookup_interval), asyncio.Event()
        while True:
            heard = self._heard
            if self._is_sure():
                backoff.reset()
                await self._pacing.wait(self._pacing.soon(self._lookup_interval), self._unsure)
                if self._unsure.is_set():
                    continue
            else:
                error = self.state.error
                await self._pacing.wait(backoff.next(error.retry_after if error else None), never)
            if self._heard is heard:
                await self._ask()

    def _is_sure(self) -> bool:
        known = self.state.following or self.state.phase is ResolverPhase.CURRENT
        return known and not self._unsure.is_set()

    async def _answer_failures(self) -> None:
        never = asyncio.Event()
        while True:
            await self._failures.wait()
            error = await self._ask()
            # Those that came meanwhile are answered as well.
            self._failures.clear()
            wait = self._patience.next(error.retry_after if error else None)
            await self._pacing.wait(wait, never)

    async def _ask(self) -> DiscoveryError | None:
        """Look the colony up; of callers at the same time one does, for all. Return what went wrong."""
        answers = self._answers
        async with self._asking:
            if self._answers == answers:
                self._answer = await self._look_up()
                self._answers += 1
            return self._answer

    async def _look_up(self) -> DiscoveryError | None:
        told = self._told
        try:
            lease = await self._client.lookup_colony(self._mesh_id)
            if self._told == told:  # or else the watch was told something newer
                self._learn(lease)
        except NotRegisteredError as error:
            if self._told == told:
                self._learn(None)
            return error
        except DiscoveryError as error:
            self._doubt(error)
            return error
        return None

    def _learn(self, lease: Lease | None, **changes: bool) -> None:
        """Take in what discovery says.

        Raises:
            MalformedMessageError: it cannot be used.
        """
        if lease is not None:
            require_colony(lease, self._mesh_id)
            self._memory.learn(lease)
        self._heard = self._pacing.clock.now()
        self._unsure.clear()
        phase = ResolverPhase.ABSENT if lease is None else ResolverPhase.CURRENT
        self._become(phase, error=None, **changes)

    def _doubt(self, error: DiscoveryError) -> None:
        current = self.state.phase is ResolverPhase.CURRENT
        self._become(ResolverPhase.STALE if current else self.state.phase, error=error)

    def _become(self, phase: object, **changes: object) -> None:
        memory = self._memory
        super()._become(phase, lease=memory.lease, cache_problem=memory.problem, **changes)

    def _is_fresh(self) -> bool:
        if self._heard is None or self.state.phase is not ResolverPhase.CURRENT:
            return False
        return elapsed(self._heard, self._pacing.clock.now()) < self._cache_ttl


def _is_excused(error: DiscoveryError) -> bool:
    """Return whether what was last known will do instead of an answer."""
    return is_transient(error) or isinstance(error, NotRegisteredError)
