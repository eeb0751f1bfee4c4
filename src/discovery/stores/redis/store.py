"""What each method of the contract is in Redis."""
# ruff: noqa: ARG002 - `now` is the caller's clock; here the one that all replicas share counts

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from discovery.clock import MICROSECONDS, Instant
from discovery.errors import (
    MeshIdTakenError,
    MeshReservedError,
    NotOwnerError,
    StoreUnavailableError,
)
from discovery.models import (
    Counts,
    Lease,
    Registration,
    Reservation,
    Terms,
    WatchEvent,
    lease_name,
)
from discovery.stores.base import (
    NO_TERMS,
    AgentsPage,
    Grant,
    LeasesPage,
    Listener,
    Quotas,
    quota_error,
    quotas,
)
from discovery.stores.redis.backend import Backend, Server, loop_time
from discovery.stores.redis.codec import (
    decode_lease,
    decode_reservation,
    encode_owner,
    encode_registration,
)
from discovery.stores.redis.counting import count_leases, there_are_against
from discovery.stores.redis.link import Route
from discovery.stores.redis.listing import Listing

# How long, and for how many in each shard, the revision of an absent mesh is remembered. There must be a limit: anybody
# can ask for any number of meshes that never were. Once it is forgotten, the next revision is what the clock says.
_REMEMBERED_US = 24 * 3600 * MICROSECONDS
_MOST_REMEMBERED = 10_000
_PLACES = 4096
"""Of how many leases this replica remembers the names of the keys: those that are renewed again and again."""


