"""Rates that replicas share through a real Redis, through its failures, and on every kind of it."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Any, cast
from unittest import mock

import fakeredis
import pytest
import structlog
from fakeredis.aioredis import FakeAsyncRedisConnection
from limits.aio.storage import RedisStorage
from redis.asyncio.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection

from discovery.errors import ConfigError, RateLimitedError, StoreUnavailableError
from discovery.ratelimits import RateLimiter, circuit, parse_rules, tolerant
from discovery.ratelimits.circuit import Circuit
from discovery.ratelimits.redis import RedisWindows
from discovery.ratelimits.shared import SharedMeter
from discovery.ratelimits.tolerant import TolerantLimiter
from tests.redis.rigs import _FAKES_CLOCKS, _fake_time
from tests.redis.servers import Server, clustered, eventually, replicated
from tests.support import ManualClock, captured_logs

RULES = parse_rules(["off", "mesh:*=10/hour", "address:*=100/hour"])


class Replica:
    def __init__(self, url: str, prefix: str) -> None:
        self.windows = RedisWindows(url, prefix)
        self.clock = ManualClock()
        self.undecided = 0
        counts = Circuit(self.windows, self.clock, structlog.get_logger())
        shared = RateLimiter(RULES, lambda rule: SharedMeter(rule, counts, self.clock))
        self._limiter = TolerantLimiter(shared, None, self._count)

    def _count(self) -> None:
        self.undecided += 1

    async def call(self, mesh_id: str = "mesh-1", address: str | None = None) -> bool | None:
        """Return whether it is admitted; None if nobody can tell."""
        try:
            await self._limiter.check("RegisterColony", mesh_id=mesh_id, address=address)
        except RateLimitedError:
            return False
        except StoreUnavailableError:
            return None
        return True

    async def is_counted(self) -> bool:
        """Say whether the server is asked and answers."""
        self.clock.advance(5)  # whoever waits after a failure has waited
        return await self.call("probe") is not None


Join = Callable[..., Replica]

_PATIENCE = 10


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a busy machine is not taken for an outage."""
    monkeypatch.setattr(circuit, "ANSWER", _PATIENCE)
    monkeypatch.setattr(tolerant, "PATIENCE", _PATIENCE)


@pytest.fixture
async def join() -> AsyncIterator[Join]:
    """Adds a replica that counts on the servers that a URL names."""
    async with AsyncExitStack() as stack:

        def _join(url: str, prefix: str = "test") -> Replica:
            replica = Replica(url, prefix)
            stack.push_async_callback(replica.windows.close)
            return replica

        yield _join


async def _admitted(calls: int, *replicas: Replica, mesh_id: str = "mesh-1") -> int:
    turns = (replicas[n % len(replicas)].call(mesh_id) for n in range(calls))
    return (await asyncio.gather(*turns)).count(True)


async def test_replicas_share_a_rate(server: Server, join: Join) -> None:
    one, other = join(server.url), join(server.url)

    assert await _admitted(50, one, other) == 10
    assert await _admitted(50, other, one) == 0
    assert await _admitted(50, one, other, mesh_id="mesh-2") == 10
    assert one.undecided + other.undecided == 0


async def test_prefixes_keep_services_on_one_server_apart(server: Server, join: Join) -> None:
    assert await _admitted(20, join(server.url, "one")) == 10
    assert await _admitted(20, join(server.url, "other")) == 10


async def test_keys_have_the_prefix_and_one_hash_tag_and_end_by_themselves(
    server: Server, join: Join
) -> None:
    await join(server.url, "fleet-7").call("mesh-1", "2001:db8::1")

    methods = (
        "DeregisterAgent,DeregisterColony,Health,ListAgents,LookupAgent,LookupColony,"
        "RegisterAgent,RegisterColony,WatchAgents,WatchColony"
    )
    keys = sorted(await server.ask("KEYS", "*"))
    assert [key.decode() for key in keys] == [
        f"fleet-7:limits:{{address/{methods}/100/hour/2001:db8::/64}}",
        f"fleet-7:limits:{{mesh/{methods}/10/hour/mesh-1}}",
    ]
    assert all([0 < await server.ask("TTL", key) <= 2 * 3600 for key in keys])


