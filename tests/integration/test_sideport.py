"""The side port of a running server: what operators read there, and when it answers."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from structlog.testing import LogCapture

from discovery.client import DiscoveryClient
from discovery.config import ServerSettings
from discovery.errors import ConfigError, DiscoveryError, StoreUnavailableError
from discovery.server import DiscoveryServer
from discovery.sideport import Check, SidePort, application
from discovery.stores.memory import MemoryStore
from discovery.transport.binding import bind
from discovery.transport.bounds import Bounds
from tests.docs.markdown import tables
from tests.integration.raw import raw_socket
from tests.integration.support import (
    LOOPBACK,
    PATIENCE,
    Running,
    capturing_logger,
    run_command,
    running,
    server_process,
)
from tests.support import MESH, OTHER_KEY, registration

read_openmetrics: Any = openmetrics.text_string_to_metric_families  # it has no types
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PATHS = ("/metrics", "/healthz", "/readyz")


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that stays free for the server that is told of it: bound meanwhile, and not listened on."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, 0))
        yield holder.getsockname()[1]


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as holder:
        yield holder.getsockname()[1]


@dataclass(frozen=True, slots=True)
class Operated:
    """A server, and a client of its side port."""

    running: Running
    http: httpx.AsyncClient

    @property
    def server(self) -> DiscoveryServer:
        return self.running.server

    @property
    def side_port(self) -> int:
        return self.http.base_url.port or 0

    async def readiness(self) -> tuple[int, Any]:
        answer = await self.http.get("/readyz")
        return answer.status_code, answer.json()

    async def samples(self) -> Mapping[tuple[str, frozenset[str]], float]:
        """Return what every series is at, by its name and its labels' values."""
        families = read_text((await self.http.get("/metrics")).text)
        return {
            (sample.name, frozenset(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    async def value(self, name: str, *labels: str) -> float:
        return (await self.samples())[f"coral_discovery_{name}", frozenset(labels)]


@asynccontextmanager
async def operated(**settings: Any) -> AsyncIterator[Operated]:
    with reserved_port() as port:
        async with running(metrics_port=port, **settings) as server, side_client(port) as http:
            yield Operated(server, http)


def side_client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", timeout=PATIENCE)


@pytest.fixture
async def operator() -> AsyncIterator[Operated]:
    async with operated() as operator:
        yield operator


@pytest.fixture
def server(operator: Operated) -> Running:
    """The same server, for the fixtures that call it."""
    return operator.running


async def use(client: DiscoveryClient, server: Running) -> None:
    """Have everything happen that is counted: leases that fare in every way, lookups of both kinds, a watch."""
    await client.register_colony(registration())
    await client.register_colony(registration())
    await refused(client.register_colony(registration(pubkey=OTHER_KEY)))
    await client.lookup_colony(MESH)
    async with aclosing(client.watch_colony(MESH)) as states:
        await anext(states)
    server.clock.advance(300)
    await refused(client.lookup_colony(MESH))
    await client.register_colony(registration())
    await client.deregister_colony(MESH, registration().pubkey)
    await client.health()


async def refused(call: Any) -> None:
    with pytest.raises(DiscoveryError):
        await call


# -- What is counted ------------------------------------------------------------------------------


async def test_calls_of_every_protocol_are_counted(
    operator: Operated, client: DiscoveryClient
) -> None:
    await client.health()
    async with httpx.AsyncClient(base_url=operator.running.url) as http:
        await http.get("/health")
        await http.post("/coral.discovery.v1.DiscoveryService/Health", json={})
        await http.get("/v1/colony/lookup/nobody")

    samples = await operator.samples()
    for protocol in ("grpc", "rest", "connect"):
        assert samples["coral_discovery_requests_total", frozenset(("Health", protocol, "OK"))] == 1
    missed = frozenset(("LookupColony", "rest", "NOT_FOUND"))
    assert samples["coral_discovery_requests_total", missed] == 1
    assert samples["coral_discovery_request_duration_seconds_count", frozenset(("Health",))] == 3


async def test_a_watch_is_counted_while_it_lasts(
    operator: Operated, client: DiscoveryClient
) -> None:
    await client.register_colony(registration())
    async with aclosing(client.watch_colony(MESH)) as states:
        await anext(states)
        await client.register_colony(registration(endpoints=("203.0.113.6:1",)))
        await anext(states)
        await client.register_colony(registration(endpoints=("203.0.113.7:1",)))
        await anext(states)

        assert await operator.value("watch_streams", "WatchColony") == 1
        # The third may not have been asked for more yet, but it was read, so the second was sent.
        assert await operator.value("watch_deliveries_total", "WatchColony") >= 2


async def test_leases_and_lookups_are_counted(operator: Operated, client: DiscoveryClient) -> None:
    await use(client, operator.running)
    await operator.server._sweep()

    for event in ("renewed", "conflicted", "expired", "released"):
        assert await operator.value("leases_total", event) == 1, event
    assert await operator.value("leases_total", "granted") == 2
    assert await operator.value("lookups_total", "found") == 1
    assert await operator.value("lookups_total", "missed") == 1


async def test_the_number_of_colonies_is_there_from_the_start_and_renewed_at_each_cleanup(
    operator: Operated, client: DiscoveryClient
) -> None:
    assert await operator.value("registrations", "colony") == 0
    await client.register_colony(registration())
    await operator.server._sweep()
    assert await operator.value("registrations", "colony") == 1


async def test_connections_are_counted_while_they_last(
    operator: Operated, client: DiscoveryClient
) -> None:
    await client.health()
    async with raw_socket(operator.running.port), httpx.AsyncClient() as http:
        await http.get(f"{operator.running.url}/health")

        assert await operator.value("connections", "http/2") == 1
        assert await operator.value("connections", "http/1.1") == 1
        assert await operator.value("connections", "undecided") == 1
        assert await operator.value("connections", "websocket") == 0


async def test_connections_that_are_turned_away_are_counted() -> None:
    async with operated(max_connections=1) as operator:
        assert await operator.value("connections_refused_total") == 0
        async with raw_socket(operator.running.port):
            with suppress(ConnectionResetError):
                async with raw_socket(operator.running.port) as (late, _):
                    assert await late.read() == b""
        assert await operator.value("connections_refused_total") == 1


async def test_the_end_of_the_certificate_is_told(tmp_path: Path) -> None:
    end = datetime(2049, 12, 31, tzinfo=UTC)
    leaf = trustme.CA().issue_cert("localhost", not_after=end)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(str(cert))
    leaf.private_key_pem.write_to_path(str(key))
    async with operated(tls_cert=cert, tls_key=key) as operator:
        told = await operator.value("tls_certificate_expiration_timestamp_seconds")
    assert told == end.timestamp()


# -- The documentation ----------------------------------------------------------------------------

HEAD = ("metric", "type", "labels", "meaning", "worth an alert")


def documented() -> set[tuple[str, str, frozenset[str]]]:
    return {
        (row[0].strip("`"), row[1], frozenset(filter(None, row[2].split(", "))))
        for row in tables("docs/metrics.md", *HEAD)
    }


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells more of a process")
async def test_the_documentation_lists_what_is_served_and_nothing_else(
    operator: Operated, client: DiscoveryClient
) -> None:
    await use(client, operator.running)

    families = list(read_text((await operator.http.get("/metrics")).text))
    served = {
        (
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            frozenset(label for s in family.samples for label in s.labels if label != "le"),
        )
        for family in families
    }
    only_with_tls = ("coral_discovery_tls_certificate_expiration_timestamp_seconds", "gauge")
    assert served | {(*only_with_tls, frozenset())} == documented()


async def test_the_documentation_lists_the_labels_values(
    operator: Operated, client: DiscoveryClient
) -> None:
    await use(client, operator.running)
    unbounded = {"le", "status", "version"}
    known = {
        (label, value)
        for _, label, values in tables("docs/metrics.md", "metrics", "label", "values")
        for value in re.findall(r"[A-Za-z][\w./]*", values)
    }

    for family in read_text((await operator.http.get("/metrics")).text):
        for sample in family.samples if family.name.startswith("coral_discovery_") else ():
            labels = {pair for pair in sample.labels.items() if pair[0] not in unbounded}
            assert not labels - known, sample.name


def test_each_metric_is_explained() -> None:
    for row in tables("docs/metrics.md", *HEAD):
        assert row[3], row[0]


# -- How it is served -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain", "text/plain;version=0.0.4", "application/json", "x" * 999]
)
async def test_prometheus_text_is_the_default(operator: Operated, accept: str) -> None:
    answer = await operator.http.get("/metrics", headers={"accept": accept})

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "coral_discovery_build_info" in {family.name for family in read_text(answer.text)}


async def test_openmetrics_is_served_where_it_is_asked_for(operator: Operated) -> None:
    headers = {"accept": f"{OPENMETRICS},text/plain;version=0.0.4;q=0.5"}
    answer = await operator.http.get("/metrics", headers=headers)

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.headers["vary"] == "accept, accept-encoding"
    assert answer.text.endswith("# EOF\n")
    assert "coral_discovery_build" in {family.name for family in read_openmetrics(answer.text)}


@pytest.mark.parametrize("version", ["x", "1.x", "1..0", "-1", "", "=", "9" * 999])
async def test_a_version_that_is_none_does_no_harm(operator: Operated, version: str) -> None:
    for kind in ("application/openmetrics-text", "text/plain"):
        answer = await operator.http.get(
            "/metrics", headers={"accept": f"{kind};version={version}"}
        )

        assert answer.status_code == 200


async def test_the_metrics_are_compressed_where_that_is_accepted(operator: Operated) -> None:
    async with operator.http.stream("GET", "/metrics", headers={"accept-encoding": "gzip"}) as it:
        packed = b"".join([piece async for piece in it.aiter_raw()])
    plain = await operator.http.get("/metrics", headers={"accept-encoding": "identity"})

    assert it.headers["content-encoding"] == "gzip"
    assert b"coral_discovery_build_info" in gzip.decompress(packed)
    assert "content-encoding" not in plain.headers
    assert len(packed) * 5 < len(plain.content)


@pytest.mark.parametrize("path", PATHS)
async def test_head_is_answered_without_a_body(operator: Operated, path: str) -> None:
    answer = await operator.http.head(path)

    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/", 404),
        ("GET", "/metrics/x", 404),
        ("GET", "/v1/colony/lookup/mesh-1", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/readyz", 405),
    ],
)
async def test_anything_else_is_refused_in_json(
    operator: Operated, method: str, path: str, status: int
) -> None:
    answer = await operator.http.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert "/metrics" in answer.json()["error"]


async def test_the_public_port_serves_none_of_it(operator: Operated) -> None:
    async with httpx.AsyncClient(base_url=operator.running.url) as http:
        for path in PATHS:
            assert (await http.get(path)).status_code == 404


# -- Health ---------------------------------------------------------------------------------------


async def test_a_server_that_serves_is_alive_and_ready(operator: Operated) -> None:
    assert (await operator.http.get("/healthz")).json() == {"alive": True}
    assert await operator.readiness() == (
        200,
        {"ready": True, "checks": {"serving": "ok", "store": "ok"}},
    )


async def test_without_its_store_it_is_alive_and_not_ready_until_the_store_is_back(
    operator: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: MemoryStore, **named: Any) -> int:
        raise StoreUnavailableError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "count", away)
        not_ready = {"ready": False, "checks": {"serving": "ok", "store": "the store is away"}}
        assert await operator.readiness() == (503, not_ready)
        assert (await operator.http.get("/healthz")).status_code == 200
    assert (await operator.readiness())[0] == 200


