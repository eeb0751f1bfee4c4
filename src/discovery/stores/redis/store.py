"""What each method of the contract is in Redis."""
# ruff: noqa: ARG002 - `now` is the caller's clock; here the one that all replicas share counts

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from redis.exceptions import NoScriptError

from discovery.clock import MICROSECONDS, Instant
from discovery.errors import MeshIdTakenError, NotOwnerError, StoreUnavailableError
from discovery.models import Counts, Lease, Registration, WatchEvent, lease_name
from discovery.stores.base import AgentsPage, Grant, Listener
from discovery.stores.redis import scripts
from discovery.stores.redis.codec import decode_lease, encode_registration
from discovery.stores.redis.events import BLOCK, EVENTS_KEPT, EventReader
from discovery.stores.redis.failures import unavailable
from discovery.stores.redis.lane import Lane
from discovery.stores.redis.link import Link, Reply, Route
from discovery.stores.redis.shards import Shard, make_shards, shard_number

T = TypeVar("T")

# How long, and for how many in each shard, the revision of an absent mesh is remembered. There must be a limit: anybody
# can ask for any number of meshes that never were. Once it is forgotten, the next revision is what the clock says.
_REMEMBERED_US = 24 * 3600 * MICROSECONDS
_MOST_REMEMBERED = 10_000

_SCRIPTS = ("register", "deregister", "agents", "current", "count", "sweep")


