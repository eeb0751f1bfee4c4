"""Who may call: API keys, proofs and rate limits, as clients of every protocol meet them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from discovery.auth import Role, create_key, revoke_key
from discovery.client import DiscoveryClient
from discovery.clock import SystemClock
from discovery.errors import (
    ConfigError,
    DeadlineExceededError,
    MeshReservedError,
    NotRegisteredError,
    PermissionDeniedError,
    ProofInvalidError,
    ProofRequiredError,
    RateLimitedError,
    UnauthenticatedError,
)
from discovery.models import Registration
from discovery.proof import Prover
from discovery.transport import calming
from discovery.wireguard import KeyPair
from tests.integration.raw import raw_socket
from tests.integration.support import LOOPBACK, PATIENCE, Running, running
from tests.support import KEY, MESH, OTHER_KEY, ManualClock, registration

SERVICE = "/coral.discovery.v1.DiscoveryService"
BODY = {"mesh_id": MESH, "pubkey": KEY, "endpoints": ["203.0.113.5:41820"]}
ONE_LOOKUP = ("address:LookupColony=1/minute",)
GET = f"connect=v1&encoding=json&message=%7B%22meshId%22:%22{MESH}%22%7D"


# -- API keys --------------------------------------------------------------------------------------------


class KeyRing:
    """A keys file, and the secrets in it by the names of their keys."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "keys.yaml"
        self.secrets: dict[str, str] = {}

    def add(
        self, name: str, *roles: Role, mesh: str = "*", expires_at_us: int | None = None
    ) -> str:
        now = SystemClock().now()
        secret = create_key(self.file, name, roles, (mesh,), now=now, expires_at_us=expires_at_us)
        self.secrets[name] = secret
        return secret

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"auth": "keys", "keys_file": self.file}


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    ring = KeyRing(tmp_path)
    ring.add("both", Role.REGISTER, Role.LOOKUP, mesh="mesh-*")
    ring.add("reader", Role.LOOKUP)
    return ring


def client(server: Running, secret: str | None = None, **options: Any) -> DiscoveryClient:
    return DiscoveryClient(server.url, api_key=secret, timeout=PATIENCE, **options)


async def test_a_call_without_a_key_is_refused_and_health_is_open(keys: KeyRing) -> None:
    async with running(**keys.settings) as server:
        async with client(server) as nobody:
            with pytest.raises(UnauthenticatedError):
                await nobody.lookup_colony(MESH)
            assert (await nobody.health()).status == "ok"
        async with client(server, "coral_" + "x" * 43) as stranger:
            with pytest.raises(UnauthenticatedError):
                await stranger.register_colony(registration())


async def test_a_key_does_what_its_roles_and_meshes_say(keys: KeyRing) -> None:
    async with running(**keys.settings) as server:
        async with client(server, keys.secrets["both"]) as both:
            await both.register_colony(registration())
            assert (await both.lookup_colony(MESH)).registration.pubkey == KEY
            with pytest.raises(PermissionDeniedError, match="'both' may not register"):
                await both.register_colony(registration(mesh_id="other"))
        async with client(server, keys.secrets["reader"]) as reader:
            await reader.lookup_colony(MESH)
            with pytest.raises(PermissionDeniedError):
                await reader.deregister_colony(MESH, KEY)
        assert [line["key"] for line in server.requests()[:3]] == ["both"] * 3


async def test_a_refusal_does_not_tell_whether_a_mesh_exists(keys: KeyRing) -> None:
    keys.add("outside", Role.LOOKUP, mesh="elsewhere-*")
    async with running(**keys.settings) as server:
        async with client(server, keys.secrets["both"]) as both:
            await both.register_colony(registration())
        async with client(server, keys.secrets["outside"]) as outside:
            errors = []
            for mesh_id in (MESH, "mesh-2"):
                with pytest.raises(PermissionDeniedError) as caught:
                    await outside.lookup_colony(mesh_id)
                errors.append(str(caught.value))
    assert errors[0] == errors[1]


async def test_a_revoked_key_is_refused_within_a_second_and_its_watches_end(
    keys: KeyRing,
) -> None:
    async with running(**keys.settings) as server, client(server, keys.secrets["both"]) as both:
        keys.add("writer", Role.REGISTER)
        async with aclosing(both.watch_colony(MESH)) as watch:
            await anext(watch)
            revoke_key(keys.file, "both")
            server.clock.advance(2)

            with pytest.raises(UnauthenticatedError):
                await both.lookup_colony(MESH)
            async with client(server, keys.secrets["writer"]) as writer:
                await writer.register_colony(registration())
            with pytest.raises(UnauthenticatedError):
                await anext(watch)


