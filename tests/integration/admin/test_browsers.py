"""A web page in an administrator's browser is a stranger, although it calls from this machine."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.support import LOOPBACK, PATIENCE, running

EVICT = "/coral.discovery.admin.v1.AdminService/Evict"
STATS = "/coral.discovery.admin.v1.AdminService/Stats?encoding=json&message=%7B%7D"
BODY = b'{"meshId": "mesh-1"}'
JSON = "application/json"


@pytest.mark.parametrize(
    "method, path, headers, status",
    [
        ("POST", EVICT, {"host": "rebound.example", "content-type": JSON}, 403),
        ("GET", STATS, {"host": "rebound.example"}, 403),
        ("POST", EVICT, {"content-type": "text/plain"}, 415),  # needs no leave of a browser
        ("OPTIONS", EVICT, {"origin": "https://page.example"}, 405),  # JSON does, and gets none
        ("POST", EVICT, {"content-type": JSON}, 200),
        ("GET", STATS, {}, 200),
    ],
)
async def test_only_what_a_page_cannot_send_is_answered(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with running(admin_listen=f"{LOOPBACK}:0") as server:
        url = f"http://{LOOPBACK}:{server.server.admin_port}{path}"
        async with httpx.AsyncClient(timeout=PATIENCE) as http:
            content = BODY if method == "POST" else None
            reply = await http.request(method, url, headers=headers, content=content)
    assert reply.status_code == status
    assert "access-control-allow-origin" not in reply.headers
