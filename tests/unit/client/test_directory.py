from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from discovery.client.directory import AgentDirectory
from discovery.client.state import DirectoryPhase
from discovery.errors import DiscoveryError, UnimplementedError
from discovery.models import Lease
from tests.support import MESH, key
from tests.unit.client.fakes import DAY, LATENCY, FakeDiscovery, away, lease, pacing
from tests.unit.client.virtual_time import VirtualClock, in_virtual_time

CAP = 30.0


def agent(number: int, revision: int = 1, **changes: Any) -> Lease:
    return lease(revision, **{"agent_id": f"agent-{number}", "pubkey": key(number), **changes})


def agents(*numbers: int) -> dict[str, Lease]:
    return {f"agent-{number}": agent(number) for number in numbers}


def server_with(*numbers: int) -> FakeDiscovery:
    server = FakeDiscovery(VirtualClock())
    server.agents = agents(*numbers)
    return server


def phase_of(directory: AgentDirectory) -> DirectoryPhase:
    return directory.state.phase


def directory_of(server: FakeDiscovery) -> AgentDirectory:
    return AgentDirectory(server, MESH, pacing=pacing(server.clock))


@in_virtual_time
async def test_it_shows_nobody_before_it_knows_everybody() -> None:
    server = server_with(*range(1, 101))
    seen: list[int] = []

    async def observe(directory: AgentDirectory) -> None:
        seen.extend([len(state.agents) async for state in directory.states()])

    async with directory_of(server) as directory:
        watching = asyncio.create_task(observe(directory))
        await asyncio.sleep(1)
        assert directory.synced
    await watching

    assert set(seen) == {0, 100}


@in_virtual_time
async def test_agents_come_change_and_go() -> None:
    server = server_with(1)
    async with directory_of(server) as directory:
        await asyncio.sleep(1)
        server.change_agent("agent-2", agent(2))
        moved = agent(1, 3, endpoints=("198.51.100.7:41820",))
        server.change_agent("agent-1", moved)
        await asyncio.sleep(0.001)
        assert directory.agents == {"agent-1": moved, "agent-2": agent(2)}

        before = directory.agents
        server.change_agent("agent-1", None)
        await asyncio.sleep(0.001)
        assert directory.agents == agents(2)
        assert len(before) == 2, "a state that was given out does not change"


@in_virtual_time
async def test_while_discovery_is_away_nobody_goes() -> None:
    server = server_with(1, 2)
    async with directory_of(server) as directory:
        await asyncio.sleep(1)
        server.trouble = away
        server.cut()
        await asyncio.sleep(DAY)

        assert directory.agents == agents(1, 2)
        assert phase_of(directory) is DirectoryPhase.STALE
        assert not directory.synced
        assert directory.state.error is not None


@in_virtual_time
async def test_who_is_missing_from_a_complete_beginning_is_gone() -> None:
    server = server_with(1, 2)
    async with directory_of(server) as directory:
        await asyncio.sleep(1)
        server.trouble = away
        server.cut()
        await asyncio.sleep(100)
        server.change_agent("agent-1", None)
        server.change_agent("agent-3", agent(3))
        server.trouble = lambda: None
        await asyncio.sleep(CAP + 2 * LATENCY)

        assert directory.agents == agents(2, 3)
        assert directory.state.error is None


@in_virtual_time
async def test_who_is_missing_from_a_beginning_that_broke_off_is_not_gone() -> None:
    server = server_with(1, 2)
    async with directory_of(server) as directory:
        await asyncio.sleep(1)
        server.revision, server.agents = 5, agents(3)
        server.breaks_off = True
        server.cut()
        await asyncio.sleep(100)
        assert directory.agents == agents(1, 2)

        server.breaks_off = False
        await asyncio.sleep(CAP + 2 * LATENCY)
        assert directory.agents == agents(3)


@in_virtual_time
async def test_if_nothing_has_changed_nobody_is_named_and_nobody_goes() -> None:
    server = server_with(1, 2)
    async with directory_of(server) as directory:
        await asyncio.sleep(1)
        server.change_agent("agent-3", agent(3))
        for _ in range(5):
            await asyncio.sleep(CAP)
            server.cut()
            await asyncio.sleep(1 + 2 * LATENCY)
            assert directory.synced
            assert directory.agents == agents(1, 2, 3)

    assert server.asked_after == [0, 2, 2, 2, 2, 2]


@in_virtual_time
async def test_a_server_that_lost_its_memory_is_believed_once_it_is_complete() -> None:
    server = server_with(1, 2)
    server.revision = 1000
    async with directory_of(server) as directory:
        await asyncio.sleep(1)
        server.revision, server.agents = 3, {}
        server.cut()
        await asyncio.sleep(1 + 2 * LATENCY)
        assert directory.agents == {}

        server.change_agent("agent-2", agent(2))
        await asyncio.sleep(0.001)
        server.cut()
        await asyncio.sleep(2 + 2 * LATENCY)
        assert directory.agents == agents(2)

    assert server.asked_after == [0, 1000, 4]


@in_virtual_time
async def test_a_mesh_without_agents_is_known_to_have_none() -> None:
    server = server_with()
    server.revision = 0
    async with directory_of(server) as directory:
        assert phase_of(directory) is DirectoryPhase.UNKNOWN
        await asyncio.sleep(1)

        assert directory.synced
        assert directory.agents == {}


@pytest.mark.parametrize(
    "change",
    [{"pubkey": "PostUp"}, {"mesh_id": "m2"}, {"agent_id": "agent-2"}, {"agent_id": ""}],
    ids=ascii,
)
@in_virtual_time
async def test_an_agent_that_is_not_valid_is_left_out_and_no_other(change: dict[str, Any]) -> None:
    server = server_with(1)
    async with directory_of(server) as directory:
        await asyncio.sleep(1)
        server.change_agent("agent-9", agent(9, **change))
        server.change_agent("", agent(9, agent_id=""))
        server.change_agent("agent-3", agent(3))
        await asyncio.sleep(0.001)

        assert directory.agents == agents(1, 3)


@in_virtual_time
async def test_nobody_can_change_what_is_shown() -> None:
    server = server_with(1)
    async with directory_of(server) as directory:
        await asyncio.sleep(1)
        shown: Mapping[str, Lease] = directory.agents

        with pytest.raises(TypeError):
            shown["agent-2"] = agent(2)  # type: ignore[index]


@in_virtual_time
async def test_a_server_that_knows_no_agents_is_asked_now_and_then() -> None:
    server = server_with(1)
    server.watch_trouble = lambda: UnimplementedError("no agents")
    async with directory_of(server) as directory:
        await asyncio.sleep(3600)
        assert 12 <= len(server.watches) <= 14
        assert phase_of(directory) is DirectoryPhase.UNKNOWN
        server.watch_trouble = lambda: None
        await asyncio.sleep(301)

        assert directory.agents == agents(1)


@pytest.mark.parametrize("steps", range(15))
@pytest.mark.parametrize("trouble", [lambda: None, away], ids=["server", "no server"])
@in_virtual_time
async def test_a_program_may_be_cancelled_at_any_moment(
    trouble: Callable[[], DiscoveryError | None], steps: int
) -> None:
    server = server_with(1)
    server.latency, server.trouble = 0, trouble

    async def program() -> None:
        async with directory_of(server) as directory:
            async for _ in directory.states():
                await asyncio.sleep(0)

    running = asyncio.create_task(program())
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()

    with suppress(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert server.watchers == 0
