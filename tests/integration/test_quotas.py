"""Quotas, as clients meet them over the wire, with each kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from discovery.auth import Role, create_key
from discovery.client import DiscoveryClient
from discovery.clock import SystemClock
from discovery.errors import Code, QuotaError
from tests.integration.support import PATIENCE, Running, running
from tests.redis import servers as redis
from tests.support import key, registration

TTL = 300


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "memory":
        yield "memory"
        return
    async with redis.running() as server:
        yield server.url


@asynccontextmanager
async def served(store: str, **settings: Any) -> AsyncIterator[tuple[Running, DiscoveryClient]]:
    async with (
        running(store=store, **settings) as server,
        DiscoveryClient(server.url, timeout=PATIENCE) as client,
    ):
        yield server, client


async def refused(client: DiscoveryClient, **fields: Any) -> QuotaError:
    agent = "agent_id" in fields
    register = client.register_agent if agent else client.register_colony
    with pytest.raises(QuotaError) as caught:
        await register(registration(**fields))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert caught.value.reason == "QUOTA"
    assert caught.value.retry_after
    return caught.value


async def test_a_mesh_has_as_many_agents_as_it_may(store: str) -> None:
    async with served(store, quota_agents_per_mesh=2) as (_, client):
        for agent in ("a", "b"):
            await client.register_agent(registration(agent_id=agent))
        assert "this mesh has agents: 2" in (await refused(client, agent_id="c")).message

        await client.register_agent(registration(agent_id="a"))  # a renewal is not one more
        await client.register_agent(registration(mesh_id="mesh-2", agent_id="c"))
        await client.register_colony(registration())
        await client.deregister_agent("mesh-1", "b", key(1))
        await client.register_agent(registration(agent_id="c"))
        await refused(client, agent_id="b")


async def test_a_server_has_as_many_leases_as_it_may(store: str) -> None:
    async with served(store, quota_registrations=2) as (_, client):
        await client.register_colony(registration())
        await client.register_agent(registration(agent_id="a"))
        assert "this server has leases: 2" in (await refused(client, mesh_id="mesh-2")).message
        await refused(client, agent_id="b")

        await client.register_colony(registration())
        await client.deregister_colony("mesh-1", key(1))
        await client.register_colony(registration(mesh_id="mesh-2"))


async def test_a_key_has_as_many_meshes_as_it_may(store: str, tmp_path: Path) -> None:
    file, secrets = tmp_path / "keys.yaml", []
    for name in ("team-a", "team-b"):
        now = SystemClock().now()
        secrets.append(create_key(file, name, [Role.REGISTER], ["*"], now=now))
    settings: Mapping[str, Any] = {"auth": "keys", "keys_file": file, "quota_meshes_per_key": 1}
    async with (
        running(store=store, **settings) as server,
        DiscoveryClient(server.url, timeout=PATIENCE, api_key=secrets[0]) as team_a,
        DiscoveryClient(server.url, timeout=PATIENCE, api_key=secrets[1]) as team_b,
    ):
        await team_a.register_colony(registration())
        error = await refused(team_a, mesh_id="mesh-2")
        assert "this API key has colonies registered: 1" in error.message

        await team_a.register_colony(registration())
        await team_a.register_agent(registration(agent_id="a"))
        await team_b.register_colony(registration(mesh_id="mesh-2"))
        await team_a.deregister_colony("mesh-1", key(1))
        await team_a.register_colony(registration(mesh_id="mesh-3"))


@pytest.mark.parametrize("quota", ["quota_registrations", "quota_agents_per_mesh"])
async def test_a_lease_that_nobody_renews_makes_room(quota: str) -> None:
    async with served("memory", **{quota: 1}, ttl=TTL) as (server, client):
        await client.register_agent(registration(agent_id="a"))
        server.clock.advance(TTL - 1)
        await refused(client, agent_id="b")
        server.clock.advance(1)
        await client.register_agent(registration(agent_id="b"))


async def test_a_lease_that_nobody_renews_makes_room_in_redis() -> None:
    """Its time is Redis' own, so the shortest lease that there is has to end by itself."""
    async with (
        redis.running() as shared,
        served(shared.url, quota_registrations=1, ttl=1) as (_, client),
    ):
        await client.register_colony(registration())
        await refused(client, mesh_id="mesh-2")

        async def makes_room() -> bool:
            try:
                await client.register_colony(registration(mesh_id="mesh-2"))
            except QuotaError:
                return False
            return True

        await redis.eventually(makes_room)


@pytest.mark.parametrize("path", ["/v1/colony/register", "connect"])
async def test_a_quota_that_is_used_up_is_the_same_answer_over_http(store: str, path: str) -> None:
    if path == "connect":
        path = "/coral.discovery.v1.DiscoveryService/RegisterColony"
    body = {"pubkey": key(1), "endpoints": ["203.0.113.5:41820"]}
    async with (
        running(store=store, quota_registrations=1) as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http,
    ):
        answers = [await http.post(path, json={**body, "mesh_id": f"m-{n}"}) for n in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["code"] == "resource_exhausted"
    assert int(answers[1].headers["retry-after"]) > 0
