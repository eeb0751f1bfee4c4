"""Host names become addresses before `wg` sees them."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from discovery.wireguard.endpoints import resolve_endpoint
from discovery.wireguard.errors import TunnelError


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str] | Exception]:
    """Return the table that names are looked up in, instead of the DNS."""
    table: dict[str, list[str] | Exception] = {}

    async def getaddrinfo(self: Any, host: str, port: object, *, type: int) -> list[Any]:  # noqa: A002
        answer = table[host]
        if isinstance(answer, Exception):
            raise answer
        return [(0, type, 17, "", (address, 0)) for address in answer]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return table


@pytest.mark.parametrize(
    "endpoint, resolved",
    [
        ("192.0.2.1:41820", "192.0.2.1:41820"),
        ("[2001:db8::1]:41820", "[2001:db8::1]:41820"),
        ("[2001:0DB8:0::1]:1", "[2001:db8::1]:1"),
    ],
)
async def test_an_address_is_not_asked_for(
    names: dict[str, Any], endpoint: str, resolved: str
) -> None:
    assert await resolve_endpoint(endpoint) == [resolved]


async def test_all_addresses_of_a_name_are_returned_once_and_in_order(
    names: dict[str, Any],
) -> None:
    names["hub.example.com"] = ["2001:db8::1", "192.0.2.1", "2001:db8::1"]

    assert await resolve_endpoint("hub.example.com:5") == ["[2001:db8::1]:5", "192.0.2.1:5"]


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        UnicodeError("label empty or too long"),
        OSError("odd"),
    ],
)
async def test_a_name_that_nobody_knows_is_named(names: dict[str, Any], error: Exception) -> None:
    names["nowhere.example"] = error

    with pytest.raises(TunnelError, match=r"^cannot resolve 'nowhere\.example': ."):
        await resolve_endpoint("nowhere.example:1")
