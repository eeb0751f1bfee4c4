"""The servers that have the shards, and the asking: each answer comes in time, or is that there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from redis.exceptions import NoScriptError

from discovery.models import WatchEvent
from discovery.stores.base import Listener
from discovery.stores.redis import scripts
from discovery.stores.redis.events import BLOCK, EVENTS_KEPT, EventReader
from discovery.stores.redis.failures import unavailable
from discovery.stores.redis.lane import Lane
from discovery.stores.redis.link import Link, Reply, Route
from discovery.stores.redis.shards import Shard, make_shards, shard_number

T = TypeVar("T")


_SCRIPTS = (
    *("register", "deregister", "evict", "current", "agents"),
    *("count", "owned", "joined", "sweep", "once"),
)


def loop_time() -> float:
    """Return the present moment on the running loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


class Server:
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
        self.lane = Lane(Link(route, slot, timeout), timeout)
        self._events = Link(route, slot, timeout + BLOCK)
        self.reader = EventReader(self._events, streams, changed, missed, self.lane.doubt)

    async def close(self) -> None:
        """Disconnect."""
        await self.lane.close()
        await self._events.close()


class Backend:
    """All servers. They are connected to when they are first asked, and their events followed from then on."""

    def __init__(self, route: Route, prefix: str, *, timeout: float, apart: bool) -> None:
        """See RedisStore."""
        self._timeout = timeout
        self.shards = make_shards(prefix)
        groups = [[shard] for shard in self.shards] if apart else [self.shards]
        self.servers = [Server(group, route, timeout, self._change, self._gap) for group in groups]
        self.scripts = {name: scripts.load(name) for name in _SCRIPTS}
        self._changed: Listener | None = None
        self._missed: Callable[[], None] | None = None
        self._readers: list[asyncio.Task[None]] = []
        self.expired = 0
        """How many leases this replica was the first to report as ended."""

    def place(self, mesh_id: bytes) -> tuple[Shard, Server]:
        """Return where everything of a mesh is."""
        number = shard_number(mesh_id)
        return self.shards[number], self.server(number)

    def server(self, shard: int) -> Server:
        """Return which server has the shard of that number."""
        return self.servers[shard % len(self.servers)]

    async def run(
        self, server: Server, script: str, keys: Sequence[bytes], *arguments: bytes | int
    ) -> list[Any]:
        """Return what a script returns behind the number of expiries that it reported."""
        self._follow()
        known, lane, since = self.scripts[script], server.lane, loop_time()
        operands = (len(keys), *keys, EVENTS_KEPT, *arguments)
        try:
            reply = await lane.call(b"EVALSHA", known.sha, *operands)
        except NoScriptError:
            reply = await self.in_time(lane.call(b"EVAL", known.text, *operands), since)
        expired, *result = cast("list[Any]", reply)
        self.expired += expired
        return result

    async def ask(self, server: Server, *command: bytes | int) -> Reply:
        """Return the reply to a command."""
        self._follow()
        return await server.lane.call(*command)

    async def in_time(self, call: Awaitable[T], since: float) -> T:
        """Return what `call` does, which is part of something that began at `since`: see `loop_time`.

        Raises:
            StoreUnavailableError: it takes too long.
        """
        try:
            async with asyncio.timeout_at(since + self._timeout):
                return await call
        except TimeoutError as error:
            raise unavailable(error) from error

    def listen(self, changed: Listener, missed: Callable[[], None] | None) -> None:
        """See RegistryStore."""
        self._changed, self._missed = changed, missed
        with suppress(RuntimeError):  # no loop runs yet: then the first call starts the reading
            self._follow()

    async def close(self) -> None:
        """Disconnect from all. Idempotent."""
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await asyncio.gather(*(server.close() for server in self.servers))

    def _follow(self) -> None:
        if self._changed is not None and not self._readers:
            loop = asyncio.get_running_loop()
            self._readers = [loop.create_task(server.reader.run()) for server in self.servers]

    def _change(self, event: WatchEvent) -> None:
        if self._changed is not None:
            self._changed(event)

    def _gap(self) -> None:
        if self._missed is not None:
            self._missed()