async def test_a_key_ends_when_it_expires(keys: KeyRing) -> None:
    async with running(**keys.settings) as server:
        end = server.clock.now().unix_us + 60_000_000
        secret = keys.add("short", Role.LOOKUP, expires_at_us=end)
        server.clock.advance(59)
        async with client(server, secret) as short:
            with pytest.raises(NotRegisteredError):
                await short.lookup_colony(MESH)
            server.clock.advance(1)
            with pytest.raises(UnauthenticatedError):
                await short.lookup_colony(MESH)


@pytest.mark.parametrize("protocol", ["connect", "rest"])
async def test_every_protocol_takes_the_key_and_refuses_without(
    keys: KeyRing, protocol: str
) -> None:
    paths = {"connect": f"{SERVICE}/RegisterColony", "rest": "/v1/colony/register"}
    async with (
        running(**keys.settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http,
    ):
        bearer = {"authorization": f"Bearer {keys.secrets['both']}"}
        refused = await http.post(paths[protocol], json=BODY)
        taken = await http.post(paths[protocol], json=BODY, headers=bearer)
        denied = await http.post(paths[protocol], json={**BODY, "mesh_id": "other"}, headers=bearer)
    assert [answer.status_code for answer in (refused, taken, denied)] == [401, 200, 403]


async def test_no_secret_is_in_any_log_line(keys: KeyRing) -> None:
    async with running(**keys.settings) as server:
        for secret in (*keys.secrets.values(), "coral_" + "x" * 43):
            async with client(server, secret) as caller:
                await asyncio.gather(
                    caller.register_colony(registration()),
                    caller.lookup_colony("other"),
                    return_exceptions=True,
                )
        said = repr(server.log.entries)
    assert "register" in said.lower()
    assert not [secret for secret in keys.secrets.values() if secret[6:] in said]


def test_a_keys_file_that_is_missing_is_told(tmp_path: Path) -> None:
    async def start() -> None:
        async with running(auth="keys", keys_file=tmp_path / "keys.yaml"):
            raise AssertionError

    with pytest.raises(ConfigError, match=r"keys\.yaml"):
        asyncio.run(start())


# -- Proofs ----------------------------------------------------------------------------------------------


class Holder:
    """Somebody with a key pair."""

    def __init__(self) -> None:
        self.keys = KeyPair.generate()

    def registration(self, **changes: Any) -> Registration:
        return registration(pubkey=self.keys.public_key, **changes)

    def client(self, server: Running, old: Holder | None = None) -> DiscoveryClient:
        old_key = None if old is None else old.keys.private_key
        return client(server, prover=Prover(self.keys.private_key, old_key))


def proving() -> AbstractAsyncContextManager[Running]:
    """Run a server that asks for proofs, whose clock begins with the real time: clients have no other."""
    return running(ManualClock(SystemClock().now().unix_us), ownership="proof")


async def test_who_holds_the_key_registers_renews_and_leaves() -> None:
    holder = Holder()
    async with proving() as server, holder.client(server) as colony:
        for _ in range(3):
            await colony.register_colony(holder.registration())
        assert await colony.deregister_colony(MESH, holder.keys.public_key) is True
        await colony.register_agent(holder.registration(agent_id="api"))
        assert await colony.deregister_agent(MESH, "api", holder.keys.public_key) is True
        statuses = [line["status"] for line in server.requests()]
    # Only the very first call was made without a challenge.
    assert statuses == ["UNAUTHENTICATED", "OK", "OK", "OK", "OK", "OK", "OK"]


async def test_who_does_not_hold_the_key_registers_nothing() -> None:
    thief, owner = Holder(), Holder()
    async with proving() as server:
        async with client(server) as nobody:
            with pytest.raises(ProofRequiredError):
                await nobody.register_colony(owner.registration())
        async with thief.client(server) as thieving:
            with pytest.raises(ProofInvalidError):
                await thieving.register_colony(owner.registration())
        async with owner.client(server) as owning:
            await owning.register_colony(owner.registration())
        async with thief.client(server) as thieving:
            with pytest.raises(ProofInvalidError):
                await thieving.deregister_colony(MESH, owner.keys.public_key)


async def test_a_mesh_stays_its_keys_for_a_day_after_its_lease() -> None:
    owner, other = Holder(), Holder()
    async with (
        proving() as server,
        owner.client(server) as owning,
        other.client(server) as another,
    ):
        await owning.register_colony(owner.registration())
        await owning.deregister_colony(MESH, owner.keys.public_key)
        with pytest.raises(NotRegisteredError):
            await owning.lookup_colony(MESH)
        with pytest.raises(MeshReservedError):
            await another.register_colony(other.registration())
    assert other.keys.public_key != owner.keys.public_key


async def test_a_colony_moves_to_a_new_key_by_a_registration_that_both_prove() -> None:
    old, new = Holder(), Holder()
    async with proving() as server:
        async with old.client(server) as before:
            await before.register_colony(old.registration())
        async with new.client(server, old) as moving:
            await moving.register_colony(new.registration())
            assert (await moving.lookup_colony(MESH)).registration.pubkey == new.keys.public_key
        async with old.client(server) as before:
            with pytest.raises(Exception, match="another public key"):
                await before.register_colony(old.registration())


async def test_without_proofs_nothing_is_asked_and_nothing_reserved() -> None:
    async with running() as server, client(server) as anybody:
        await anybody.register_colony(registration())
        await anybody.deregister_colony(MESH, KEY)
        await anybody.register_colony(registration(pubkey=OTHER_KEY))


# -- Limits ----------------------------------------------------------------------------------------------


async def test_too_many_calls_are_told_when_to_come_back() -> None:
    async with (
        running(rate_limit=("mesh:RegisterColony=2/minute",)) as server,
        client(server) as colony,
    ):
        for _ in range(2):
            await colony.register_colony(registration())
        with pytest.raises(RateLimitedError) as caught:
            await colony.register_colony(registration())
        await colony.register_colony(registration(mesh_id="mesh-2"))
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after < 60
        server.clock.advance(60)
        await colony.register_colony(registration())


async def test_an_address_over_its_limit_is_refused_before_its_message_is_read() -> None:
    async with (
        running(rate_limit=("address:LookupColony=1/minute",)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http,
    ):
        first = await http.get(f"/v1/colony/lookup/{MESH}")
        second = await http.post(f"{SERVICE}/LookupColony", json=["no message"])
    assert (first.status_code, second.status_code) == (404, 429)
    assert int(second.headers["retry-after"]) >= 1


async def test_a_flood_is_not_even_read_and_nobody_else_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calming, "PAUSE", 60.0)
    async with (
        running(rate_limit=ONE_LOOKUP) as server,
        DiscoveryClient(server.url, timeout=0.5) as flooding,
        client(server) as other,
    ):
        for expected in (NotRegisteredError, RateLimitedError):
            with pytest.raises(expected):
                await flooding.lookup_colony(MESH)
        with pytest.raises(DeadlineExceededError):
            await flooding.health()
        assert (await other.health()).status == "ok"


async def test_a_client_that_was_not_read_for_a_while_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calming, "PAUSE", 0.01)
    async with running(rate_limit=ONE_LOOKUP) as server, client(server) as flooding:
        for expected in (NotRegisteredError, RateLimitedError, RateLimitedError):
            with pytest.raises(expected):
                await flooding.lookup_colony(MESH)
        assert (await flooding.health()).status == "ok"