async def test_while_it_drains_it_says_so_and_closes_last() -> None:
    async with operated(drain_timeout=PATIENCE) as operator:
        with operator.server._gate.admit():
            stopping = asyncio.create_task(operator.server.stop())
            await asyncio.sleep(0)
            status, answer = await operator.readiness()
            alive = await operator.http.get("/healthz")
            counted = await operator.http.get("/metrics")
        await stopping

        assert (status, list(answer["checks"])) == (503, ["serving"])
        assert "stopping" in answer["checks"]["serving"]
        assert (alive.status_code, counted.status_code) == (200, 200)
        with pytest.raises(httpx.ConnectError):
            await operator.readiness()


@asynccontextmanager
async def served(bounds: Bounds | None = None, **checks: Check) -> AsyncIterator[httpx.AsyncClient]:
    """A side port by itself, with the checks and bounds that a test gives it."""
    side = SidePort(CollectorRegistry, checks, capturing_logger(LogCapture()), bounds)
    listening = bind(LOOPBACK, 0)
    side.start(listening)
    async with side_client(listening.getsockname()[1]) as http:
        yield http
    await side.stop()


async def well() -> None:
    pass


async def ill() -> None:
    raise StoreUnavailableError("it is ill")


async def silent() -> None:
    await asyncio.Event().wait()