async def test_a_connection_that_was_cut_is_made_anew_and_nobody_notices(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    for number in range(5):
        await server.ask("CLIENT", "KILL", "TYPE", "normal")
        assert await replica.call(f"mesh-{number}") is True

    assert replica.undecided == 0


async def test_a_connection_that_something_between_dropped_unseen_is_made_anew(
    server: Server, join: Join
) -> None:
    dropped = 0

    async def between(client: StreamReader, answers: StreamWriter) -> None:
        """Pass requests on, but drop the first connection that is used for mesh-2."""
        nonlocal dropped
        replies, requests = await asyncio.open_unix_connection(server.path)
        back = asyncio.create_task(_pass_on(replies, answers))
        while (data := await client.read(65_536)) and not (dropped == 0 and b"mesh-2" in data):
            requests.write(data)
        dropped += bool(data)
        back.cancel()
        for writer in (answers, requests):
            writer.close()

    async with await asyncio.start_server(between, "127.0.0.1", 0) as proxy:
        replica = join(f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")

        assert await replica.call("mesh-1") is True
        assert await replica.call("mesh-2") is True
        await replica.windows.close()

    assert (dropped, replica.undecided) == (1, 0)


async def _pass_on(source: StreamReader, sink: StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)


async def test_any_number_of_calls_at_once_share_a_few_connections(
    server: Server, join: Join
) -> None:
    windows = join(server.url).windows
    names = (f"mesh-{number}" for number in range(500))

    taken = await asyncio.gather(
        *(windows.acquire_sliding_window_entry(name, 10, 60, 1) for name in names)
    )

    assert all(taken)
    assert (await server.ask("CLIENT", "LIST", "TYPE", "NORMAL")).count(b" name=") <= 32 + 1


async def test_a_server_that_forgot_the_scripts_is_sent_them_again(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    await replica.call()
    await server.ask("SCRIPT", "FLUSH")

    assert await _admitted(20, replica) == 9


async def test_a_server_that_was_killed_is_an_outage_until_it_is_back(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    assert await _admitted(4, replica) == 4
    server.kill()

    assert await replica.call() is None
    assert not await replica.is_counted()

    await server.start()
    await eventually(replica.is_counted)
    assert await _admitted(20, replica) == 6


async def test_a_server_that_hangs_delays_calls_by_little_once(
    server: Server, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = join(server.url)
    await replica.call()
    monkeypatch.setattr(circuit, "ANSWER", 0.2)
    monkeypatch.setattr(tolerant, "PATIENCE", 0.25)
    server.pause()
    loop = asyncio.get_running_loop()
    started = loop.time()

    answers = await asyncio.gather(*(replica.call(f"hung-{n}") for n in range(200)))
    for _ in range(100):
        assert await replica.call("hung-3") is None
    took = loop.time() - started

    server.resume()
    monkeypatch.setattr(circuit, "ANSWER", _PATIENCE)
    monkeypatch.setattr(tolerant, "PATIENCE", _PATIENCE)
    assert set(answers) == {None}
    assert replica.undecided == 300
    assert (
        took < 100 * 0.25 / 2
    )  # half of what it took if each call waited, however busy the machine
    await eventually(replica.is_counted)
    assert await _admitted(20, replica) == 9


async def test_replies_that_nobody_waited_for_are_never_taken_for_others(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    for number in range(20):
        calls = [asyncio.create_task(replica.call(f"{number}-{n}")) for n in range(5)]
        for _ in range(number):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    assert await _admitted(20, replica, mesh_id="after") == 10


async def test_a_full_server_is_an_outage(server: Server, join: Join) -> None:
    await server.ask("CONFIG", "SET", "maxmemory", 1)
    replica = join(server.url)

    assert await replica.call() is None

    await server.ask("CONFIG", "SET", "maxmemory", 0)
    assert await replica.is_counted()


async def test_credentials_are_used_and_not_shown(server: Server, join: Join) -> None:
    await server.ask("CONFIG", "SET", "requirepass", "p@ss:wo/rd")
    right = join(server.url.replace("://", "://:p%40ss%3Awo%2Frd@"))
    wrong = join(server.url.replace("://", "://:secret@"))

    with captured_logs() as lines:
        assert await right.call() is True
        assert await wrong.call() is None

    assert [line["event"] for line in lines] == ["rate_limits_lost"]
    assert "secret" not in str(lines)


async def test_the_primary_is_found_through_sentinels(join: Join) -> None:
    async with replicated() as (_, ports):
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        one, other = (join(f"redis+sentinel://{hosts}/main/2?timeout=2") for _ in range(2))

        await eventually(one.is_counted)
        await eventually(other.is_counted)
        assert await _admitted(20, one, other) == 10


async def test_a_cluster_spreads_the_names(join: Join) -> None:
    async with clustered() as nodes:
        hosts = ",".join(node.url.removeprefix("redis://") for node in nodes)
        one, other = (join(f"redis+cluster://{hosts}") for _ in range(2))

        await eventually(one.is_counted)
        await eventually(other.is_counted)
        for number in range(12):
            assert await _admitted(20, one, other, mesh_id=f"mesh-{number}") == 10
        assert all([await node.ask("DBSIZE") for node in nodes])


@pytest.mark.parametrize(
    "url", ["memory", "http://host", "redis+sentinel://host:port/main", "redis://host/database"]
)
def test_a_url_that_cannot_work_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        RedisWindows(url, "test")

    assert url not in str(refusal.value)


async def test_the_wait_ends_when_the_script_has_room_again() -> None:
    clock, server = ManualClock(), fakeredis.FakeServer()
    pool = ConnectionPool(connection_class=FakeAsyncRedisConnection, server=server, protocol=2)
    storage = RedisStorage("async+redis://", implementation="redispy", connection_pool=pool)  # type: ignore[arg-type]
    [rule] = parse_rules(["off", "mesh:*=10/minute"])

    with ExitStack() as patches:
        for module in _FAKES_CLOCKS:
            patches.enter_context(mock.patch(module, _fake_time(clock)))
        for round_ in range(20):
            meters = [SharedMeter(rule, storage, clock) for _ in range(2)]
            while not (wait := await meters[0].take("mesh-1")):
                clock.advance(0.7 + round_ / 10)
            clock.advance(max(0.0, wait - 0.1))
            assert await meters[1].take("mesh-1") > 0 or wait <= 0.1
            clock.advance(min(wait, 0.1) + 0.002)
            assert await meters[0].take("mesh-1") == 0
    await pool.disconnect()


# How the servers that a URL names are reached


def _kwargs(pool: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", pool.connection_kwargs)


async def test_tls_is_as_the_url_says_to_one_server(join: Join) -> None:
    pool = join(
        "rediss://me:p%40ss@host/3?ssl_check_hostname=no&timeout=1"
    ).windows._client.connection_pool

    assert pool.connection_class is SSLConnection
    told = {"username": "me", "password": "p@ss", "db": 3, "ssl_check_hostname": False}
    assert told.items() <= _kwargs(pool).items()


async def test_a_socket_may_have_credentials_and_a_database(join: Join) -> None:
    pool = join("unix://:p%40ss@/run/redis.sock?db=3").windows._client.connection_pool

    assert pool.connection_class is UnixDomainSocketConnection
    assert {"path": "/run/redis.sock", "password": "p@ss", "db": 3}.items() <= _kwargs(pool).items()


@pytest.mark.parametrize("query, password", [("", None), ("?sentinel_password=guide", "guide")])
async def test_sentinels_are_not_told_the_servers_password(
    join: Join, query: str, password: str | None
) -> None:
    windows = join(f"rediss+sentinel://me:p%40ss@[::1],b:5/main/3{query}").windows

    pool = windows._client.connection_pool
    assert pool.connection_class is SentinelManagedSSLConnection
    assert {"username": "me", "password": "p@ss", "db": 3}.items() <= _kwargs(pool).items()
    guides = [_kwargs(guide.connection_pool) for guide in windows._sentinels]
    assert [(guide["host"], guide["port"]) for guide in guides] == [("::1", 26379), ("b", 5)]
    assert [(guide["username"], guide["password"]) for guide in guides] == [(None, password)] * 2


async def test_tls_is_as_the_url_says_to_a_cluster(join: Join) -> None:
    client = join("rediss+cluster://:p%40ss@a,b:7000?ssl_check_hostname=no").windows._client

    assert [(node.host, node.port) for node in client.nodes_manager.startup_nodes.values()] == [
        ("a", 6379),
        ("b", 7000),
    ]
    assert client.connection_kwargs["password"] == "p@ss"
    assert client.connection_kwargs["ssl_check_hostname"] is False
    assert client.connection_kwargs["connection_class"] is SSLConnection