OVER_HTTP = pytest.mark.parametrize(
    "version, lookup",
    [
        (version, lookup)
        for version in (1, 2)
        for lookup in (f"/v1/colony/lookup/{MESH}", f"{SERVICE}/LookupColony?{GET}")
    ],
)


def one_connection(
    server: Running, version: int, patience: float = PATIENCE, **options: Any
) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=server.url,
        http1=version == 1,
        http2=version == 2,
        limits=httpx.Limits(max_connections=1),
        timeout=httpx.Timeout(PATIENCE, read=patience),
        **options,
    )


@OVER_HTTP
async def test_a_flood_over_http_is_not_read_either(
    monkeypatch: pytest.MonkeyPatch, version: int, lookup: str
) -> None:
    monkeypatch.setattr(calming, "PAUSE", 60.0)
    async with (
        running(rate_limit=ONE_LOOKUP) as server,
        one_connection(server, version, 0.5) as flooding,
        one_connection(server, version) as other,
    ):
        answers = [await flooding.get(lookup) for _ in range(2)]
        with pytest.raises(httpx.ReadTimeout):
            await flooding.get("/health")
        assert (await other.get("/health")).status_code == 200
    assert [answer.status_code for answer in answers] == [404, 429]


@OVER_HTTP
async def test_a_client_over_http_is_read_again_over_the_same_connection(
    monkeypatch: pytest.MonkeyPatch, version: int, lookup: str
) -> None:
    monkeypatch.setattr(calming, "PAUSE", 0.01)
    async with (
        running(rate_limit=ONE_LOOKUP) as server,
        one_connection(server, version) as flooding,
    ):
        answers = [await flooding.get(path) for path in (lookup, lookup, lookup, "/health")]
        streams = [answer.extensions["network_stream"] for answer in answers]
        ports = {stream.get_extra_info("client_addr") for stream in streams}
    assert [answer.status_code for answer in answers] == [404, 429, 429, 200]
    assert len(ports) == 1


