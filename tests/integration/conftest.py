"""Servers and clients of the integration tests."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from discovery.client import DiscoveryClient
from tests.integration.grpcio_client import GrpcioClient, Schema, grpcio_client
from tests.integration.support import PATIENCE, Running, ServerProcess, running, server_process
from tests.loops import pytest_asyncio_loop_factories  # noqa: F401 - a hook


@pytest.fixture(autouse=True)
def _nothing_logged_as_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No client can make the server, asyncio or a library log an error: that is for defects."""
    yield
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert not [record.getMessage() for record in records if record.levelno >= logging.ERROR]


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return Schema.compiled(tmp_path_factory.mktemp("schema"))


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    """A server in the test's own loop."""
    async with running() as server:
        yield server


@pytest.fixture
async def client(server: Running) -> AsyncIterator[DiscoveryClient]:
    async with DiscoveryClient(server.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def threaded_server() -> Iterator[Running]:
    """A server in a loop and a thread of its own, for clients that block."""
    started: list[Running] = []
    ready, leave = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running() as server:
            started.append(server)
            ready.set()
            await asyncio.to_thread(leave.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield started[0]
    finally:
        leave.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def grpcio(schema: Schema, threaded_server: Running) -> Iterator[GrpcioClient]:
    with grpcio_client(schema, threaded_server.port) as client:
        yield client


@pytest.fixture
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server in a process of its own, with every setting at its default."""
    with server_process(tmp_path_factory.mktemp("server")) as process:
        yield process