async def test_the_first_check_that_fails_ends_the_round() -> None:
    async def never_asked() -> None:
        raise AssertionError

    async with served(first=well, second=ill, third=never_asked) as http:
        answer = await http.get("/readyz")

    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": {"first": "ok", "second": "it is ill"}}


async def test_a_check_that_does_not_answer_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "CHECK_TIMEOUT", 0.01)
    async with served(store=silent) as http:
        answer = await http.get("/readyz")

    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": {"store": "no answer within 0.01 s"}}


# -- Slow clients ---------------------------------------------------------------------------------


async def test_a_client_that_stalls_keeps_nobody_waiting_and_is_sent_away() -> None:
    bounds = Bounds(request_seconds=0.2)
    async with served(bounds) as http, raw_socket(http.base_url.port or 0) as (reader, writer):
        writer.write(b"GET /metrics HTTP/1.1\r\nhost:")
        await writer.drain()
        assert (await http.get("/metrics")).status_code == 200

        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).startswith(b"HTTP/1.1 408")


async def test_a_stop_waits_for_no_client_that_stalls() -> None:
    async with operated() as operator, raw_socket(operator.side_port) as (reader, writer):
        writer.write(b"GET /metrics HTTP/1.1\r\nhost:")
        await writer.drain()
        await operator.http.get("/healthz")
        async with asyncio.timeout(PATIENCE):
            await operator.server.stop()
            with suppress(ConnectionError):
                assert await reader.read() == b""