class RedisStore:
    """A RegistryStore that any number of replicas share.

    It connects when it is first used, and anew when a connection fails: Redis need not be there, and may come and go.
    Each call is answered within `timeout` seconds, if only by StoreUnavailableError.
    """

    def __init__(self, route: Route, prefix: str, *, timeout: float, apart: bool = False) -> None:
        """Keep everything in keys that start with `prefix`; `apart` says that each shard may be on another server."""
        self._backend = Backend(route, prefix, timeout=timeout, apart=apart)
        self._place = lru_cache(_PLACES)(self._find_place)

    @property
    def expired(self) -> int:
        """See RegistryStore."""
        return self._backend.expired

    def holds(self, registration: Registration) -> bool:
        """See RegistryStore. Only Redis knows."""
        del registration
        return False

    def register(
        self, registration: Registration, *, ttl: int, now: Instant, terms: Terms = NO_TERMS
    ) -> Coroutine[Any, Any, Grant]:
        """See RegistryStore. Quotas make a grant three round trips, one after the other; a renewal is always one."""
        most = quotas(registration, terms)
        if any(most):
            return self._register_within(most, registration, ttl, terms)
        return self._register(registration, ttl, terms, may_grant=True)

    async def _register_within(
        self, most: Quotas, registration: Registration, ttl: int, terms: Terms
    ) -> Grant:
        since = loop_time()
        try:
            return await self._register(registration, ttl, terms, may_grant=False)
        except _WouldBeNewError:
            grant = self._grant_within(most, registration, ttl, terms)
        return await self._backend.in_time(grant, since)

    async def lookup(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> Lease | None:
        """See RegistryStore."""
        mesh = mesh_id.encode()
        shard, server = self._backend.place(mesh)
        value = await self._backend.ask(server, b"GET", shard.lease(mesh, agent_id.encode()))
        return None if value is None else decode_lease(cast("bytes", value))

    async def deregister(
        self, mesh_id: str, pubkey: str, *, now: Instant, agent_id: str = ""
    ) -> bool:
        """See RegistryStore."""
        [outcome] = await self._run_for("deregister", mesh_id, agent_id, pubkey.encode())
        if outcome == -1:
            raise NotOwnerError(mesh_id, agent_id=agent_id)
        return bool(outcome)

    async def evict(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> bool:
        """See RegistryStore."""
        [outcome] = await self._run_for("evict", mesh_id, agent_id)
        return bool(outcome)

    async def reservation(
        self, mesh_id: str, *, now: Instant, agent_id: str = ""
    ) -> Reservation | None:
        """See RegistryStore."""
        mesh = mesh_id.encode()
        shard, server = self._backend.place(mesh)
        value = await self._backend.ask(server, b"GET", shard.reserved(mesh, agent_id.encode()))
        return None if value is None else decode_reservation(cast("bytes", value))

    async def leases(
        self, *, agents: bool, prefix: str, after: str, limit: int, now: Instant
    ) -> LeasesPage:
        """See RegistryStore. It takes two round trips for each hundred that it looks at."""
        listing = Listing(self._backend, agents=agents, prefix=prefix)
        return await self._backend.in_time(listing.page(after, limit), loop_time())

    async def agents(self, mesh_id: str, *, after: str, limit: int, now: Instant) -> AgentsPage:
        """See RegistryStore. Up to twice `limit` ends are noted first, or met on the way."""
        mesh = mesh_id.encode()
        shard, server = self._backend.place(mesh)
        revision, go_on, *values = await self._backend.run(
            server, "agents", shard.page_keys(mesh), mesh, after.encode(), limit
        )
        return AgentsPage(revision, tuple(map(decode_lease, values)), go_on.decode())

    async def count(self, *, now: Instant) -> Counts:
        """See RegistryStore. It is one command to each server, whose cost does not depend on the numbers."""
        return await count_leases(self._backend)

    async def sweep(self, *, now: Instant, limit: int) -> bool:
        """See RegistryStore. One server that cannot answer does not keep the others from being swept."""
        more, failure = False, None
        for server in self._backend.servers:
            keys = [key for shard in server.shards for key in shard.sweep_keys()]
            try:
                reported, left = await self._backend.run(
                    server, "sweep", keys, limit, _REMEMBERED_US, _MOST_REMEMBERED
                )
            except StoreUnavailableError as error:
                failure = error
                continue
            limit -= reported
            more = more or bool(left)
        if failure is not None and not more:
            raise failure
        return more

    async def current(self, mesh_id: str, *, now: Instant) -> WatchEvent:
        """See RegistryStore."""
        [state] = await self._run_for("current", mesh_id, "")
        if isinstance(state, int):
            return WatchEvent(mesh_id, state, None)
        lease = decode_lease(state)
        return WatchEvent(mesh_id, lease.revision, lease)

    async def once(self, name: str, value: str, until_ms: int | None = None) -> str | None:
        """See OnceStore."""
        key, until = name.encode(), b"" if until_ms is None else until_ms
        shard, server = self._backend.place(key)
        [had] = await self._backend.run(server, "once", [shard.once(key)], value.encode(), until)
        return None if had is None else cast("bytes", had).decode()

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        """See RegistryStore. Other replicas' changes are reported too. `missed` is also called once to begin with."""
        self._backend.listen(changed, missed)

    async def close(self) -> None:
        """See RegistryStore."""
        await self._backend.close()

    async def _grant_within(
        self, most: Quotas, registration: Registration, ttl: int, terms: Terms
    ) -> Grant:
        there_are = await there_are_against(most, self._backend, registration, terms.owner)
        if error := quota_error(most, there_are):
            raise error
        return await self._register(registration, ttl, terms, may_grant=True)

    async def _register(
        self, wanted: Registration, ttl: int, terms: Terms, *, may_grant: bool
    ) -> Grant:
        outcome, *numbers = await self._run_for(
            "register",
            wanted.mesh_id,
            wanted.agent_id,
            *(wanted.pubkey.encode(), encode_registration(wanted), ttl * MICROSECONDS),
            *(terms.reserve * 1000, terms.old_pubkey.encode(), encode_owner(terms.owner)),
            int(may_grant),
        )
        if outcome < 0:
            raise _REFUSALS[outcome](wanted, *numbers)
        revision, now_us, expires_at_us, granted_at_us = numbers
        return Grant(
            wanted,
            revision,
            now_us,
            expires_at_us,
            granted_at_us,
            terms.owner,
            renewed=bool(outcome),
        )

    def _run_for(
        self, script: str, mesh_id: str, agent_id: str, *arguments: bytes | int
    ) -> Coroutine[Any, Any, list[Any]]:
        server, keys, *named = self._place(mesh_id, agent_id)
        return self._backend.run(server, script, keys, *named, *arguments)

    def _find_place(
        self, mesh_id: str, agent_id: str
    ) -> tuple[Server, Sequence[bytes], bytes, bytes]:
        """Return where a lease is, and what each script on one lease takes: keys, and its first two arguments."""
        mesh, name = mesh_id.encode(), lease_name(mesh_id, agent_id).encode()
        shard, server = self._backend.place(mesh)
        return server, shard.keys(mesh, agent_id.encode()), name, shard.owned()


class _WouldBeNewError(Exception):
    """A registration would be a grant, and that was not known to be within the quotas."""


def _taken(wanted: Registration, end_us: int) -> Exception:
    return MeshIdTakenError(wanted.mesh_id, end_us, agent_id=wanted.agent_id)


def _reserved(wanted: Registration, end_us: int) -> Exception:
    return MeshReservedError(wanted.mesh_id, end_us, agent_id=wanted.agent_id)


def _would_be_new(_wanted: Registration) -> Exception:
    return _WouldBeNewError()


_REFUSALS: Mapping[int, Callable[..., Exception]] = {
    -1: _taken,
    -2: _reserved,
    -3: _would_be_new,
}
"""What register.lua answers where it does nothing."""
