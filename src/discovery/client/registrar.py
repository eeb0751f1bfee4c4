"""Staying registered: what a colony or an agent does from its start to its stop, and nothing else.

    async with ColonyRegistrar(client, registration) as registrar:
        async for state in registrar.states():
            print(state.phase, state.error)

It registers at once, renews the lease for as long as the block runs, tries again after failures, and ends the lease
when the block is left.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from typing import Generic, Protocol, TypeVar

from discovery.client.pacing import Pacing, elapsed, is_transient
from discovery.client.state import RegistrarPhase, RegistrarState
from discovery.client.worker import Worker
from discovery.clock import Instant
from discovery.errors import DeadlineExceededError, DiscoveryError
from discovery.models import RENEWALS_PER_LEASE, Registered, Registration, refresh_after


class ColonyCalls(Protocol):
    """What a colony's registrar needs of a `DiscoveryClient`."""

    async def register_colony(self, registration: Registration, /) -> Registered:
        """Register a colony, or renew its lease."""
        ...

    async def deregister_colony(self, mesh_id: str, pubkey: str, /) -> bool:
        """End a colony's lease."""
        ...


class AgentCalls(Protocol):
    """What an agent's registrar needs of a `DiscoveryClient`."""

    async def register_agent(self, registration: Registration, /) -> Registered:
        """Register an agent, or renew its lease."""
        ...

    async def deregister_agent(self, mesh_id: str, agent_id: str, pubkey: str, /) -> bool:
        """End an agent's lease."""
        ...


C = TypeVar("C")

# In seconds. No server grants less, but an answer that has none must not make the registrar run wild.
_SHORTEST_TTL = 1


class Registrar(Worker[RegistrarState], Generic[C]):
    """Keeps one registration alive while its `async with` block runs. Use `ColonyRegistrar` or `AgentRegistrar`.

    It renews when the server says (`refresh_after`), but never later than half of the lease's time to live, counted
    from before the call. A transient failure is followed by another attempt, without end and after random waits that
    grow to `pacing.cap` or a fifth of the time to live, whichever is less, so that a lease that can be saved is saved.
    A refusal is final until `update`.
    """

    def __init__(
        self,
        client: C,
        registration: Registration,
        *,
        interval: float | None = None,
        stop_timeout: float = 5.0,
        pacing: Pacing | None = None,
    ) -> None:
        """Prepare to register `registration`.

        `interval` is the longest time between two renewals, in seconds; None leaves it to the server. The farewell at
        the end takes `stop_timeout` seconds at most.

        Raises:
            ValueError: the interval is not above 0.
        """
        if interval is not None and interval <= 0:
            raise ValueError(f"interval is {interval}; must be above 0")
        pacing = pacing or Pacing()
        super().__init__(
            RegistrarState(RegistrarPhase.STARTING, pacing.clock.now().unix_us), pacing
        )
        self._client = client
        self._wanted = registration
        self._interval = math.inf if interval is None else interval
        self._stop_timeout = stop_timeout
        self._backoff = pacing.backoff()
        self._updated = asyncio.Event()
        self._unanswered = False
        self._held_from: Instant | None = None

    def update(self, registration: Registration) -> None:
        """Register this from now on, at once: also amid a wait, and after a refusal.

        If a call is in flight, this follows right after it. Of several updates the last counts.

        Raises:
            ValueError: it names another colony or agent, or has another key. That is another lease: start another
                registrar.
        """
        if _owner(registration) != _owner(self._wanted):
            raise ValueError("a registrar keeps its mesh_id, agent_id and pubkey")
        self._wanted = registration
        self._updated.set()

    @abstractmethod
    async def _register(self, registration: Registration) -> Registered: ...

    @abstractmethod
    async def _deregister(self, registration: Registration) -> bool: ...

    async def _run(self) -> None:
        while True:
            self._updated.clear()
            sent = self._pacing.clock.now()
            self._unanswered = True
            try:
                registered = await self._register(self._wanted)
            except DiscoveryError as error:
                since, wait = self._pacing.clock.now(), self._failed(error)
            else:
                since, wait = sent, self._granted(registered, sent)
            self._unanswered = False
            await self._pacing.wait(wait, self._updated, since=since)

    def _granted(self, registered: Registered, sent: Instant) -> float:
        """Return how many seconds after `sent` to renew."""
        self._held_from = sent
        ttl = max(registered.ttl, _SHORTEST_TTL)
        cap = min(self._pacing.cap, ttl / RENEWALS_PER_LEASE)
        self._backoff = self._pacing.backoff(cap)
        self._become(RegistrarPhase.REGISTERED, registered=registered, error=None)
        told = registered.refresh_after
        if told <= 0:  # as an older server says
            told = refresh_after(ttl, self._pacing.spread())
        return min(told, ttl / 2, self._pacing.soon(self._interval))

    def _failed(self, error: DiscoveryError) -> float:
        """Return after how many seconds to try again."""
        if not is_transient(error):
            self._become(RegistrarPhase.REFUSED, error=error)
            return math.inf
        live = RegistrarPhase.REGISTERED if self._is_live() else RegistrarPhase.RETRYING
        self._become(live, error=error)
        return self._backoff.next(error.retry_after)

    def _is_live(self) -> bool:
        """Return whether the lease is sure to last, whatever this machine's wall clock says."""
        if self._held_from is None or self.state.registered is None:
            return False
        return elapsed(self._held_from, self._pacing.clock.now()) < self.state.registered.ttl

    async def _leave(self) -> None:
        error = self.state.error
        try:
            # A call that the stop cut off may have been granted: nobody would end that lease.
            if self.state.registered is not None or self._unanswered:
                error = await self._say_goodbye()
        finally:
            self._become(RegistrarPhase.STOPPED, error=error)

    async def _say_goodbye(self) -> DiscoveryError | None:
        try:
            async with asyncio.timeout(self._stop_timeout):
                await self._deregister(self._wanted)
        except DiscoveryError as error:
            return error
        except TimeoutError:
            return DeadlineExceededError(
                f"no answer to the farewell within {self._stop_timeout:g} s; the lease will run out"
            )
        return None


class ColonyRegistrar(Registrar[ColonyCalls]):
    """Keeps a colony registered; see `Registrar`."""

    async def _register(self, registration: Registration) -> Registered:
        return await self._client.register_colony(registration)

    async def _deregister(self, registration: Registration) -> bool:
        return await self._client.deregister_colony(registration.mesh_id, registration.pubkey)


class AgentRegistrar(Registrar[AgentCalls]):
    """Keeps an agent registered; see `Registrar`."""

    async def _register(self, registration: Registration) -> Registered:
        return await self._client.register_agent(registration)

    async def _deregister(self, registration: Registration) -> bool:
        return await self._client.deregister_agent(
            registration.mesh_id, registration.agent_id, registration.pubkey
        )


def _owner(registration: Registration) -> tuple[str, str, str]:
    return registration.mesh_id, registration.agent_id, registration.pubkey