# -- Starting -------------------------------------------------------------------------------------


async def test_a_taken_side_port_keeps_the_server_from_starting() -> None:
    with taken_port() as taken, reserved_port() as public:
        settings = ServerSettings(host=LOOPBACK, port=public, metrics_port=taken)
        server = DiscoveryServer(settings, capturing_logger(LogCapture()))
        with pytest.raises(ConfigError, match=f"port {taken} is already in use.*--metrics-port"):
            await server.start()

        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection(LOOPBACK, public)


async def test_a_taken_public_port_closes_the_side_port_again() -> None:
    with taken_port() as taken, reserved_port() as side:
        settings = ServerSettings(host=LOOPBACK, port=taken, metrics_port=side)
        server = DiscoveryServer(settings, capturing_logger(LogCapture()))
        with pytest.raises(ConfigError, match=f"port {taken} is already in use.*--port"):
            await server.start()

        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection(LOOPBACK, side)


async def test_the_side_port_can_be_off() -> None:
    async with running(metrics_port=0) as off:
        assert off.server._side_port._acceptor._listening is None


def test_the_command_says_on_one_line_that_the_side_port_is_taken() -> None:
    with taken_port() as taken:
        ended = run_command("--host", LOOPBACK, "--port", "0", "--metrics-port", str(taken))

    assert ended.returncode == 2
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"coral-discovery: port {taken} is already in use")


async def test_the_command_serves_it(tmp_path: Path) -> None:
    with (
        reserved_port() as port,
        server_process(tmp_path, "--metrics-port", str(port)),
    ):
        async with side_client(port) as http:
            assert (await http.get("/readyz")).status_code == 200
            assert "process_start_time_seconds" in (await http.get("/metrics")).text


async def test_a_port_that_nobody_asked_for_and_that_is_taken_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def all_taken_but_the_public_one(
        host: str, port: int, flag: str = "--port", *, shared: bool = False
    ) -> socket.socket:
        if flag == "--metrics-port":
            raise ConfigError("taken")
        return bind(host, port, flag, shared=shared)

    monkeypatch.setattr("discovery.server.bind", all_taken_but_the_public_one)
    log = LogCapture()
    server = DiscoveryServer(ServerSettings(host=LOOPBACK, port=0), capturing_logger(log))
    await server.start()
    await server.stop()

    assert any(entry["event"] == "serving without metrics" for entry in log.entries)
