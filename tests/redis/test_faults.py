"""Whatever befalls the server, calls are answered in time, an outage is no absence, and what is mended works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest

from discovery.errors import StoreUnavailableError
from tests.redis.conftest import Join
from tests.redis.servers import Server, eventually, running, version
from tests.redis.support import TIMEOUT, Replica, refusal, refusals
from tests.support import registration

Fault = Callable[[Server], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def killed(server: Server) -> AsyncIterator[None]:
    server.kill()
    yield
    await server.start()


@asynccontextmanager
async def paused(server: Server) -> AsyncIterator[None]:
    server.pause()
    yield
    server.resume()


@asynccontextmanager
async def asleep(server: Server) -> AsyncIterator[None]:
    sleep = asyncio.create_task(server.ask("DEBUG", "SLEEP", 3))
    await eventually(lambda: _hangs(server))
    yield
    await sleep


async def _hangs(server: Server) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await server.ask("PING")
            return False
    return True


@pytest.mark.parametrize("fault", [killed, paused, asleep])
async def test_a_server_that_cannot_answer_makes_every_call_unavailable_until_it_can(
    server: Server, join: Join, fault: Fault
) -> None:
    replica = join(server.url, timeout=TIMEOUT)
    await replica.follows()
    grant = await replica.register()

    async with fault(server):
        answers = await refusals(replica.every_call())

    for answer in answers.values():
        assert isinstance(answer, StoreUnavailableError)
        assert answer.retry_after == 1.0
    await eventually(replica.works)
    # What timed out may have been carried out afterwards: the deregistration too.
    gaps = replica.gaps
    changed = (await replica.register(registration(public_port=2))).lease
    assert changed.revision > grant.lease.revision
    assert await replica.lookup() == changed
    await replica.learns_of(changed.revision, gaps)


async def test_what_was_acknowledged_survives_a_crash_of_the_server(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    grants = [await replica.register(registration(mesh_id=f"mesh-{n}")) for n in range(20)]

    async with killed(server):
        pass

    await eventually(replica.works)
    assert [await replica.lookup(f"mesh-{n}") for n in range(20)] == [g.lease for g in grants]
    assert await replica.count() == 20 + 1  # and the probe


async def test_a_server_that_lost_its_data_is_an_empty_one(server: Server, join: Join) -> None:
    replica = join(server.url)
    await replica.follows()
    before = (await replica.register()).lease.revision

    server.kill()
    server.forget()
    await server.start()

    await replica.follows(2)
    assert await replica.lookup() is None
    absent = await replica.current()
    assert absent.lease is None
    assert before < absent.revision < (await replica.register()).lease.revision


async def test_a_server_that_is_not_there_yet_is_used_once_it_is(
    server: Server, join: Join
) -> None:
    server.kill()
    replica = join(server.url, timeout=TIMEOUT)

    answers = await refusals(replica.every_call())

    assert all(isinstance(answer, StoreUnavailableError) for answer in answers.values())
    await server.start()
    await eventually(replica.works)
    await replica.follows()


async def test_a_host_that_does_not_exist_is_unavailable(join: Join) -> None:
    replica = join("redis://no-such-host.invalid:6379", timeout=TIMEOUT)

    assert isinstance(await refusal(replica.lookup()), StoreUnavailableError)


async def test_wrong_credentials_are_unavailable_and_not_shown(server: Server, join: Join) -> None:
    await server.ask("CONFIG", "SET", "requirepass", "right")
    replica = join(server.url.replace("://", "://:wrong@"), timeout=TIMEOUT)

    answer = await refusal(replica.lookup())

    assert isinstance(answer, StoreUnavailableError)
    assert "credentials" in answer.message
    assert "wrong" not in answer.message


async def test_a_full_server_takes_nothing_new_but_answers_and_lets_go(
    server: Server, join: Join
) -> None:
    replica = join(server.url, timeout=TIMEOUT)
    grant = await replica.register()
    agent = (await replica.register(registration(agent_id="a"))).lease
    await server.ask("CONFIG", "SET", "maxmemory", 1)

    answers = await refusals(
        {
            "register": replica.register(registration(mesh_id="mesh-2")),
            "renew": replica.register(),
            "register agent": replica.register(registration(agent_id="b")),
            "renew agent": replica.register(registration(agent_id="a")),
            "lookup": replica.lookup(),
            "count": replica.count(),
        }
    )

    for name in ("register", "renew", "register agent", "renew agent"):
        assert isinstance(refused := answers[name], StoreUnavailableError)
        assert "out of memory" in refused.message
    assert answers["lookup"] == grant.lease
    assert answers["count"] == 1
    assert (await replica.agents()).leases == (agent,)
    assert await replica.deregister() is True
    assert await replica.deregister(agent_id="a") is True
    assert (await replica.agents()).leases == ()
    await server.ask("CONFIG", "SET", "maxmemory", 0)
    assert not (await replica.register()).renewed


async def test_a_primary_that_becomes_a_replica_is_no_longer_asked(
    server: Server, join: Join
) -> None:
    replica = join(server.url, timeout=TIMEOUT)
    await replica.follows()
    grant = await replica.register()

    await server.ask("REPLICAOF", "127.0.0.1", "1")

    async def is_refused() -> bool:
        answer = await refusal(replica.lookup())
        assert answer is not None  # a replica that begins to copy its primary holds nothing
        return isinstance(answer, StoreUnavailableError)

    await eventually(is_refused)
    answers = await refusals(replica.every_call())
    for answer in answers.values():
        assert isinstance(answer, StoreUnavailableError)
        assert "read-only" in answer.message
    await server.ask("REPLICAOF", "NO", "ONE")
    await eventually(replica.works)
    assert await replica.lookup() == grant.lease


@pytest.mark.skipif(
    version() < (7, 0), reason="it would not answer at all while it loads so little"
)
async def test_a_server_that_is_loading_its_data_has_not_lost_it(join: Join) -> None:
    slowly = ("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
    async with running(*slowly) as server:
        replica = join(server.url, timeout=5)
        grants = [await replica.register(registration(mesh_id=f"mesh-{n}")) for n in range(100)]
        await server.ask("SAVE")
        server.kill()
        server.launch()

        refused: list[str] = []
        while isinstance(answer := await refusal(replica.lookup("mesh-99")), StoreUnavailableError):
            refused.append(answer.message)

        assert answer == grants[99].lease
        assert any("loading" in message for message in refused)


async def test_scripts_that_the_server_forgot_are_sent_again(server: Server, join: Join) -> None:
    replica = join(server.url)
    await replica.register()

    await server.ask("SCRIPT", "FLUSH")

    assert (await replica.register()).renewed
    assert await replica.count() == 1


async def test_a_replica_is_no_primary_from_the_start(server: Server, join: Join) -> None:
    async with running("--replicaof", "127.0.0.1", "1") as copy:
        replica: Replica = join(copy.url, timeout=TIMEOUT)

        assert isinstance(await refusal(replica.lookup()), StoreUnavailableError)


async def test_calls_that_wait_when_the_store_closes_are_refused(
    server: Server, join: Join
) -> None:
    replica = join(server.url, timeout=20)
    await replica.register()
    server.pause()
    calls = [asyncio.create_task(replica.lookup()) for _ in range(10)]
    await asyncio.sleep(0)

    await replica.store.close()

    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailableError) for answer in answers)
    with pytest.raises(StoreUnavailableError):
        await replica.lookup()
    server.resume()
