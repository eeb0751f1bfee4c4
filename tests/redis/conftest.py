from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from discovery.stores import open_store
from tests.loops import pytest_asyncio_loop_factories  # noqa: F401 - a hook
from tests.redis.servers import PATIENCE, Server, running
from tests.redis.support import Replica

Join = Callable[..., Replica]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server of the test's own, to do to it what it likes. What is acknowledged is on disk."""
    async with running("--appendonly", "yes", "--appendfsync", "always") as started:
        yield started


@pytest.fixture
async def join() -> AsyncIterator[Join]:
    """Adds a replica to the service on the servers that a URL names."""
    async with AsyncExitStack() as stack:

        def _join(url: str, timeout: float = PATIENCE, prefix: str = "test") -> Replica:
            store = open_store(f"{url}?timeout={timeout}", prefix=prefix)
            stack.push_async_callback(store.close)
            return Replica(store)

        yield _join
