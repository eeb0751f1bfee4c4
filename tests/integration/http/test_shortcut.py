"""A short cut changes nothing but the time it takes: with it and without, every byte of every answer is the same.

Each test sends the same to two servers, one with and one without it. What both say is compared, and what both counted
and logged. Times are left out, and what a server draws by chance.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import betterproto
import httptools
import pytest
from prometheus_client import generate_latest

from discovery._gen.coral.discovery import v1 as pb
from discovery.auth import Role, create_key
from discovery.clock import SystemClock
from discovery.errors import DiscoveryError
from discovery.ratelimits import RateLimiter
from discovery.stores.memory import MemoryStore
from discovery.transport import calming
from discovery.transport.connect_shortcut import ConnectShortCut, refusal
from tests.integration.raw import raw_socket
from tests.integration.support import LOOPBACK, PATIENCE, Running, running
from tests.support import KEY, MESH, OTHER_KEY

SERVICE = "/coral.discovery.v1.DiscoveryService"
ENDPOINTS = ["203.0.113.5:41820"]
# By name, in an order in which they make sense.
MESSAGES: Mapping[str, betterproto.Message] = {
    "RegisterColony": pb.RegisterColonyRequest(
        MESH, KEY, ENDPOINTS, metadata={"region": "eu-\xe9"}
    ),
    "LookupColony": pb.LookupColonyRequest(MESH),
    "RegisterAgent": pb.RegisterAgentRequest(
        mesh_id=MESH, agent_id="api", pubkey=OTHER_KEY, endpoints=ENDPOINTS
    ),
    "LookupAgent": pb.LookupAgentRequest(MESH, "api"),
    "ListAgents": pb.ListAgentsRequest(MESH),
    "DeregisterAgent": pb.DeregisterAgentRequest(MESH, "api", OTHER_KEY),
    "DeregisterColony": pb.DeregisterColonyRequest(MESH, KEY),
    "Health": pb.HealthRequest(),
}


def post(path: str, body: bytes, *lines: str, kind: str = "json") -> bytes:
    head = (
        f"POST {path} HTTP/1.1",
        "host: localhost",
        f"content-type: application/{kind}",
        f"content-length: {len(body)}",
        *lines,
    )
    return "".join(f"{line}\r\n" for line in (*head, "")).encode("latin-1") + body


def call(rpc: str, message: betterproto.Message, *lines: str, kind: str = "json") -> bytes:
    body = bytes(message) if kind == "proto" else message.to_json().encode()
    return post(f"{SERVICE}/{rpc}", body, *lines, kind=kind)


def usual(rpc: str, *lines: str, kind: str = "json") -> bytes:
    return call(rpc, MESSAGES[rpc], *lines, kind=kind)


HEALTH = usual("Health")


# -- Two servers ----------------------------------------------------------------------------------


class Answers:
    """The answers that have come over a connection."""

    def __init__(self) -> None:
        self.data = b""
        self.count = 0
        self._parser = httptools.HttpResponseParser(self)

    def add(self, data: bytes) -> None:
        self.data += data
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.count += self._parser.get_status_code() != 100


async def exchange(port: int, requests: Sequence[bytes | Sequence[bytes]]) -> Answers:
    """Make requests over one connection, each after the answer to the one before. One may be in several segments.

    Ends early if the server does.
    """
    answers = Answers()
    async with raw_socket(port) as (reader, writer), asyncio.timeout(PATIENCE):
        for number, request in enumerate(requests, 1):
            for segment in [request] if isinstance(request, bytes) else request:
                writer.write(segment)
                await writer.drain()
                await asyncio.sleep(0)
            while answers.count < number:
                if not (data := await reader.read(65536)):
                    return answers
                answers.add(data)
    return answers


# The date, and what gzip notes of the time.
_BY_TIME = re.compile(rb"(?<=\r\ndate: )[^\r]+|(?<=\x1f\x8b\x08\0)[\s\S]{4}")


@dataclass(frozen=True, slots=True)
class Both:
    """Two servers, and the calls that took the short cut of the first."""

    fast: Running
    general: Running
    short: list[str] = field(default_factory=list)
    refused: list[DiscoveryError] = field(default_factory=list)

    async def same(self, *requests: bytes | Sequence[bytes]) -> bytes:
        """Return what both answered."""
        fast, general = [
            _BY_TIME.sub(b"-", (await exchange(server.port, requests)).data)
            for server in (self.fast, self.general)
        ]
        assert fast == general
        return fast

    def assert_they_saw_the_same(self) -> None:
        seen = [[*_without_times(server.requests())] for server in (self.fast, self.general)]
        assert seen[0] == seen[1]
        counted = [_counts(server) for server in (self.fast, self.general)]
        assert counted[0] == counted[1]


def _without_times(lines: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        yield {name: value for name, value in line.items() if name != "ms"}


def _counts(server: Running) -> Sequence[str]:
    lines = generate_latest(server.server._metrics.registry).decode().splitlines()
    timed = re.compile(r"process_|python_|.*(_sum|_bucket|_created|connections)\b")
    return [line for line in lines if line.startswith("coral") and not timed.match(line)]


@asynccontextmanager
async def both(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Both]:
    monkeypatch.setattr("random.random", lambda: 0.5)
    monkeypatch.setattr(RateLimiter.__init__, "__defaults__", (random.random,))
    async with (
        running(**settings, fast_path=True) as fast,
        running(**settings, fast_path=False) as general,
    ):
        pair = Both(fast, general)
        begin = ConnectShortCut.begin

        def counting(self: Any, asked: Any) -> Any:
            pair.short.append(asked.head.rpc.name)
            return begin(self, asked)

        def noting(head: Any, error: DiscoveryError) -> bytes:
            pair.refused.append(error)
            return refusal(head, error)

        monkeypatch.setattr(ConnectShortCut, "begin", counting)
        monkeypatch.setattr("discovery.transport.connect_shortcut.refusal", noting)
        yield pair
        pair.assert_they_saw_the_same()


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Both]:
    async with both(monkeypatch) as pair:
        yield pair


@pytest.fixture(params=[False, True], ids=["at once", "after a wait"])
def store_waits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the store answer at once or, as one beyond a network does, in another turn of the loop."""
    if not request.param:
        return
    for name in ("register", "lookup", "deregister", "agents", "count"):
        monkeypatch.setattr(MemoryStore, name, _after_a_wait(getattr(MemoryStore, name)))


