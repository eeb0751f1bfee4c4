"""Agents as peers, as discovery says and with patience where it may be wrong, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv6Network

import pytest

from discovery.client import AgentDirectory
from discovery.errors import UnreachableError
from discovery.models import Lease
from discovery.runners.peering import Admission, Peering
from discovery.wireguard import PROOF_NAME, JoinToken, TunnelError, mesh_address
from tests.support import KEY, MESH, key
from tests.unit.client.fakes import FakeDiscovery, lease, pacing
from tests.unit.client.virtual_time import VirtualClock, in_virtual_time
from tests.unit.runners.fakes import FakeReport, FakeTunnel

GRACE = 300.0
TOKEN = JoinToken("a secret of some length", MESH)
API, WEB = key(11), key(12)


def agent(agent_id: str, pubkey: str, proof: str = "") -> Lease:
    metadata = {PROOF_NAME: proof} if proof else {}
    return lease(agent_id=agent_id, pubkey=pubkey, metadata=metadata)


@dataclass
class Scene:
    discovery: FakeDiscovery
    tunnel: FakeTunnel
    report: FakeReport

    def peers(self) -> set[str]:
        return set(self.tunnel.known)


@asynccontextmanager
async def peering(token: JoinToken | None = None) -> AsyncIterator[Scene]:
    clock = VirtualClock()
    on = Scene(FakeDiscovery(clock), FakeTunnel(), FakeReport())
    async with AgentDirectory(on.discovery, MESH, pacing=pacing(clock)) as directory:
        admission = Admission(MESH, KEY, token)
        work = Peering(directory, on.tunnel, admission, on.report, lambda: GRACE)
        task = asyncio.create_task(work.run())
        try:
            yield on
        finally:
            task.cancel()
            await asyncio.wait([task])
    if not task.cancelled():
        task.result()


@in_virtual_time
async def test_an_agent_that_registers_is_a_peer_with_its_one_address() -> None:
    async with peering() as on:
        await asyncio.sleep(1)
        on.discovery.change_agent("api", agent("api", API))
        told = await on.report.until("agent-joined")
    address = mesh_address(MESH, API)
    assert told.text == f"Agent api joined as {address}"
    assert on.tunnel.known[API].allowed_ips == (IPv6Network(address),)
    assert on.tunnel.known[API].endpoint is None
    assert on.tunnel.known[API].preshared_key is None


@in_virtual_time
async def test_an_agent_that_leaves_is_removed_after_the_grace() -> None:
    async with peering() as on:
        on.discovery.change_agent("api", agent("api", API))
        await on.report.until("agent-joined")
        on.discovery.change_agent("api", None)
        await asyncio.sleep(GRACE - 1)
        assert on.peers() == {API}
        await asyncio.sleep(7)
        assert on.peers() == set()
    assert on.report.texts("agent-left") == ["Agent api left"]


@in_virtual_time
async def test_an_agent_that_comes_back_within_the_grace_was_never_gone() -> None:
    async with peering() as on:
        on.discovery.change_agent("api", agent("api", API))
        await on.report.until("agent-joined")
        for _ in range(5):
            on.discovery.change_agent("api", None)
            await asyncio.sleep(GRACE - 10)
            on.discovery.change_agent("api", agent("api", API))
            await asyncio.sleep(GRACE - 10)
            assert on.peers() == {API}
    assert on.report.events() == ["agent-joined"]


@in_virtual_time
async def test_nobody_is_removed_while_discovery_is_away() -> None:
    async with peering() as on:
        on.discovery.change_agent("api", agent("api", API))
        await on.report.until("agent-joined")
        on.discovery.change_agent("api", None)
        await asyncio.sleep(10)
        on.discovery.trouble = lambda: UnreachableError("away")
        on.discovery.cut()
        await asyncio.sleep(24 * 3600)
        assert on.peers() == {API}


@in_virtual_time
async def test_a_discovery_that_lost_its_memory_costs_no_connection() -> None:
    async with peering() as on:
        for name, pubkey in (("api", API), ("web", WEB)):
            on.discovery.change_agent(name, agent(name, pubkey))
        await on.report.until("agent-joined", 2)
        on.discovery.agents = {}
        on.discovery.revision = 5
        on.discovery.cut()
        await asyncio.sleep(60)
        on.discovery.change_agent("web", agent("web", WEB))
        await asyncio.sleep(GRACE + 60)
        assert on.peers() == {WEB}


@in_virtual_time
async def test_an_agent_that_comes_back_while_it_is_removed_is_a_peer_again() -> None:
    async with peering() as on:
        on.discovery.change_agent("api", agent("api", API))
        await on.report.until("agent-joined")
        remove_peer = on.tunnel.remove_peer

        async def slowly(pubkey: str) -> None:
            on.discovery.change_agent("api", agent("api", API))
            await asyncio.sleep(1)
            await remove_peer(pubkey)

        on.tunnel.remove_peer = slowly  # type: ignore[method-assign]
        on.discovery.change_agent("api", None)
        await on.report.until("agent-joined", 2)
        await asyncio.sleep(2 * GRACE)
        assert on.peers() == {API}


@in_virtual_time
async def test_with_a_token_only_those_join_that_prove_to_know_it() -> None:
    async with peering(TOKEN) as on:
        proof = TOKEN.proof("api", API)
        on.discovery.change_agent("web", agent("web", WEB))
        on.discovery.change_agent("copy", agent("copy", key(13), proof))
        on.discovery.change_agent("api", agent("api", API, proof))
        await on.report.until("agent-joined")
        assert on.peers() == {API}
        assert on.tunnel.known[API].preshared_key == TOKEN.preshared_key(KEY, API)
        await asyncio.sleep(3600)
    assert sorted(on.report.texts("agent-refused")) == [
        f"agent {name} is not admitted: it does not know the join token" for name in ("copy", "web")
    ]


@in_virtual_time
async def test_a_stranger_who_comes_and_goes_is_not_remembered() -> None:
    async with peering(TOKEN) as on:
        for number in range(50):
            on.discovery.change_agent("web", agent("web", key(100 + number)))
            await asyncio.sleep(0.1)
            on.discovery.change_agent("web", None)
            await asyncio.sleep(0.1)
        assert on.peers() == set()


@in_virtual_time
async def test_the_colonys_own_key_is_no_agent() -> None:
    async with peering() as on:
        on.discovery.change_agent("mirror", agent("mirror", KEY))
        on.discovery.change_agent("api", agent("api", API))
        await on.report.until("agent-joined")
        assert on.peers() == {API}


@in_virtual_time
async def test_a_broken_tunnel_ends_the_work() -> None:
    async def break_the_tunnel() -> None:
        async with peering() as on:
            on.tunnel.trouble = TunnelError("gone")
            on.discovery.change_agent("api", agent("api", API))
            await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as caught:
        await break_the_tunnel()
    assert caught.group_contains(TunnelError, match="gone")
