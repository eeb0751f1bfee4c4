"""The admin API, through its own port, beside clients of the public one."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpclib.client import Channel
from grpclib.exceptions import GRPCError

from discovery._gen.coral.discovery.admin.v1 import (
    AdminServiceStub,
    DrainRequest,
    EventKind,
    EvictRequest,
    InspectRequest,
    ListRegistrationsRequest,
    StatsRequest,
    WatchEventsRequest,
)
from discovery.auth import Role, create_key
from discovery.client import DiscoveryClient
from discovery.clock import SystemClock
from discovery.errors import ConfigError, MeshIdTakenError, NotRegisteredError
from tests.integration.support import LOOPBACK, PATIENCE, Running, running
from tests.support import KEY, MESH, OTHER_KEY, key, registration


class Admin:
    """A server with an admin port, and clients of both."""

    def __init__(self, server: Running, stub: AdminServiceStub, client: DiscoveryClient) -> None:
        self.server = server
        self.stub = stub
        self.client = client

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server.server.admin_port}"


@asynccontextmanager
async def administering(**settings: Any) -> AsyncIterator[Admin]:
    settings = {"admin_listen": f"{LOOPBACK}:0", **settings}
    async with running(**settings) as server, DiscoveryClient(server.url) as client:
        port = server.server.admin_port
        channel = Channel(LOOPBACK, port) if port else Channel(path=settings["admin_listen"][5:])
        try:
            yield Admin(server, AdminServiceStub(channel, timeout=PATIENCE), client)
        finally:
            channel.close()


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    async with administering() as admin:
        yield admin


async def listed(admin: Admin, **request: Any) -> list[str]:
    """Return the names of what is listed, page after page."""
    names, token = [], ""
    while True:
        reply = await admin.stub.list_registrations(
            ListRegistrationsRequest(page_token=token, page_size=7, **request)
        )
        names += [f"{r.mesh_id}/{r.agent_id}".rstrip("/") for r in reply.records]
        if not (token := reply.next_page_token):
            return sorted(names)


async def test_lists_colonies_and_agents_apart_by_prefix_and_age(admin: Admin) -> None:
    for number in range(20):
        await admin.client.register_colony(registration(mesh_id=f"mesh-{number:02}"))
    await admin.client.register_agent(registration(mesh_id="mesh-01", agent_id="api"))
    admin.server.clock.advance(100)
    await admin.client.register_colony(registration(mesh_id="young"))

    assert await listed(admin) == [*(f"mesh-{number:02}" for number in range(20)), "young"]
    assert await listed(admin, mesh_prefix="mesh-0") == [f"mesh-{n:02}" for n in range(10)]
    assert await listed(admin, agents=True) == ["mesh-01/api"]
    assert await listed(admin, max_age_seconds=50) == ["young"]
    assert len(await listed(admin, min_age_seconds=50)) == 20


async def test_tells_all_that_is_known_of_a_name(admin: Admin) -> None:
    await admin.client.register_colony(registration())
    with pytest.raises(MeshIdTakenError):
        await admin.client.register_colony(registration(pubkey=OTHER_KEY))
    await admin.client.register_colony(registration(endpoints=("192.0.2.9:1",)))
    reply = await admin.stub.inspect(InspectRequest(MESH))

    assert reply.record.pubkey == KEY
    assert reply.record.endpoints == ["192.0.2.9:1"]
    kinds = [event.kind for event in reply.events]
    assert kinds == [EventKind.REGISTERED, EventKind.CONFLICT, EventKind.CHANGED]
    conflict = reply.events[1]
    assert (conflict.reason, conflict.pubkey) == ("MESH_ID_TAKEN", OTHER_KEY)
    assert conflict.address == LOOPBACK


async def test_a_name_that_nobody_has_is_no_error(admin: Admin) -> None:
    reply = await admin.stub.inspect(InspectRequest("nobody"))
    assert not reply.is_set("record")
    assert reply.events == []
    assert reply.is_set("events_since")


async def test_that_a_lease_expired_can_be_seen(admin: Admin) -> None:
    await admin.client.register_colony(registration())
    admin.server.clock.advance(300)
    with pytest.raises(NotRegisteredError):
        await admin.client.lookup_colony(MESH)
    await admin.client.health()  # takes note of what has ended
    reply = await admin.stub.inspect(InspectRequest(MESH))
    assert [event.kind for event in reply.events] == [EventKind.REGISTERED, EventKind.EXPIRED]


async def test_evicts_a_lease_and_its_reservation(tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    async with administering(reserve=3600, audit_log=str(audit)) as admin:
        await admin.client.register_colony(registration())
        assert (await admin.stub.evict(EvictRequest(MESH))).evicted is True
        assert (await admin.stub.evict(EvictRequest(MESH))).evicted is False
        with pytest.raises(NotRegisteredError):
            await admin.client.lookup_colony(MESH)
        await admin.client.register_colony(registration(pubkey=OTHER_KEY))
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [line["action"] for line in lines] == [
        "RegisterColony",
        "Evict",
        "RegisterColony",
    ]
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600


async def test_counts_what_there_is(admin: Admin) -> None:
    await admin.client.register_colony(registration())
    await admin.client.register_agent(registration(agent_id="api"))
    with pytest.raises(NotRegisteredError):
        await admin.client.lookup_colony("nobody")
    admin.server.clock.advance(7)
    stats = await admin.stub.stats(StatsRequest())

    assert (stats.colonies, stats.agents, stats.uptime_seconds) == (1, 1, 7)
    assert (stats.store, stats.connections, stats.draining) == ("memory", 1, False)
    counts = {(call.method, call.status): call.count for call in stats.calls}
    assert counts == {
        ("RegisterColony", "OK"): 1,
        ("RegisterAgent", "OK"): 1,
        ("LookupColony", "NOT_FOUND"): 1,
    }


async def until_followed(admin: Admin) -> None:
    """Return once somebody follows the events: a stream tells nobody when it has begun."""
    async with asyncio.timeout(PATIENCE):
        while not admin.server.server._events._readers:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_follows_what_happens(admin: Admin) -> None:
    stream = admin.stub.watch_events(WatchEventsRequest(mesh_prefix="mesh-"))
    events = stream.__aiter__()
    first = asyncio.ensure_future(anext(events))
    await until_followed(admin)
    await admin.client.register_colony(registration(mesh_id="other"))
    await admin.client.register_colony(registration())
    await admin.client.deregister_colony(MESH, KEY)
    async with asyncio.timeout(PATIENCE):
        told = [await first, await anext(events)]
    assert [(reply.event.mesh_id, reply.event.kind) for reply in told] == [
        (MESH, EventKind.REGISTERED),
        (MESH, EventKind.GONE),
    ]


async def test_a_server_that_is_asked_to_stops(admin: Admin) -> None:
    assert not admin.server.server.stopping.is_set()
    await admin.stub.drain(DrainRequest())
    assert admin.server.server.stopping.is_set()


async def test_a_stop_ends_whoever_follows() -> None:
    async with administering() as admin:
        events = admin.stub.watch_events(WatchEventsRequest()).__aiter__()
        reading = asyncio.ensure_future(anext(events))
        await until_followed(admin)
        await admin.server.server.stop()
        with pytest.raises(GRPCError) as caught:
            await reading
        assert caught.value.status.name == "UNAVAILABLE"


async def test_listing_a_hundred_thousand_holds_up_no_lookup() -> None:
    async with administering() as admin:
        store, clock = admin.server.server._store, admin.server.clock
        for number in range(100_000):
            wanted = registration(mesh_id=f"mesh-{number}", pubkey=key(number + 1))
            await store.register(wanted, ttl=300, now=clock.now())
        gaps: list[float] = []

        async def look_up() -> None:
            loop = asyncio.get_running_loop()
            while True:
                began = loop.time()
                await asyncio.sleep(0)
                gaps.append(loop.time() - began)

        task = asyncio.create_task(look_up())
        token, pages = "", 0
        while pages < 30:
            request = ListRegistrationsRequest(page_token=token)
            token = (await admin.stub.list_registrations(request)).next_page_token
            pages += 1
        task.cancel()
    # The promise is 20 ms; both ends of the call are in this process, on a machine that may be busy.
    assert sorted(gaps)[-3] < 0.2


# -- Who may ------------------------------------------------------------------------------------------


async def test_it_answers_json_too(admin: Admin) -> None:
    async with httpx.AsyncClient(base_url=admin.url, timeout=PATIENCE) as http:
        reply = await http.post("/coral.discovery.admin.v1.AdminService/Stats", json={})
        public = await http.post("/coral.discovery.v1.DiscoveryService/Health", json={})
    assert reply.json()["store"] == "memory"
    assert public.status_code == 404


async def test_the_public_port_has_no_admin_api(admin: Admin) -> None:
    channel = Channel(LOOPBACK, admin.server.port)
    with pytest.raises(GRPCError) as caught:
        await AdminServiceStub(channel).stats(StatsRequest())
    channel.close()
    assert caught.value.status.name == "UNIMPLEMENTED"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    file = tmp_path / "keys.yaml"
    now = SystemClock().now()
    return file, {
        role.value: create_key(file, role.value, [role], now=now)
        for role in (Role.ADMIN, Role.LOOKUP)
    }


async def test_beyond_this_machine_a_key_of_an_administrator_is_needed(
    keys: tuple[Path, dict[str, str]],
) -> None:
    file, secrets = keys
    settings = {"auth": "keys", "keys_file": file, "admin_listen": ":0"}
    async with administering(**settings) as admin:
        statuses = []
        for secret in (None, secrets["lookup"], secrets["admin"]):
            metadata = {"authorization": f"Bearer {secret}"} if secret else {}
            try:
                await admin.stub.stats(StatsRequest(), metadata=metadata)
            except GRPCError as error:
                statuses.append(error.status.name)
            else:
                statuses.append("OK")
    assert statuses == ["UNAUTHENTICATED", "PERMISSION_DENIED", "OK"]


def test_beyond_this_machine_it_does_not_start_without_keys() -> None:
    async def start() -> None:
        async with running(admin_listen=":0"):
            raise AssertionError

    with pytest.raises(ConfigError, match="auth keys"):
        asyncio.run(start())


async def test_a_unix_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with administering(admin_listen=f"unix:{path}") as admin:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await admin.stub.stats(StatsRequest())).store == "memory"
    assert not path.exists()


async def test_a_socket_that_nobody_listens_at_is_replaced_and_another_server_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with administering(admin_listen=f"unix:{path}"):
        with pytest.raises(ConfigError, match="cannot listen"):
            async with administering(admin_listen=f"unix:{path}"):
                raise AssertionError


@pytest.mark.parametrize("where", ["8081", "host:port", "host:70000", "unix:"])
def test_an_address_that_is_none_is_told(where: str) -> None:
    async def start() -> None:
        async with running(admin_listen=where):
            raise AssertionError

    with pytest.raises(ConfigError, match="admin-listen"):
        asyncio.run(start())
