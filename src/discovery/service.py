"""What each call means. It knows neither a transport nor a concrete store, and it owns the clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from discovery.clock import MICROSECONDS, Clock
from discovery.errors import DiscoveryError, NotRegisteredError, StoreUnavailableError
from discovery.models import (
    Found,
    HealthReport,
    Registered,
    Registration,
    WatchEvent,
    observed_endpoint,
    refresh_after,
)
from discovery.stale import LastRead
from discovery.stores.base import RegistryStore
from discovery.validation import check_id, check_pubkey, check_registration, require
from discovery.watch import WatchHub


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
    ) -> None:
        """Serve `store` with leases of `ttl` seconds; `spread` gives random numbers in [0, 1).

        While the store is away, lookups are answered with what was read up to `stale_lookups` seconds ago.
        """
        self._store = store
        self._hub = WatchHub(store, clock)
        self._clock = clock
        self._last_read = LastRead(stale_lookups)
        self._ttl = ttl
        self._version = version
        self._spread = spread
        self._started = clock.now()

    async def register_colony(self, registration: Registration, caller: str | None) -> Registered:
        """Grant or renew a colony's lease. `caller` is the IP address the call came from, if it has one.

        Raises:
            MeshIdTakenError: another key holds a live lease.
        """
        require(check_registration(registration))
        now = self._clock.now()
        grant = await self._store.register(registration, ttl=self._ttl, now=now)
        self._last_read.note(registration.mesh_id, grant.lease, now)
        renew_in = refresh_after(self._ttl, self._spread())
        return Registered(
            revision=grant.lease.revision,
            ttl=self._ttl,
            expires_at_us=grant.lease.expires_at_us,
            refresh_after=renew_in,
            observed_endpoint=observed_endpoint(caller),
        )

    async def lookup_colony(self, mesh_id: str) -> Found:
        """Return the live lease on `mesh_id`, or while the store is away what was last read, if that is allowed.

        Raises:
            NotRegisteredError: there is none.
        """
        require(check_id("mesh_id", mesh_id))
        now = self._clock.now()
        try:
            lease = await self._store.lookup(mesh_id, now=now)
        except StoreUnavailableError:
            if (stale := self._last_read.recall(mesh_id, self._clock.now())) is None:
                raise
            return stale
        self._last_read.note(mesh_id, lease, now)
        if lease is None:
            raise NotRegisteredError(mesh_id)
        return Found(lease)

    async def deregister_colony(self, mesh_id: str, pubkey: str) -> bool:
        """End the lease that `pubkey` holds on `mesh_id`; return whether there was one.

        Raises:
            NotOwnerError: another key holds a live lease.
        """
        require((*check_id("mesh_id", mesh_id), *check_pubkey(pubkey)))
        now = self._clock.now()
        removed = await self._store.deregister(mesh_id, pubkey, now=now)
        self._last_read.note(mesh_id, None, now)
        return removed

    def watch_colony(self, mesh_id: str, after_revision: int) -> AsyncGenerator[WatchEvent]:
        """Yield the state of `mesh_id` now, and whenever it changes. It ends only with an error.

        The present state is left out if its revision is `after_revision`. A reader that is slower than the changes is
        given the latest.

        Raises:
            DrainingError: the server stops.
        """
        require(check_id("mesh_id", mesh_id))
        return self._hub.watch(mesh_id, after_revision)

    def end_watches(self, ending: Callable[[], DiscoveryError]) -> None:
        """End every `watch_colony` with an error of its own that `ending` makes."""
        self._hub.close(ending)

    async def health(self) -> HealthReport:
        """Report on the service; it counts live leases, so a store that cannot answer is an error here too."""
        now = self._clock.now()
        colonies = await self._store.count(now=now)
        uptime = (now.monotonic_us - self._started.monotonic_us) // MICROSECONDS
        return HealthReport("ok", self._version, uptime, colonies)