def _after_a_wait(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def waiting(*arguments: Any, **named: Any) -> Any:
        await asyncio.sleep(0)
        return await method(*arguments, **named)

    return waiting


# -- Calls ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("store_waits")
@pytest.mark.parametrize("kind", ["json", "proto"])
@pytest.mark.parametrize("lines", [(), ("accept-encoding: gzip",)], ids=["plain", "gzip"])
async def test_every_method_over_one_connection(
    pair: Both, kind: str, lines: tuple[str, ...]
) -> None:
    said = await pair.same(*(usual(rpc, *lines, kind=kind) for rpc in MESSAGES))

    assert said.count(b"HTTP/1.1 200 OK") == len(MESSAGES)
    assert pair.short == list(MESSAGES)


@pytest.mark.usefixtures("store_waits")
async def test_requests_that_come_again(pair: Both) -> None:
    register, one, other = (
        usual("RegisterColony"),
        usual("LookupColony"),
        usual("LookupColony").replace(MESH.encode(), b"x" * len(MESH)),
    )
    said = await pair.same(register, register, one, one, other, other, one, register, HEALTH)

    assert said.count(b"HTTP/1.1 200 OK") == 7
    assert said.count(b"HTTP/1.1 404 Not Found") == 2
    assert len(pair.short) == 9


ERRORS = {
    "not found": call("LookupColony", pb.LookupColonyRequest("nobody")),
    "invalid": call("RegisterColony", pb.RegisterColonyRequest("-", "short")),
    "taken": call("RegisterColony", pb.RegisterColonyRequest(MESH, OTHER_KEY, ENDPOINTS)),
    "no JSON": post(f"{SERVICE}/LookupColony", b"{"),
    "another JSON": post(f"{SERVICE}/LookupColony", b"[]"),
    "no body": post(f"{SERVICE}/LookupColony", b""),
    "no message": post(f"{SERVICE}/LookupColony", b"\xff\xff", kind="proto"),
}


@pytest.mark.usefixtures("store_waits")
@pytest.mark.parametrize("request_", ERRORS.values(), ids=ERRORS)
async def test_what_goes_wrong_is_carried_out_once(pair: Both, request_: bytes) -> None:
    said = await pair.same(usual("RegisterColony"), request_, HEALTH)

    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert len(pair.short) == 3
    assert len(pair.refused) == 1


OTHERS = {
    "another method": post(f"{SERVICE}/RegisterRelay", b"{}"),
    "a later version": usual("Health", "connect-protocol-version: 2"),
    "no timeout": usual("Health", "connect-timeout-ms: abc"),
    "packed in an unknown way": usual("Health", "content-encoding: br"),
    "another content type": post(f"{SERVICE}/Health", b"{}", kind="xml"),
    "gRPC": post(f"{SERVICE}/Health", b"{}", kind="grpc"),
    "too large": post(f"{SERVICE}/RegisterColony", b" " * 1024 * 1024),
    "large": post(f"{SERVICE}/LookupColony", json.dumps({"meshId": MESH, "x": "y" * 50_000}).encode()),
    "GET": f"GET {SERVICE}/Health?connect=v1&encoding=json&message=%7B%7D HTTP/1.1\r\n\r\n".encode(),
    "REST": b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n",
    "chunks": HEALTH.replace(b"content-length: 2", b"transfer-encoding: chunked").replace(
        b"{}", b"2\r\n{}\r\n0\r\n\r\n"
    ),
    "a page": usual("Health", "origin: https://example.com"),
    "expect": usual("Health", "expect: 100-continue"),
}  # fmt: skip


@pytest.mark.parametrize("request_", OTHERS.values(), ids=OTHERS)
async def test_whatever_else_comes_between(pair: Both, request_: bytes) -> None:
    await pair.same(HEALTH, request_, HEALTH, HEALTH)

    assert "Health" in pair.short


HEADERS = (
    "accept-encoding: gzip, br",
    "accept-encoding: br,  gzip",
    "accept-encoding: identity, gzip",
    "accept-encoding: gzip;q=1",
    "accept-encoding: *",
    "connect-protocol-version: 1",
    "connect-timeout-ms: 5000",
    "content-encoding: identity",
    "authorization: Bearer coral_x",
    "x-forwarded-for: 198.51.100.7",
    "forwarded: for=198.51.100.7",
    "cookie: a=b",
    "user-agent: a (b; c)",
    "connection: keep-alive",
    "keep-alive: timeout=5",
    "te: trailers",
    "X-UPPER: a",
    "x_y: a",
)


@pytest.mark.parametrize("line", HEADERS)
@pytest.mark.parametrize(
    "settings", [{}, {"trusted_proxy": (f"{LOOPBACK}/32",)}], ids=["", "proxy"]
)
async def test_headers_that_matter(
    monkeypatch: pytest.MonkeyPatch, line: str, settings: Mapping[str, Any]
) -> None:
    async with both(monkeypatch, **settings) as pair:
        await pair.same(usual("RegisterColony", line), usual("LookupColony", line))
        assert (not pair.short) == (line == "content-encoding: identity")


async def test_where_pages_may_call_no_call_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both(monkeypatch, cors_origin=("https://example.com",)) as pair:
        said = await pair.same(HEALTH, usual("Health", "origin: https://example.com"), HEALTH)
        assert not pair.short
    assert said.count(b"access-control-allow-origin") == 1


async def test_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    now = SystemClock().now()
    secret = create_key(file, "one", (Role.LOOKUP,), ("*",), now=now, expires_at_us=None)
    async with both(monkeypatch, auth="keys", keys_file=file) as pair:
        said = await pair.same(
            usual("LookupColony"),
            usual("LookupColony", f"authorization: Bearer {secret}"),
            usual("RegisterColony", f"authorization: Bearer {secret}"),
            HEALTH,
        )
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"401", b"404", b"403", b"200"]


