"""Requests of one hostile client, and what is left of them."""

from __future__ import annotations

from typing import Any

from tests.integration.raw import Answer, Header, RawConnection
from tests.integration.support import Running

OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 4, 8, 12, 13


async def ask(connection: RawConnection, message: bytes = b"", *more: Header) -> Answer:
    """Make a request of Health."""
    stream = connection.request("Health", message, *more)
    await connection.send()
    return await connection.answer(stream)


def open_connections(server: Running) -> set[Any]:
    """Return the connections that the server counts."""
    return set(server.server._listener._connections._open)
