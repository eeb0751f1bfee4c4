"""`discovery.client.DiscoveryClient`: its calls, its errors, and what it makes of servers that are not there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from types import MappingProxyType

import pytest

from discovery import __version__
from discovery.client import DiscoveryClient
from discovery.errors import (
    ConfigError,
    DeadlineExceededError,
    InvalidFieldError,
    MeshIdTakenError,
    NotOwnerError,
    NotRegisteredError,
    TooLargeError,
    UnreachableError,
)
from discovery.models import CertificateFingerprint, Endpoint, PublicEndpoint
from tests.integration.strangers import Gateway, strange_server, url_of
from tests.integration.support import LOOPBACK, PATIENCE, Running, running
from tests.support import KEY, MESH, OTHER_KEY, key, registration

MINUTE_US = 60_000_000

EVERYTHING = registration(
    metadata=MappingProxyType({"region": "eu-west", "grüße": "süß"}),
    mesh_ipv4="10.42.0.1",
    mesh_ipv6="fd42::1",
    connect_port=9000,
    public_port=8443,
    observed_endpoint=Endpoint("203.0.113.9", 40000, "udp", via_relay=True),
    public_endpoint=PublicEndpoint(
        enabled=True,
        url="https://colony.example.org:8443",
        ca_cert="-----BEGIN CERTIFICATE-----",
        ca_fingerprint=CertificateFingerprint(1, bytes(range(32))),
        updated_at_us=1_790_000_000_123_456,
    ),
)


# -- Calls ----------------------------------------------------------------------------------------


async def test_registers_and_finds_everything_that_a_registration_may_hold(
    client: DiscoveryClient, server: Running
) -> None:
    now_us = server.clock.now().unix_us
    registered = await client.register_colony(EVERYTHING)
    lease = await client.lookup_colony(MESH)
    assert registered.ttl == 300
    assert registered.expires_at_us == lease.expires_at_us == now_us + 5 * MINUTE_US
    assert 54 <= registered.refresh_after <= 66
    assert registered.observed_endpoint == Endpoint(LOOPBACK, 0, "tcp")
    assert lease.registration == EVERYTHING
    assert lease.last_seen_us == now_us
    assert lease.revision == registered.revision


async def test_leaves(client: DiscoveryClient) -> None:
    await client.register_colony(registration())
    assert await client.deregister_colony(MESH, KEY) is True
    assert await client.deregister_colony(MESH, KEY) is False


async def test_asks_how_the_server_is(client: DiscoveryClient, server: Running) -> None:
    await client.register_colony(registration())
    server.clock.advance(7)
    health = await client.health()
    assert (health.status, health.version) == ("ok", __version__)
    assert (health.uptime_seconds, health.registered_colonies) == (7, 1)


async def test_makes_many_calls_at_a_time(client: DiscoveryClient) -> None:
    meshes = [f"mesh-{number}" for number in range(1, 201)]
    await asyncio.gather(
        *(
            client.register_colony(registration(mesh_id=mesh, pubkey=key(number)))
            for number, mesh in enumerate(meshes, 1)
        )
    )
    leases = await asyncio.gather(*(client.lookup_colony(mesh) for mesh in meshes))
    assert [lease.registration.mesh_id for lease in leases] == meshes


# -- Errors that servers answer -------------------------------------------------------------------------


async def test_a_mesh_that_is_taken_comes_with_the_end_of_its_lease(
    client: DiscoveryClient, server: Running
) -> None:
    await client.register_colony(registration())
    server.clock.advance(60.000_001)
    with pytest.raises(MeshIdTakenError, match="already registered") as caught:
        await client.register_colony(registration(pubkey=OTHER_KEY))
    assert caught.value.mesh_id == MESH
    assert caught.value.expires_at_us == server.clock.now().unix_us + 4 * MINUTE_US - 1
    assert caught.value.retry_after is None


async def test_a_mesh_that_is_not_registered_comes_by_name(client: DiscoveryClient) -> None:
    with pytest.raises(NotRegisteredError, match="nobody") as caught:
        await client.lookup_colony("nobody")
    assert caught.value.mesh_id == "nobody"


async def test_a_mesh_of_somebody_else_comes_by_name(client: DiscoveryClient) -> None:
    await client.register_colony(registration())
    with pytest.raises(NotOwnerError) as caught:
        await client.deregister_colony(MESH, OTHER_KEY)
    assert caught.value.mesh_id == MESH


async def test_every_rule_that_is_broken_comes_with_its_field(client: DiscoveryClient) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await client.register_colony(registration(mesh_id="", pubkey="x", endpoints=("a:0",)))
    assert [v.field for v in caught.value.violations] == ["mesh_id", "pubkey", "endpoints[0]"]
    assert all(v.description for v in caught.value.violations)


@pytest.mark.parametrize("size", [65 * 1024, 2**20])
async def test_a_request_that_is_too_large_is_told_so(client: DiscoveryClient, size: int) -> None:
    with pytest.raises(TooLargeError, match="at most") as caught:
        await client.register_colony(registration(metadata={"k": "v" * size}))
    assert caught.value.retry_after is None
    assert (await client.health()).status == "ok"


# -- Servers that are not there ---------------------------------------------------------------------------


async def test_a_server_that_is_away_is_unreachable() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind((LOOPBACK, 0))
        url = url_of(nobody_listens.getsockname()[1])
        async with DiscoveryClient(url, timeout=PATIENCE) as client:
            with pytest.raises(UnreachableError, match=url):
                await client.health()


async def test_a_name_that_nobody_has_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nobody)
    async with DiscoveryClient("http://nobody.invalid:1", timeout=PATIENCE) as client:
        with pytest.raises(UnreachableError, match=r"nobody\.invalid"):
            await client.health()


async def test_a_name_that_cannot_be_one_is_an_error_of_ours() -> None:
    with pytest.raises((ConfigError, UnreachableError), match=r"no\.\.name"):
        async with DiscoveryClient("http://no..name:1", timeout=PATIENCE) as client:
            await client.health()


async def test_a_plain_server_asked_over_tls_is_unreachable(server: Running) -> None:
    url = server.url.replace("http:", "https:")
    async with DiscoveryClient(url, timeout=PATIENCE) as client:
        with pytest.raises(UnreachableError, match=url):
            await client.health()


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    async with strange_server() as server, DiscoveryClient(server.url, timeout=0.05) as client:
        with pytest.raises(DeadlineExceededError, match=r"0\.05 s"):
            await client.health()


async def test_a_server_that_speaks_another_protocol_is_unreachable() -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
    async with strange_server(answer) as server, DiscoveryClient(server.url) as client:
        with pytest.raises(UnreachableError):
            await client.health()


async def test_a_client_that_is_closed_ends_its_calls() -> None:
    async with strange_server() as server:
        client = DiscoveryClient(server.url, timeout=PATIENCE)
        call = asyncio.create_task(client.health())
        async with asyncio.timeout(PATIENCE):
            await server.asked.wait()
        client.close()
        client.close()
        with pytest.raises(UnreachableError):
            await call


async def test_connects_again_after_the_server_was_away(gateway: Gateway) -> None:
    async with DiscoveryClient(url_of(gateway.port), timeout=PATIENCE) as client:
        for number in range(3):
            async with running() as server:
                gateway.target = server.port
                await client.register_colony(registration(mesh_id=f"mesh-{number}"))
                assert (await client.health()).registered_colonies == 1
            gateway.target = None
            with pytest.raises(UnreachableError):
                await client.health()


async def test_calls_that_wait_for_others_end_with_the_connection_too() -> None:
    """A connection has room for a hundred at once, before the server has said a word."""
    async with strange_server(calls=100) as server:
        client = DiscoveryClient(server.url, timeout=PATIENCE)
        calls = [asyncio.create_task(client.health()) for _ in range(150)]
        async with asyncio.timeout(PATIENCE):
            await server.asked.wait()
            for _ in range(100):  # in which the others would come
                await asyncio.sleep(0)
            client.close()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            await server.left.wait()
    assert {type(end) for end in ends} == {UnreachableError}
    assert server.calls == 100


async def test_calls_that_waited_for_others_are_made_once_more_when_the_connection_is_lost(
    server: Running, gateway: Gateway
) -> None:
    gateway.target = server.port
    async with DiscoveryClient(url_of(gateway.port), timeout=PATIENCE) as client:
        await client.health()
        gateway.deaf = True
        calls = [asyncio.create_task(client.health()) for _ in range(150)]
        async with asyncio.timeout(PATIENCE):
            await gateway.ignored.wait()
        gateway.deaf = False
        gateway.hang_up()
        assert {report.status for report in await asyncio.gather(*calls)} == {"ok"}


# -- Endpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "localhost:8080",
        "ftp://localhost",
        "http://",
        "http://:8080",
        "http://localhost:port",
        "http://localhost:65536",
        "http://localhost:0",
        "http://[::1",
        "http://localhost/path",
        "http://localhost?query",
        "http://localhost#fragment",
        "http://user:password@localhost",
    ],
)
async def test_an_endpoint_that_cannot_work_is_refused_at_once(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="http"):
        DiscoveryClient(endpoint)


@pytest.mark.parametrize("endpoint", ["http://{}:{}", "http://{}:{}/", "HTTP://{}:{}"])
async def test_an_endpoint_may_be_written_in_more_than_one_way(
    server: Running, endpoint: str
) -> None:
    async with DiscoveryClient(endpoint.format(LOOPBACK, server.port), timeout=PATIENCE) as client:
        assert (await client.health()).status == "ok"


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway().open() as gateway:
        yield gateway


async def test_a_client_that_was_closed_stays_closed(server: Running) -> None:
    client = DiscoveryClient(server.url)
    under_way = asyncio.create_task(client.health())
    await asyncio.sleep(0)
    client.close()
    await asyncio.gather(under_way, return_exceptions=True)

    with pytest.raises(UnreachableError, match="closed"):
        await client.health()
