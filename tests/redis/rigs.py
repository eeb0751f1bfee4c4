"""The Redis store for the contract suite: on a fake in this process, and on a real server.

Time stands still in both until it is wound. Both go by it alone: what the caller's clock says must not matter.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from types import SimpleNamespace
from unittest import mock

import fakeredis
from fakeredis.aioredis import FakeAsyncRedisConnection

from discovery.stores.redis import RedisStore
from discovery.stores.redis.link import Address, Wire
from discovery.stores.redis.routes import Dialer, Fixed
from discovery.stores.redis.scripts import Script
from discovery.stores.redis.url import open_redis
from tests.redis.servers import Server
from tests.stores.rigs import BATCH, OpenRig, Rig
from tests.support import ManualClock

# Where fakeredis asks for the time.
_FAKES_CLOCKS = (
    "fakeredis._helpers.time",
    "fakeredis._socket._base.time",
    "fakeredis.commands_mixins.server_mixin.time",
    "fakeredis.model._stream.time",
)
# Beyond the present, so that no real server ends a lease before its time is wound to.
_FUTURE_US = 4_000_000_000_000_000


@asynccontextmanager
async def fake_rig() -> AsyncIterator[Rig]:
    clock, server = ManualClock(), fakeredis.FakeServer()

    def connection(_: Address) -> Wire:
        return FakeAsyncRedisConnection(server=server, protocol=2, socket_timeout=None)

    route = Fixed(Dialer(connection, timeout=2.0))
    with ExitStack() as patches:
        for module in _FAKES_CLOCKS:
            patches.enter_context(mock.patch(module, _fake_time(clock)))
        async with _rig(RedisStore(route, "fake", timeout=2.0), clock, _no_more) as rig:
            yield rig
        await _end_what_the_fake_left()


def _fake_time(clock: ManualClock) -> SimpleNamespace:
    """Return what stands for the module `time`."""

    def now() -> float:
        # A little later, as little as a float has room for, lest it be cut down to the moment before.
        return clock.now().unix_us / 1e6 + 3e-7

    return SimpleNamespace(**{**vars(time), "time": now})


async def _end_what_the_fake_left() -> None:
    """A connection that is closed while it blocks leaves its task behind, which nobody holds on to."""
    left = [task for task in asyncio.all_tasks() if "_async_blocking" in repr(task.get_coro())]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@asynccontextmanager
async def server_rig() -> AsyncIterator[Rig]:
    """A server's clock cannot be wound. So scripts are told that the time is what a key says, and what a server does
    with a key whose time has come is done by hand, going by the time that the server keeps for it.
    """
    server, prefix = await _server(), f"rig-{next(_numbers)}"
    clock = ManualClock(unix_us=_FUTURE_US)
    store = open_redis(server.url, prefix)
    for name, script in store._backend.scripts.items():
        told = script.text.replace(
            b"redis.call('TIME')", b"redis.call('LRANGE', '%b', 0, 1)" % prefix.encode()
        )
        assert told != script.text
        store._backend.scripts[name] = Script(told)

    async def tell_the_time() -> None:
        now_us = clock.now().unix_us
        await server.ask("EVAL", _WIND, 0, prefix, *divmod(now_us, 1_000_000), now_us // 1000)

    await tell_the_time()
    async with _rig(store, clock, tell_the_time) as rig:
        yield rig


_WIND = """
redis.call('DEL', ARGV[1])
redis.call('RPUSH', ARGV[1], ARGV[2], ARGV[3])
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. ':*')) do
  local end_ms = redis.call('PEXPIRETIME', key)
  if end_ms > 0 and end_ms <= tonumber(ARGV[4]) then redis.call('DEL', key) end
end
"""

_numbers = itertools.count()
_shared: list[Server] = []


async def _server() -> Server:
    """Return this process' server, which goes when the process does: the rigs are told apart by their prefix."""
    if not _shared:
        server = Server()
        atexit.register(server.destroy)
        await server.start()
        _shared.append(server)
    return _shared[0]


@asynccontextmanager
async def _rig(
    store: RedisStore, clock: ManualClock, wound: Callable[[], Awaitable[None]]
) -> AsyncIterator[Rig]:
    async def advance(seconds: float) -> None:
        clock.advance(round(seconds, 3))
        await wound()

    rig = Rig(store, clock.now, advance, _no_step, functools.partial(settle, store), tick=0.001)
    store.listen(rig.events.append)
    for server in store._backend.servers:
        await server.reader.following.wait()
    with mock.patch("discovery.stores.redis.counting._BATCH", BATCH):
        yield rig
    await store.close()


async def settle(store: RedisStore) -> None:
    """Return once `store` has read all there is in the streams of changes."""
    for server in store._backend.servers:
        places = server.reader._places
        unread = (b"XREAD", b"STREAMS", *places)
        while await server.lane.call(*unread, *places.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # the reader's turn


async def _no_more() -> None:
    """The clock itself is all that there is to wind."""


def _no_step(_seconds: float) -> None:
    """The caller's clock is not looked at."""


REDIS_RIGS: Mapping[str, OpenRig] = {"fakeredis": fake_rig, "server": server_rig}
