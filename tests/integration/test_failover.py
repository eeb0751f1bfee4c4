"""A client of several servers, and of servers that drop, delay or guard their connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from discovery.client import DiscoveryClient, tls_context
from discovery.client import targets as client_targets
from discovery.errors import (
    ConfigError,
    DeadlineExceededError,
    NotRegisteredError,
    UnreachableError,
)
from discovery.models import WatchEvent
from discovery.transport.pipeline import Call, Pipeline
from tests.integration.strangers import Gateway, strange_server, url_of
from tests.integration.support import PATIENCE, Running, running
from tests.support import MESH, registration


class Servers:
    """Two servers with stores of their own, each behind an address that may be away."""

    def __init__(self, servers: list[Running], gateways: list[Gateway]) -> None:
        self.servers = servers
        self.gateways = gateways
        for number in range(len(servers)):
            self.bring_back(number)

    @property
    def urls(self) -> list[str]:
        return [url_of(gateway.port) for gateway in self.gateways]

    def take_away(self, number: int) -> None:
        self.gateways[number].target = None
        self.gateways[number].hang_up()

    def bring_back(self, number: int) -> None:
        self.gateways[number].target = self.servers[number].port

    def asked(self) -> list[int]:
        """Return how many calls each server has answered."""
        return [len(server.requests()) for server in self.servers]


@asynccontextmanager
async def two_servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(running()) for _ in range(2)]
        gateways = [await stack.enter_async_context(Gateway().open()) for _ in range(2)]
        yield Servers(servers, gateways)


@pytest.fixture
async def two() -> AsyncIterator[Servers]:
    async with two_servers() as servers:
        yield servers


@pytest.fixture
async def client(two: Servers) -> AsyncIterator[DiscoveryClient]:
    async with DiscoveryClient(two.urls, timeout=PATIENCE) as client:
        yield client


async def test_the_first_server_answers_while_it_is_there(
    two: Servers, client: DiscoveryClient
) -> None:
    for _ in range(3):
        await client.health()
    assert two.asked() == [3, 0]


async def test_the_next_server_answers_when_the_first_is_away(
    two: Servers, client: DiscoveryClient
) -> None:
    await client.health()
    two.take_away(0)
    for _ in range(3):
        await client.health()
    assert two.asked() == [1, 3]


async def test_a_server_that_is_back_is_asked_first_again_after_a_while(
    two: Servers, client: DiscoveryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.take_away(0)
    await client.health()
    two.bring_back(0)
    await client.health()
    assert two.asked() == [0, 2]

    monkeypatch.setattr(client_targets, "RETURN_AFTER", 0.0)
    await client.health()
    assert two.asked() == [1, 2]


async def test_what_a_server_answers_is_the_answer(two: Servers, client: DiscoveryClient) -> None:
    with pytest.raises(NotRegisteredError):
        await client.lookup_colony(MESH)
    assert two.asked() == [1, 0]


async def test_a_server_that_hangs_has_only_its_share_of_the_time(two: Servers) -> None:
    async with strange_server() as silent:
        urls = [silent.url, two.urls[1]]
        async with DiscoveryClient(urls, timeout=0.5) as client:
            assert (await client.health()).status == "ok"
    assert silent.asked.is_set()


async def test_when_all_are_away_the_error_is_that_of_the_last(
    two: Servers, client: DiscoveryClient
) -> None:
    two.take_away(0)
    two.take_away(1)
    with pytest.raises(UnreachableError, match=two.urls[1]):
        await client.health()


async def test_all_of_the_time_is_kept_to_however_many_servers_hang() -> None:
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(strange_server()) for _ in range(3)]
        client = DiscoveryClient([server.url for server in silent], timeout=0.3)
        await stack.enter_async_context(client)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(DeadlineExceededError):
                await client.health()
        assert all(server.asked.is_set() for server in silent)


async def test_a_watch_goes_to_the_next_server_once_it_was_cut_off(
    two: Servers, client: DiscoveryClient
) -> None:
    places = ("192.0.2.1:41820",), ("192.0.2.2:41820",)
    for server, endpoints in zip(two.servers, places, strict=True):
        async with DiscoveryClient(server.url) as direct:
            await direct.register_colony(registration(endpoints=endpoints))
    async with aclosing(client.watch_colony(MESH)) as watch:
        assert endpoints_of(await anext(watch)) == places[0]
        two.take_away(0)
        with pytest.raises(UnreachableError):
            await anext(watch)
    async with aclosing(client.watch_colony(MESH)) as watch:
        assert endpoints_of(await anext(watch)) == places[1]


def endpoints_of(event: WatchEvent) -> tuple[str, ...]:
    assert event.lease is not None
    return event.lease.registration.endpoints


async def test_a_call_is_repeated_when_its_connection_is_lost_under_it(two: Servers) -> None:
    """As when a server restarts: the connection is there when the call begins, and gone before it is answered."""
    gateway = two.gateways[0]
    async with DiscoveryClient(two.urls[0], timeout=PATIENCE) as client:
        await client.health()
        gateway.deaf = True
        call = asyncio.create_task(client.health())
        async with asyncio.timeout(PATIENCE):
            await gateway.ignored.wait()
        gateway.deaf = False
        gateway.hang_up()

        assert (await call).status == "ok"


async def test_a_connection_whose_other_end_is_gone_without_a_word_is_given_up(
    two: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(
        client_targets.CONFIGURATION,
        _keepalive_time=0.05,
        _keepalive_timeout=0.05,
        _http2_min_sent_ping_interval_without_data=0.01,
    )
    monkeypatch.setattr(client_targets, "CONFIGURATION", quick)
    async with (
        DiscoveryClient(two.urls[0], timeout=PATIENCE) as client,
        aclosing(client.watch_colony(MESH)) as watch,
    ):
        await anext(watch)
        two.gateways[0].deaf = True
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(UnreachableError):
                await anext(watch)


async def test_a_client_needs_a_server() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        DiscoveryClient([])


# -- Keys and certificates -------------------------------------------------------------------------------


async def test_an_api_key_goes_with_every_call(
    monkeypatch: pytest.MonkeyPatch, server: Running
) -> None:
    keys: list[Any] = []
    unary = Pipeline.unary

    async def noting(pipeline: Pipeline, call: Call, receive: Any) -> Any:
        keys.append(call.metadata.get("authorization"))
        return await unary(pipeline, call, receive)

    monkeypatch.setattr(Pipeline, "unary", noting)
    async with DiscoveryClient(server.url, api_key="s3cret", timeout=PATIENCE) as client:
        await client.register_colony(registration())
        await client.lookup_colony(MESH)
    async with DiscoveryClient(server.url, timeout=PATIENCE) as client:
        await client.health()
    assert keys == ["Bearer s3cret", "Bearer s3cret", None]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def written(authority: trustme.CA, directory: Path) -> tuple[Path, Path, Path]:
    """Write the authority, and a certificate of it for the loopback with its key."""
    leaf = authority.issue_cert("127.0.0.1", "client@example.com")
    files = directory / "ca.pem", directory / "cert.pem", directory / "key.pem"
    for file, pem in zip(
        files, (authority.cert_pem, leaf.cert_chain_pems[0], leaf.private_key_pem), strict=True
    ):
        pem.write_to_path(str(file))
    return files


async def test_speaks_tls_to_whom_it_trusts_and_shows_its_certificate(
    authority: trustme.CA, tmp_path: Path
) -> None:
    ca, cert, key = written(authority, tmp_path)
    async with running(tls_cert=cert, tls_key=key, tls_client_ca=ca) as server:
        url = server.url.replace("http:", "https:")
        tls = tls_context(ca, cert, key)
        async with DiscoveryClient(url, tls=tls, timeout=PATIENCE) as client:
            assert (await client.health()).status == "ok"
        for tls in (tls_context(ca), tls_context(None, cert, key)):
            async with DiscoveryClient(url, tls=tls, timeout=PATIENCE) as client:
                with pytest.raises(UnreachableError):
                    await client.health()


def test_files_that_cannot_be_used_are_named(authority: trustme.CA, tmp_path: Path) -> None:
    ca, cert, _ = written(authority, tmp_path)
    with pytest.raises(ConfigError, match=r"missing\.pem.*No such file"):
        tls_context(tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"cert\.pem"):
        tls_context(ca, cert, ca)
    assert isinstance(tls_context(), ssl.SSLContext)
