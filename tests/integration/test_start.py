"""What a server loads before it answers, and what no later call waits for; a stopwatch would measure the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from tests.integration.support import PATIENCE, clean_environment

PROGRAM = """
import asyncio, json, sys
from threading import current_thread, main_thread

import discovery.cli.server
from discovery.config import ServerSettings
from discovery.server import DiscoveryServer
from structlog import get_logger

SETTINGS = ServerSettings(host="127.0.0.1", port=0, metrics_port=0, admin_listen="127.0.0.1:0")
HEALTH = "/coral.discovery.v1.DiscoveryService/Health"
REQUESTS = {
    "GET /health": {},
    "GET /nowhere": {},
    "GET /v1/colony/lookup/mesh": {},
    f"POST {HEALTH}": {"content-type": "application/proto"},
    f"GET {HEALTH}?connect=v1&encoding=json&message=%7B%7D": {},
    "GET /v1/colony/watch/mesh": {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    },
}


async def status(port, asked, headers):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = {"host": "localhost", "content-length": "0", **headers}
    lines = [f"{asked} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    writer.write("\\r\\n".join(lines).encode())
    answer = await reader.readuntil(b"\\r\\n\\r\\n")
    writer.close()
    return int(answer.split()[1])


class Importers:
    names = []

    def find_spec(self, name, path=None, target=None):
        if current_thread() is main_thread():
            self.names.append(name)


async def main():
    server = DiscoveryServer(SETTINGS, get_logger())
    await server.start()
    from discovery.client import DiscoveryClient

    async with DiscoveryClient(f"http://127.0.0.1:{server.port}") as client:
        await client.health()
    first = set(sys.modules)
    sys.meta_path.insert(0, Importers())
    await server.warm_up()
    in_the_way = list(Importers.names)
    warm = set(sys.modules)
    statuses = [await status(server.port, *request) for request in REQUESTS.items()]
    later = set(sys.modules) - warm - {""}  # websockets looks up its lazy names so
    await server.stop()
    found = {"first": sorted(first), "later": sorted(later), "statuses": statuses}
    print(json.dumps({**found, "in_the_way": in_the_way}))


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def loaded() -> Mapping[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    found: Mapping[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def test_the_first_grpc_call_is_answered_before_what_only_others_need_is_loaded(
    loaded: Mapping[str, Any],
) -> None:
    packages = {name.partition(".")[0] for name in loaded["first"]}
    assert {"discovery", "grpclib", "h2"} <= packages
    http = {
        "connectrpc",
        "connectrpc_grpcreflect",
        "protobuf",
        "starlette",
        "uvicorn",
        "websockets",
    }
    others = {"cryptography", "limits", "opentelemetry", "redis", "yaml"}
    assert not packages & (http | others)


def test_calls_are_answered_while_the_rest_is_loaded(loaded: Mapping[str, Any]) -> None:
    packages = {name.partition(".")[0] for name in loaded["in_the_way"]}
    assert packages <= sys.stdlib_module_names


def test_no_call_waits_for_an_import_once_the_server_is_warm(
    loaded: Mapping[str, Any],
) -> None:
    assert loaded["statuses"] == [200, 404, 404, 200, 200, 101]
    assert loaded["later"] == []
