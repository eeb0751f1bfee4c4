"""Two real `coral-discovery` processes on one real server, as clients see them."""

from __future__ import annotations

import asyncio
import signal
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from discovery.client import DiscoveryClient
from discovery.errors import MeshIdTakenError, StoreUnavailableError, UnreachableError
from discovery.models import Presence, Registered
from tests.integration.support import ServerProcess, server_process
from tests.redis.servers import PATIENCE, Server, eventually
from tests.support import MESH, key, registration

TIMEOUT = 2.0
Process = tuple[ServerProcess, DiscoveryClient]


@pytest.fixture
async def processes(server: Server, tmp_path: Path) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        started: list[Process] = []
        for name in ("one", "other"):
            directory = tmp_path / name
            directory.mkdir()
            store = f"{server.url}?timeout={TIMEOUT}"
            process = stack.enter_context(server_process(directory, "--store", store))
            client = DiscoveryClient(process.url, timeout=PATIENCE)
            started.append((process, await stack.enter_async_context(client)))
        yield started


async def test_of_a_thousand_keys_at_two_processes_exactly_one_gets_the_mesh(
    processes: list[Process],
) -> None:
    clients = [client for _, client in processes]
    for mesh_id in ("round-1", "round-2", "round-3"):
        contenders = [registration(mesh_id=mesh_id, pubkey=key(n)) for n in range(1, 1001)]

        answers = await asyncio.gather(
            *(clients[n % 2].register_colony(wanted) for n, wanted in enumerate(contenders)),
            return_exceptions=True,
        )

        refusals = [answer for answer in answers if isinstance(answer, MeshIdTakenError)]
        [(winner, granted)] = [
            (wanted, answer)
            for wanted, answer in zip(contenders, answers, strict=True)
            if isinstance(answer, Registered)
        ]
        assert [answer for answer in answers if answer not in (*refusals, granted)] == []
        assert {refusal.expires_at_us for refusal in refusals} == {granted.expires_at_us}
        for client in clients:
            assert (await client.lookup_colony(mesh_id)).registration == winner


async def test_a_process_that_is_killed_loses_nothing_that_was_acknowledged(
    processes: list[Process],
) -> None:
    (victim, to_victim), (_, to_other) = processes
    acknowledged: dict[str, int] = {}

    async def keep_registering(number: int) -> None:
        for turn in range(1000):
            mesh_id = f"mesh-{number}-{turn}"
            try:
                granted = await to_victim.register_colony(registration(mesh_id=mesh_id))
            except UnreachableError:
                return
            acknowledged[mesh_id] = granted.revision

    colonies = [asyncio.create_task(keep_registering(number)) for number in range(20)]
    await eventually(lambda: _reached(acknowledged, 200))
    victim.signal(signal.SIGKILL)
    await asyncio.gather(*colonies)

    for mesh_id, revision in acknowledged.items():
        assert (await to_other.lookup_colony(mesh_id)).revision == revision
    assert (await to_other.health()).registered_colonies >= len(acknowledged)


async def _reached(acknowledged: dict[str, int], number: int) -> bool:
    return len(acknowledged) >= number


async def test_a_watcher_of_one_process_sees_what_happens_at_another_and_outlives_the_server(
    server: Server, processes: list[Process]
) -> None:
    (_, one), (_, other) = processes
    async with aclosing(one.watch_colony(MESH)) as states, asyncio.timeout(PATIENCE):
        assert (await anext(states)).presence is Presence.ABSENT
        first = await other.register_colony(registration())
        assert (await anext(states)).revision == first.revision

        server.kill()
        with pytest.raises(StoreUnavailableError) as refusal:
            await other.register_colony(registration(public_port=1))
        assert refusal.value.retry_after == 1.0
        with pytest.raises(StoreUnavailableError):
            await one.lookup_colony(MESH)
        await server.start()

        changed = await _once_it_works(other)
        while (state := await anext(states)).revision != changed.revision:
            pass
        assert state.lease is not None
        assert state.lease.registration.public_port == 1
        await other.deregister_colony(MESH, registration().pubkey)
        assert (await anext(states)).presence is Presence.ABSENT


async def _once_it_works(client: DiscoveryClient) -> Registered:
    while True:
        try:
            return await client.register_colony(registration(public_port=1))
        except StoreUnavailableError:
            await asyncio.sleep(0.01)


async def test_a_change_at_one_process_reaches_the_watchers_of_another_within_100_ms(
    processes: list[Process],
) -> None:
    (_, one), (_, other) = processes
    clock = asyncio.get_running_loop().time
    took: list[float] = []
    async with aclosing(one.watch_colony(MESH)) as states:
        await anext(states)
        for port in range(1, 51):
            started = clock()
            await other.register_colony(registration(public_port=port))
            await anext(states)
            took.append(clock() - started)  # the call itself included

    assert statistics.median(took) < 0.1


async def test_a_process_starts_without_the_server_and_serves_once_it_is_there(
    server: Server, tmp_path: Path
) -> None:
    server.kill()
    with server_process(tmp_path, "--store", f"{server.url}?timeout={TIMEOUT}") as process:
        async with DiscoveryClient(process.url, timeout=PATIENCE) as client:
            with pytest.raises(StoreUnavailableError):
                await client.health()

            await server.start()

            granted = await _once_it_works(client)
            assert (await client.lookup_colony(MESH)).revision == granted.revision
