"""What each call means. It knows neither a transport nor a concrete store, and it owns the clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from discovery.clock import MICROSECONDS, Clock
from discovery.errors import DiscoveryError, NotRegisteredError, StoreUnavailableError
from discovery.models import (
    NOBODY,
    Caller,
    Found,
    HealthReport,
    Lease,
    Registered,
    Registration,
    Synced,
    Terms,
    WatchEvent,
    lease_name,
    observed_endpoint,
    refresh_after,
)
from discovery.paging import LARGEST_PAGE, check_page, make_token, read_token
from discovery.remembered import Remembered
from discovery.stale import LastRead
from discovery.stores.base import NO_TERMS, Listener, RegistryStore
from discovery.validation import (
    check_agent,
    check_agent_registration,
    check_id,
    check_pubkey,
    check_registration,
    require,
    require_id,
)
from discovery.watch import Subscription, WatchHub


class DiscoveryService:
    """The calls of RFD-001 on a store.

    Every method may raise InvalidFieldError and what the store raises, StoreUnavailableError above all.
    """

    def __init__(
        self,
        store: RegistryStore,
        clock: Clock,
        *,
        ttl: int,
        version: str,
        spread: Callable[[], float],
        stale_lookups: int = 0,
        terms: Terms = NO_TERMS,
    ) -> None:
        """Serve `store` with leases of `ttl` seconds, on `terms`; `spread` gives random numbers in [0, 1).

        While the store is away, lookups are answered with what was read up to `stale_lookups` seconds ago.
        """
        self._store = store
        self._hub = WatchHub(store, clock)
        self._clock = clock
        self._last_read = LastRead(stale_lookups)
        self._ttl = ttl
        self._version = version
        self._spread = spread
        self._terms = terms
        self._started = clock.now()
        # A heartbeat's registration is mostly the very object of the one before: see rpcs.
        self._check_colony = Remembered(self._require_colony)
        self._check_agent = Remembered(self._require_agent)

    def register_colony(
        self, registration: Registration, address: str | None, caller: Caller = NOBODY
    ) -> Coroutine[Any, Any, Registered]:
        """Grant or renew a colony's lease. `address` is the IP address the call came from, if it has one.

        Raises:
            MeshIdTakenError: another key holds a live lease.
            MeshReservedError: the mesh is reserved for another key.
            QuotaError: as many as may be are registered.
        """
        self._check_colony(registration)
        return self._register(registration, address, caller)

    def lookup_colony(self, mesh_id: str) -> Coroutine[Any, Any, Found]:
        """Return the live lease on `mesh_id`, or while the store is away what was last read, if that is allowed.

        Raises:
            NotRegisteredError: there is none.
        """
        require_id("mesh_id", mesh_id)
        return self._lookup(mesh_id, "")

    async def deregister_colony(self, mesh_id: str, pubkey: str) -> bool:
        """End the lease that `pubkey` holds on `mesh_id`; return whether there was one.

        Raises:
            NotOwnerError: another key holds a live lease.
        """
        require((*check_id("mesh_id", mesh_id), *check_pubkey(pubkey)))
        return await self._deregister(mesh_id, "", pubkey)

    def watch_colony(self, mesh_id: str, after_revision: int) -> Subscription:
        """Return the state of `mesh_id` now, and whenever it changes. It ends only with an error.

        The present state is left out if its revision is `after_revision`. A reader that is slower than the changes is
        given the latest.

        Raises:
            DrainingError: the server stops.
        """
        require(check_id("mesh_id", mesh_id))
        return self._hub.watch(mesh_id, after_revision)

    def register_agent(
        self, registration: Registration, address: str | None, caller: Caller = NOBODY
    ) -> Coroutine[Any, Any, Registered]:
        """Grant or renew an agent's lease: see `register_colony`.

        Raises:
            MeshIdTakenError: another key holds a live lease on this agent_id of the mesh.
            MeshReservedError: it is reserved for another key.
            QuotaError: as many as may be are registered.
        """
        self._check_agent(registration)
        return self._register(registration, address, caller)

    def lookup_agent(self, mesh_id: str, agent_id: str) -> Coroutine[Any, Any, Found]:
        """Return the live lease of an agent: see `lookup_colony`.

        Raises:
            NotRegisteredError: there is none.
        """
        require(check_agent(mesh_id, agent_id))
        return self._lookup(mesh_id, agent_id)

    async def deregister_agent(self, mesh_id: str, agent_id: str, pubkey: str) -> bool:
        """End the lease that `pubkey` holds on an agent; return whether there was one.

        Raises:
            NotOwnerError: another key holds a live lease.
        """
        require((*check_agent(mesh_id, agent_id), *check_pubkey(pubkey)))
        return await self._deregister(mesh_id, agent_id, pubkey)

    async def list_agents(
        self, mesh_id: str, page_size: int, page_token: str
    ) -> tuple[Sequence[Lease], str]:
        """Return live leases of agents of `mesh_id` in the order of their agent_id, and the token of the next page.

        `page_token` is empty for the first page, and so is the one of the last. A page has at most `page_size` agents,
        or 100 if that is 0 or more.
        """
        require((*check_id("mesh_id", mesh_id), *check_page(page_size, page_token)))
        limit = min(page_size or LARGEST_PAGE, LARGEST_PAGE)
        page = await self._store.agents(
            mesh_id, after=read_token(page_token), limit=limit, now=self._clock.now()
        )
        return page.leases, make_token(page.after)

    def watch_agents(
        self, mesh_id: str, after_revision: int
    ) -> AsyncGenerator[WatchEvent | Synced]:
        """Yield the state of each agent of `mesh_id`, then Synced, then each change. It ends only with an error.

        If nothing has changed since `after_revision`, it begins with Synced. A reader that is slower than the changes
        is given the latest of each agent.

        Raises:
            DrainingError: the server stops.
        """
        require(check_id("mesh_id", mesh_id))
        return self._hub.watch_agents(mesh_id, after_revision)

    def tell_changes_to(self, listener: Listener) -> None:
        """Tell `listener` as well of each change that the store reports."""
        self._hub.tell = listener

    @property
    def watching(self) -> int:
        """How many watches are under way."""
        return self._hub.watching

    @property
    def uptime_seconds(self) -> int:
        """For how long it has served."""
        return (self._clock.now().monotonic_us - self._started.monotonic_us) // MICROSECONDS

    def end_watches(self, ending: Callable[[], DiscoveryError]) -> None:
        """End every watch with an error of its own that `ending` makes."""
        self._hub.close(ending)

    async def health(self) -> HealthReport:
        """Report on the service; it counts live leases, so a store that cannot answer is an error here too."""
        now = self._clock.now()
        colonies = (await self._store.count(now=now)).colonies
        return HealthReport("ok", self._version, self.uptime_seconds, colonies)

    def _require_colony(self, registration: Registration) -> None:
        if not self._store.holds(registration):  # then it kept the rules when it came
            require(check_registration(registration))

    def _require_agent(self, registration: Registration) -> None:
        # Without an agent_id it would be its colony's that is held.
        if not registration.agent_id or not self._store.holds(registration):
            require(check_agent_registration(registration))

    async def _register(
        self, registration: Registration, address: str | None, caller: Caller
    ) -> Registered:
        now, terms = self._clock.now(), self._terms
        if caller is not NOBODY:
            terms = replace(terms, owner=caller.key_name, old_pubkey=caller.old_pubkey)
        grant = await self._store.register(registration, ttl=self._ttl, now=now, terms=terms)
        if self._last_read.remembers:
            name = lease_name(registration.mesh_id, registration.agent_id)
            self._last_read.note(name, grant.lease, now)
        return Registered(
            grant.revision,
            self._ttl,
            grant.expires_at_us,
            refresh_after(self._ttl, self._spread()),
            observed_endpoint(address),
        )

    async def _lookup(self, mesh_id: str, agent_id: str) -> Found:
        now, name = self._clock.now(), lease_name(mesh_id, agent_id)
        try:
            lease = await self._store.lookup(mesh_id, agent_id=agent_id, now=now)
        except StoreUnavailableError:
            if (stale := self._last_read.recall(name, self._clock.now())) is None:
                raise
            return stale
        self._last_read.note(name, lease, now)
        if lease is None:
            raise NotRegisteredError(mesh_id, agent_id=agent_id)
        return Found(lease)

    async def _deregister(self, mesh_id: str, agent_id: str, pubkey: str) -> bool:
        now = self._clock.now()
        removed = await self._store.deregister(mesh_id, pubkey, agent_id=agent_id, now=now)
        self._last_read.note(lease_name(mesh_id, agent_id), None, now)
        return removed
