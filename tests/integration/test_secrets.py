"""An API key is nowhere but in the call that brings it, wherever its client puts it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from grpclib.client import Channel
from prometheus_client import generate_latest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from discovery._gen.coral.discovery.admin.v1 import (
    AdminServiceStub,
    InspectRequest,
    ListRegistrationsRequest,
    StatsRequest,
)
from discovery.auth import Role, create_key
from discovery.client import DiscoveryClient
from discovery.clock import SystemClock
from discovery.errors import DiscoveryError
from tests.integration.support import LOOPBACK, PATIENCE, Running, running
from tests.support import KEY, MESH, registration

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from discovery import server as server_module
from discovery.tracing import Tracing

SERVICE = "/coral.discovery.v1.DiscoveryService"
WRONG = "coral_" + "w" * 43
SECRET_PART = 20
"""Characters of a secret that must not be anywhere."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A server of which everything that it writes down is kept, and the keys that its callers have."""

    server: Running
    exporter: InMemorySpanExporter
    audit: Path
    secrets: Mapping[str, str]

    def every_secret(self) -> Iterator[str]:
        yield from (*self.secrets.values(), WRONG)

    async def all_that_is_written(self) -> str:
        """Return spans, log lines, metrics, the audit log, and all that an administrator can see."""
        spans = [span.to_json() for span in self.exporter.get_finished_spans()]
        admin_port = self.server.server.admin_port
        channel = Channel(LOOPBACK, admin_port)
        try:
            stub = AdminServiceStub(channel, timeout=PATIENCE)
            names = (MESH, *self.every_secret())
            seen = [
                await stub.list_registrations(ListRegistrationsRequest()),
                await stub.list_registrations(ListRegistrationsRequest(agents=True)),
                await stub.stats(StatsRequest()),
                *[(await stub.inspect(InspectRequest(name))).events for name in names],
            ]
        finally:
            channel.close()
        metrics = generate_latest(self.server.server._metrics.registry).decode()
        return repr((spans, self.server.log.entries, metrics, self.audit.read_text(), seen))


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(server_module, "_open_tracing", lambda: Tracing(provider))
    file, now = tmp_path / "keys.yaml", SystemClock().now()
    secrets = {
        name: create_key(file, name, roles, ["mesh-*"], now=now)
        for name, roles in {"both": [Role.REGISTER, Role.LOOKUP], "reader": [Role.LOOKUP]}.items()
    }
    async with running(
        tracing=True,
        auth="keys",
        keys_file=file,
        audit_log=str(tmp_path / "audit"),
        admin_listen=f"{LOOPBACK}:0",
    ) as server:
        yield Watched(server, exporter, tmp_path / "audit", secrets)


async def call_over_grpc(watched: Watched, key: str, misplaced: str) -> list[str]:
    """Make every kind of call with `key`, and `misplaced` where it does not belong; return the errors."""
    errors = []
    async with DiscoveryClient(watched.server.url, api_key=key, timeout=PATIENCE) as client:
        for call in (
            client.register_colony(registration()),
            client.register_colony(registration(mesh_id=misplaced)),
            client.register_colony(registration(pubkey=misplaced)),
            client.register_colony(registration(endpoints=(misplaced,))),
            client.register_agent(registration(agent_id=misplaced)),
            client.lookup_colony(MESH),
            client.lookup_colony(misplaced),
            client.lookup_agent(MESH, misplaced),
            anext(client.list_agents(misplaced)),
            anext(client.watch_colony(misplaced)),
            client.deregister_colony(misplaced, KEY),
        ):
            try:
                await call
            except DiscoveryError as error:
                errors.append(repr((error, vars(error))))
    return errors


async def call_over_http(watched: Watched, key: str, misplaced: str) -> list[str]:
    bearer = {"authorization": f"Bearer {key}"}
    body = {"mesh_id": misplaced, "pubkey": misplaced, "endpoints": [misplaced]}
    async with httpx.AsyncClient(
        base_url=watched.server.url, headers=bearer, timeout=PATIENCE
    ) as http:
        answers = [
            await http.post("/v1/colony/register", json=body),
            await http.get(f"/v1/colony/lookup/{quote(misplaced)}"),
            await http.post(f"{SERVICE}/RegisterColony", json=body),
            await http.post(f"{SERVICE}/LookupColony", json={"meshId": misplaced}),
            await http.post(f"{SERVICE}/{misplaced}", json={}),
            await http.get(f"/{misplaced}", params={"key": misplaced}),
            await http.get(f"/v1/{misplaced}/x"),
        ]
    return [answer.text for answer in answers]


async def call_over_websocket(watched: Watched, key: str, misplaced: str) -> list[str]:
    url = f"ws://{LOOPBACK}:{watched.server.port}/v1/colony/watch/{misplaced}"
    with suppress(ConnectionClosed):
        async with connect(url, additional_headers={"authorization": f"Bearer {key}"}) as socket:
            return [str(await socket.recv())]
    return []


@pytest.mark.parametrize("name", ["both", "reader", "wrong", "malformed", "none"])
async def test_a_key_is_nowhere_wherever_its_client_puts_it(watched: Watched, name: str) -> None:
    odd = {"wrong": WRONG, "malformed": f"{WRONG}, {WRONG}", "none": "none"}
    key = watched.secrets.get(name) or odd[name]
    misplaced = watched.secrets.get(name, WRONG)
    said = [
        text
        for call in (call_over_grpc, call_over_http, call_over_websocket)
        for text in await call(watched, key, misplaced)
    ]
    written = await watched.all_that_is_written()

    parts = [secret[6 : 6 + SECRET_PART] for secret in watched.every_secret()]
    assert not [text for text in said if any(part in text for part in parts)]
    assert not [part for part in parts if part in written]
    assert "LookupColony" in written


async def test_the_search_finds_what_is_there(watched: Watched) -> None:
    """A search that finds nothing says something only if it would."""
    async with DiscoveryClient(watched.server.url, api_key=watched.secrets["both"]) as client:
        await client.register_colony(registration())
        with pytest.raises(DiscoveryError):
            await client.register_colony(registration(mesh_id="elsewhere"))
    written = await watched.all_that_is_written()
    assert MESH in watched.audit.read_text()
    for name in ("both", "elsewhere", "coral_discovery", "rpc.method"):
        assert name in written