@OVER_HTTP
async def test_a_trusted_proxy_is_heard_whatever_one_of_its_callers_does(
    monkeypatch: pytest.MonkeyPatch, version: int, lookup: str
) -> None:
    monkeypatch.setattr(calming, "PAUSE", 60.0)
    forwarded = {"x-forwarded-for": "203.0.113.5"}
    async with (
        running(rate_limit=ONE_LOOKUP, trusted_proxy=(f"{LOOPBACK}/32",)) as server,
        one_connection(server, version, headers=forwarded) as proxy,
    ):
        answers = [await proxy.get(path) for path in (lookup, lookup, lookup, "/health")]
    assert [answer.status_code for answer in answers] == [404, 429, 429, 200]


async def test_requests_sent_ahead_do_not_undo_the_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn stops and resumes reading by itself when a client does not wait for its answers."""
    monkeypatch.setattr(calming, "PAUSE", 60.0)
    lookup = f"GET /v1/colony/lookup/{MESH} HTTP/1.1\r\nhost: a\r\n\r\n".encode()
    async with (
        running(rate_limit=ONE_LOOKUP) as server,
        raw_socket(server.port) as (reader, writer),
    ):
        for requests, status in ((1, b"404"), (5, b"429")):
            writer.write(lookup * requests)
            for _ in range(requests):
                assert status in await reader.readuntil(b"\r\n\r\n")
                await reader.readuntil(b"}]}")
        writer.write(lookup)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reader.readuntil(b" 429 ")


async def is_over(socket: ClientConnection, patience: float) -> bool:
    """Return whether the server ends the connection, which it does once it has read the client's goodbye."""
    try:
        async with asyncio.timeout(patience):
            await socket.wait_closed()
    except TimeoutError:
        socket.transport.abort()
        return False
    return True


@pytest.mark.parametrize("pause, patience, over", [(60.0, 0.5, False), (0.01, PATIENCE, True)])
async def test_a_websocket_that_is_one_too_many_is_told_and_not_read(
    monkeypatch: pytest.MonkeyPatch, pause: float, patience: float, *, over: bool
) -> None:
    monkeypatch.setattr(calming, "PAUSE", pause)
    async with running(rate_limit=("address:WatchColony=1/minute",)) as server:
        url = f"ws://{LOOPBACK}:{server.port}/v1/colony/watch/{MESH}"
        async with (
            connect(url) as first,
            connect(url, close_timeout=2 * PATIENCE) as second,
        ):
            assert "error" not in str(await first.recv())
            assert "resource_exhausted" in str(await second.recv())
            assert await is_over(second, patience) == over


@pytest.mark.parametrize("rule", ["mesh=1/minute", "mesh:Nothing=1/minute", "mesh:*=0/minute"])
def test_a_rule_that_is_none_is_told(rule: str) -> None:
    async def start() -> None:
        async with running(rate_limit=(rule,)):
            raise AssertionError

    with pytest.raises(ConfigError, match="rate-limit"):
        asyncio.run(start())


# -- What is open ----------------------------------------------------------------------------------------


def warnings(server: Running) -> list[str]:
    said = [entry for entry in server.log.entries if entry["event"] == "open to strangers"]
    return [str(entry["whoever_reaches_the_port_can"]) for entry in said]


async def test_a_server_says_in_one_line_what_it_leaves_open(keys: KeyRing) -> None:
    async with running(host="") as server:
        [line] = warnings(server)
    assert "--tls-cert" in line
    assert "--auth keys" in line
    async with running(host="", **keys.settings) as server:
        [line] = warnings(server)
    assert "--auth" not in line
    for host in (LOOPBACK, "::1", "localhost"):
        async with running(host=host) as server:
            assert warnings(server) == []


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "127.example.com"])
def test_it_refuses_instead_if_told_so(host: str) -> None:
    async def start() -> None:
        async with running(host=host, require_secure=True):
            raise AssertionError

    with pytest.raises(ConfigError, match="require-secure"):
        asyncio.run(start())


async def test_it_starts_where_nobody_else_can_call() -> None:
    async with running(host=LOOPBACK, require_secure=True) as server, client(server) as caller:
        assert (await caller.health()).status == "ok"