async def test_a_flood_is_told_and_then_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calming, "PAUSE", 0.01)
    async with both(monkeypatch, rate_limit=("address:LookupColony=1/minute",)) as pair:
        said = await pair.same(*[usual("LookupColony")] * 4, HEALTH)
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"404", b"429", b"429", b"429", b"200"]


# -- Connections ----------------------------------------------------------------------------------


async def test_a_request_in_two_segments_wherever_it_is_cut(pair: Both) -> None:
    lookup = usual("LookupColony")

    said = await pair.same(
        usual("RegisterColony"),
        *((lookup[:cut], lookup[cut:]) for cut in range(1, len(lookup))),
        lookup,
    )

    assert said.count(b"HTTP/1.1 200 OK") == len(lookup) + 1


async def test_a_request_in_single_bytes(pair: Both) -> None:
    await pair.same(HEALTH, [bytes([byte]) for byte in HEALTH], HEALTH)


@pytest.mark.usefixtures("store_waits")
@pytest.mark.parametrize(
    "requests", [(HEALTH, HEALTH), (HEALTH, OTHERS["REST"]), (HEALTH, b"\r\n")]
)
async def test_requests_sent_ahead(pair: Both, requests: tuple[bytes, ...]) -> None:
    said = []
    for server in (pair.fast, pair.general):
        async with raw_socket(server.port) as (reader, writer), asyncio.timeout(PATIENCE):
            writer.write(b"".join(requests) * 3)
            writer.write(usual("LookupColony", "connection: close"))
            said.append(_BY_TIME.sub(b"-", await reader.read()))
    assert said[0] == said[1]
    assert said[0].count(b"HTTP/1.1") == 3 * sum(len(each) > 2 for each in requests) + 1


@pytest.mark.parametrize("line", ["connection: close", "Connection: Close", "connection: upgrade"])
@pytest.mark.parametrize("kind", ["json", "proto"])
async def test_a_client_that_wants_the_connection_closed(pair: Both, line: str, kind: str) -> None:
    said = await pair.same(HEALTH, usual("Health", line, kind=kind), HEALTH)

    assert said.count(b"HTTP/1.1") == (3 if "upgrade" in line else 2)


@pytest.mark.parametrize("nothing", [b"\r\n", b"\r\n\r\n\r\n"])
async def test_what_is_no_request(pair: Both, nothing: bytes) -> None:
    await pair.same(HEALTH, [nothing, HEALTH], HEALTH)


@pytest.mark.parametrize("last", [b"rubbish\r\n\r\n", HEALTH.replace(b"1.1", b"1.0")])
async def test_what_ends_the_connection(pair: Both, last: bytes) -> None:
    # In one piece: what comes when it is closed makes a reset of it, which may overtake the answer.
    await pair.same(HEALTH, last + HEALTH, HEALTH)
