"""REST, as RFD-001's appendix has it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from discovery import __version__
from tests.integration.support import Running
from tests.support import KEY, MESH, OTHER_KEY

REGISTRATION: dict[str, Any] = {"mesh_id": MESH, "pubkey": KEY, "endpoints": ["203.0.113.5:41820"]}


async def register(http: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await http.post("/v1/colony/register", json={**REGISTRATION, **changes})


async def test_a_colony_is_registered_and_found(http: httpx.AsyncClient) -> None:
    registered = await register(http)
    found = await http.get(f"/v1/colony/lookup/{MESH}")

    assert registered.json()["ttl"] == 300
    assert found.json()["endpoints"] == ["203.0.113.5:41820"]
    assert found.headers["content-type"] == "application/json"


async def test_nobody_is_found_once_the_lease_is_over(
    http: httpx.AsyncClient, server: Running
) -> None:
    await register(http)
    server.clock.advance(300)

    answer = await http.get(f"/v1/colony/lookup/{MESH}")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_health(http: httpx.AsyncClient) -> None:
    await register(http)

    answer = await http.get("/health")

    assert answer.json() == {"status": "ok", "version": __version__, "registeredColonies": 1}


@pytest.mark.parametrize(
    "changes,status,code",
    [
        ({"pubkey": "x"}, 400, "invalid_argument"),
        ({"pubkey": OTHER_KEY}, 409, "already_exists"),
        ({"x": "x" * 70_000}, 413, "resource_exhausted"),
    ],
)
async def test_errors_have_their_status(
    http: httpx.AsyncClient, changes: dict[str, Any], status: int, code: str
) -> None:
    await register(http)

    answer = await register(http, **changes)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_mesh_id_that_breaks_the_rules(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/colony/lookup/-%20-")

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_only_json_is_read_because_pages_may_post_the_rest_unasked(
    http: httpx.AsyncClient, content_type: str
) -> None:
    answer = await http.post(
        "/v1/colony/register",
        content=json.dumps(REGISTRATION),
        headers={"content-type": content_type},
    )

    assert answer.status_code == 415
    assert "content-type: application/json" in answer.json()["message"]


@pytest.mark.parametrize(
    "method,path,status",
    [("GET", "/v1/colony/register", 405), ("POST", "/health", 405), ("GET", "/nothing", 404)],
)
async def test_there_is_nothing_else(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path)

    assert answer.status_code == status
    assert answer.json()["code"] == "unimplemented"


async def test_a_server_that_stops_says_when_to_try_again(
    http: httpx.AsyncClient, server: Running
) -> None:
    await http.get("/health")
    server.server._gate.close()

    answer = await http.get("/health")

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
