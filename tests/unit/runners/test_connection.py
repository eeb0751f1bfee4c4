"""Connecting, and staying so, over a tunnel whose network the test scripts, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv6Network
from itertools import groupby, pairwise

import pytest

from discovery.runners.connection import Connection
from discovery.runners.dialing import Dialer
from discovery.runners.whereabouts import Whereabouts
from discovery.wireguard import Peer, TunnelError
from tests.support import KEY, OTHER_KEY
from tests.unit.client.virtual_time import in_virtual_time
from tests.unit.runners.fakes import FakeFinder, FakeReport, FakeTunnel

A, B, C = "127.0.0.1:1", "127.0.0.2:2", "127.0.0.3:3"
MESH = IPv6Network("fd00:1:2::/64")


@dataclass
class Scene:
    tunnel: FakeTunnel
    finder: FakeFinder
    report: FakeReport
    news: asyncio.Event
    connection: Connection

    def dialed(self) -> list[str | None]:
        """Return where it was dialed, without the second try that follows a first."""
        return [
            endpoint for endpoint, _ in groupby(endpoint for _, _, endpoint in self.tunnel.dialed)
        ]

    def move(self, *endpoints: str, pubkey: str = KEY) -> None:
        """Let the colony be elsewhere, and tell."""
        self.finder.where = Whereabouts(pubkey, endpoints)
        self.tunnel.answering = {(pubkey, endpoints[0])}
        self.news.set()


def peer(pubkey: str, endpoint: str) -> Peer:
    return Peer(pubkey, (MESH,), endpoint)


def scene(*endpoints: str, answering: str = "") -> Scene:
    tunnel, finder, report = FakeTunnel(), FakeFinder(KEY, *endpoints), FakeReport()
    tunnel.answering = {(KEY, answering)}
    news = asyncio.Event()
    dialer = Dialer(tunnel, peer, MESH)
    return Scene(tunnel, finder, report, news, Connection(dialer, finder, news, report))


@asynccontextmanager
async def keeping(on: Scene) -> AsyncIterator[None]:
    await on.connection.connect()
    task = asyncio.create_task(on.connection.keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def now() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_the_first_endpoint_that_answers_wins_and_is_remembered() -> None:
    on = scene(A, B, C, answering=B)
    assert await on.connection.connect() == B
    assert on.dialed() == [A, B]
    assert on.finder.winners == [B]
    assert now() < 1.5


@in_virtual_time
async def test_endpoints_are_tried_again_more_patiently_and_discovery_hears_of_it() -> None:
    on = scene(A, B)
    connecting = asyncio.create_task(on.connection.connect())
    await asyncio.sleep(120)
    on.tunnel.answering = {(KEY, A)}
    assert await connecting == A
    tries = [when for when, _, endpoint in on.tunnel.dialed if endpoint == A]
    rounds = [later - earlier for earlier, later in pairwise(tries[::2])]
    assert rounds[0] < 4
    assert max(rounds) < 2 * (8 + 1) + 15
    assert on.finder.failures == len(rounds)


@in_virtual_time
async def test_an_endpoint_that_becomes_known_meanwhile_is_tried_at_once() -> None:
    on = scene(A)
    connecting = asyncio.create_task(on.connection.connect())
    await asyncio.sleep(100)
    moved = now()
    on.move(B)
    assert await connecting == B
    assert now() - moved < 8 + 1


@pytest.mark.parametrize("endpoint", ["[fd00:1:2::7]:1", "[ff02::1%none]:1", "nobody.invalid:1"])
def test_what_cannot_be_reached_from_here_costs_no_patience(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @in_virtual_time
    async def test() -> None:
        async def nobody(*_: object, **__: object) -> None:
            raise OSError("no such name")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nobody)
        on = scene(endpoint, B, answering=B)
        assert await on.connection.connect() == B
        assert now() < 0.1

    test()


@in_virtual_time
async def test_a_colony_that_moves_is_followed_at_once() -> None:
    on = scene(A, answering=A)
    async with keeping(on):
        await asyncio.sleep(100)
        moved = now()
        on.move(B)
        told = await on.report.until("reconnected")
        assert now() - moved < 0.2
    assert told.text == f"Connected again at {B}"
    assert on.report.texts("connection-lost") == [
        f"the colony is no longer at {A}; connecting again"
    ]


@in_virtual_time
async def test_a_colony_that_has_more_endpoints_now_is_left_alone() -> None:
    on = scene(A, answering=A)
    async with keeping(on):
        on.finder.where = Whereabouts(KEY, (B, A))
        on.news.set()
        await asyncio.sleep(3600)
    assert on.dialed() == [A]
    assert on.report.told == []


@in_virtual_time
async def test_a_colony_with_a_new_key_is_connected_to_and_the_old_one_forgotten() -> None:
    on = scene(A, answering=A)
    async with keeping(on):
        on.move(A, pubkey=OTHER_KEY)
        await on.report.until("reconnected")
        assert list(on.tunnel.known) == [OTHER_KEY]


@in_virtual_time
async def test_a_colony_that_falls_silent_is_dialed_again_within_a_minute_or_so() -> None:
    on = scene(A, B, answering=A)
    async with keeping(on):
        await asyncio.sleep(300)
        silent = now()
        on.tunnel.answering = {(KEY, B)}
        await on.report.until("reconnected")
        assert 55 < now() - silent < 75
    assert on.report.texts("connection-lost")[0].startswith("nothing was heard for 6")


@in_virtual_time
async def test_a_connection_that_is_heard_of_is_left_alone_for_a_day() -> None:
    on = scene(A, answering=A)
    async with keeping(on):
        await asyncio.sleep(24 * 3600)
    assert on.dialed() == [A]


@in_virtual_time
async def test_a_broken_tunnel_is_an_error() -> None:
    on = scene(A, answering=A)
    await on.connection.connect()
    on.tunnel.trouble = TunnelError("gone")
    with pytest.raises(TunnelError, match="gone"):
        await on.connection.keep()
