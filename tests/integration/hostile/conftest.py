"""A bad, huge, slow or hostile client costs the others nothing (promise 7), and leaves nothing behind.

Each test here does harm with a client that breaks rules. What must hold after any of it is in the `server` fixture: a
good client is served, the bad one's connection and its calls are gone, and no error was logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from discovery.client import DiscoveryClient
from tests.integration.hostile.harm import open_connections
from tests.integration.raw import RawConnection, raw_connection
from tests.integration.support import PATIENCE, Running, all_ended, running
from tests.support import MESH, registration


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running() as server, DiscoveryClient(server.url, timeout=PATIENCE) as good:
        await good.register_colony(registration())
        idle = asyncio.all_tasks()
        yield server
        assert (await good.lookup_colony(MESH)).registration == registration()
        await all_ended(asyncio.all_tasks() - idle)
        async with asyncio.timeout(PATIENCE):
            while len(open_connections(server)) > 1:  # the server has yet to hear of the end
                await good.health()


@pytest.fixture
async def bad(server: Running) -> AsyncIterator[RawConnection]:
    async with raw_connection(server.port) as connection:
        yield connection