class RedisStore:
    """A RegistryStore that any number of replicas share.

    It connects when it is first used, and anew when a connection fails: Redis need not be there, and may come and go.
    Each call is answered within `timeout` seconds, if only by StoreUnavailableError.
    """

    def __init__(self, route: Route, prefix: str, *, timeout: float, apart: bool = False) -> None:
        """Keep everything in keys that start with `prefix`; `apart` says that each shard may be on another server."""
        self._timeout = timeout
        self._shards = make_shards(prefix)
        groups = [[shard] for shard in self._shards] if apart else [self._shards]
        self._servers = [
            _Server(group, route, timeout, self._change, self._gap) for group in groups
        ]
        self._scripts = {name: scripts.load(name) for name in _SCRIPTS}
        self._changed: Listener | None = None
        self._missed: Callable[[], None] | None = None
        self._readers: list[asyncio.Task[None]] = []
        self.expired = 0
        """How many leases this replica was the first to report as ended."""

    async def register(self, registration: Registration, *, ttl: int, now: Instant) -> Grant:
        """See RegistryStore."""
        mesh_id, agent_id = registration.mesh_id, registration.agent_id
        pubkey, body = registration.pubkey.encode(), encode_registration(registration)
        outcome, *numbers = await self._run_for(
            "register", mesh_id, agent_id, pubkey, body, ttl * MICROSECONDS
        )
        if outcome < 0:
            raise MeshIdTakenError(mesh_id, numbers[0], agent_id=agent_id)
        revision, now_us, expires_at_us = numbers
        lease = Lease(registration, revision, now_us, expires_at_us)
        return Grant(lease, renewed=bool(outcome))

    async def lookup(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> Lease | None:
        """See RegistryStore."""
        mesh = mesh_id.encode()
        shard, server = self._place(mesh)
        get = server.lane.call(b"GET", shard.lease(mesh, agent_id.encode()))
        value = cast("bytes | None", await self._in_time(get))
        return None if value is None else decode_lease(value)

    async def deregister(
        self, mesh_id: str, pubkey: str, *, now: Instant, agent_id: str = ""
    ) -> bool:
        """See RegistryStore."""
        [outcome] = await self._run_for("deregister", mesh_id, agent_id, pubkey.encode())
        if outcome == -1:
            raise NotOwnerError(mesh_id, agent_id=agent_id)
        return bool(outcome)

    async def agents(self, mesh_id: str, *, after: str, limit: int, now: Instant) -> AgentsPage:
        """See RegistryStore. Up to twice `limit` ends are noted first, or met on the way."""
        mesh = mesh_id.encode()
        shard, server = self._place(mesh)
        revision, go_on, *values = await self._run(
            server, "agents", shard.page_keys(mesh), mesh, after.encode(), limit
        )
        return AgentsPage(revision, tuple(map(decode_lease, values)), go_on.decode())

    async def count(self, *, now: Instant) -> Counts:
        """See RegistryStore. It is one command to each server, whose cost does not depend on the numbers."""
        counts = await asyncio.gather(*map(self._count, self._servers))
        return Counts(*map(sum, zip(*counts, strict=True)))

    async def _count(self, server: _Server) -> list[int]:
        ends = [key for shard in server.shards for key in (shard.ends, shard.agents.ends)]
        return await self._run(server, "count", ends)

    async def sweep(self, *, now: Instant, limit: int) -> bool:
        """See RegistryStore. One server that cannot answer does not keep the others from being swept."""
        more, failure = False, None
        for server in self._servers:
            keys = [key for shard in server.shards for key in shard.sweep_keys()]
            try:
                reported, left = await self._run(
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

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        """See RegistryStore. Other replicas' changes are reported too. `missed` is also called once to begin with."""
        self._changed, self._missed = changed, missed
        with suppress(RuntimeError):  # no loop runs yet: then the first call starts the reading
            self._follow(asyncio.get_running_loop())

    async def close(self) -> None:
        """See RegistryStore."""
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await asyncio.gather(*(server.close() for server in self._servers))

    async def _run_for(
        self, script: str, mesh_id: str, agent_id: str, *arguments: bytes | int
    ) -> list[Any]:
        mesh, name = mesh_id.encode(), lease_name(mesh_id, agent_id).encode()
        shard, server = self._place(mesh)
        keys = shard.keys(mesh, agent_id.encode())
        return await self._run(server, script, keys, name, *arguments)

    async def _run(
        self, server: _Server, script: str, keys: Sequence[bytes], *arguments: bytes | int
    ) -> list[Any]:
        operands = (len(keys), *keys, EVENTS_KEPT, *arguments)
        reply = await self._in_time(server.run(self._scripts[script], operands))
        expired, *result = cast("list[Any]", reply)
        self.expired += expired
        return result

    async def _in_time(self, call: Awaitable[T]) -> T:
        self._follow(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except TimeoutError as error:
            raise unavailable(error) from error

    def _place(self, mesh_id: bytes) -> tuple[Shard, _Server]:
        """Return where everything of a mesh is."""
        number = shard_number(mesh_id)
        return self._shards[number], self._servers[number % len(self._servers)]

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._changed is not None and not self._readers:
            self._readers = [loop.create_task(server.reader.run()) for server in self._servers]

    def _change(self, event: WatchEvent) -> None:
        if self._changed is not None:
            self._changed(event)

    def _gap(self) -> None:
        if self._missed is not None:
            self._missed()


class _Server:
    """The shards that are sure to be on one server, and what goes there: one connection for calls, one for events."""

    def __init__(
        self,
        shards: Sequence[Shard],
        route: Route,
        timeout: float,
        changed: Listener,
        missed: Callable[[], None],
    ) -> None:
        slot, streams = shards[0].slot, [shard.events for shard in shards]
        self.shards = shards
        self.lane = Lane(Link(route, slot, timeout))
        self._events = Link(route, slot, timeout + BLOCK)
        self.reader = EventReader(self._events, streams, changed, missed, self.lane.doubt)

    async def run(self, script: scripts.Script, operands: tuple[bytes | int, ...]) -> Reply:
        try:
            return await self.lane.call(b"EVALSHA", script.sha, *operands)
        except NoScriptError:
            return await self.lane.call(b"EVAL", script.text, *operands)

    async def close(self) -> None:
        await self.lane.close()
        await self._events.close()
