from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.admin import Address, AdminClient
from discovery.ctl.failures import ExitCode, exit_code, said
from discovery.ctl.listing import Wanted, print_list
from discovery.errors import (
    Code,
    ConfigError,
    DeadlineExceededError,
    DiscoveryError,
    DrainingError,
    InternalError,
    InvalidFieldError,
    MeshIdTakenError,
    NotRegisteredError,
    OtherError,
    PermissionDeniedError,
    ProofRequiredError,
    RateLimitedError,
    UnauthenticatedError,
    UnreachableError,
    Violation,
)
from tests.unit.ctl.support import HOSTILE, event, printed, printer, record

LOOPBACK = "127.0.0.1"


async def _no_stats() -> pb.StatsResponse:
    return pb.StatsResponse()


class FakeAdmin(pb.AdminServiceBase):
    """Answers with what a test gives it."""

    def __init__(self) -> None:
        self.pages: list[pb.ListRegistrationsResponse] = []
        self.tokens: list[str] = []
        self.on_stats: Callable[[], Awaitable[Any]] = _no_stats
        self.metadata: dict[str, Any] = {}
        self.ending: Exception | None = None

    async def list_registrations(
        self, list_registrations_request: pb.ListRegistrationsRequest
    ) -> pb.ListRegistrationsResponse:
        self.tokens.append(list_registrations_request.page_token)
        return self.pages[len(self.tokens) - 1]

    async def stats(self, stats_request: pb.StatsRequest) -> pb.StatsResponse:
        answer: pb.StatsResponse = await self.on_stats()
        return answer

    async def watch_events(
        self, watch_events_request: pb.WatchEventsRequest
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        yield pb.WatchEventsResponse(event("gone"), 2)
        if self.ending is not None:
            raise self.ending


class Rig:
    def __init__(self, service: FakeAdmin, port: int) -> None:
        self.service = service
        self.where = f"{LOOPBACK}:{port}"

    def client(self, timeout: float = 10, **kwargs: Any) -> AdminClient:
        return AdminClient(self.where, timeout=timeout, **kwargs)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    service = FakeAdmin()
    server = Server([service])

    async def received(request: RecvRequest) -> None:
        service.metadata = dict(request.metadata)

    listen(server, RecvRequest, received)
    listener = socket.create_server((LOOPBACK, 0))
    await server.start(sock=listener)
    yield Rig(service, listener.getsockname()[1])
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "text,address",
    [
        ("127.0.0.1:8081", Address("127.0.0.1", 8081)),
        ("[::1]:9", Address("::1", 9)),
        ("admin.example.com", Address("admin.example.com", 8081)),
        ("http://h:1/", Address("h", 1)),
        ("https://h", Address("h", 443, secure=True)),
        ("unix:/run/a b", Address(path="/run/a b")),
    ],
)
def test_an_address_is_a_host_a_url_or_a_socket(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "unix:", ":8081", "h:x", "h:70000", "ftp://h", "http://h/path", "http://u@h", "::1"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--admin must be"):
        Address.parse(text)


async def test_a_list_goes_through_all_pages_and_names_nobody_twice(rig: Rig) -> None:
    moved = record(mesh_id="b", revision=8)
    rig.service.pages = [
        pb.ListRegistrationsResponse([record(mesh_id="b"), record(mesh_id="c")], "1"),
        pb.ListRegistrationsResponse([], "2"),
        pb.ListRegistrationsResponse([moved, record(mesh_id="a")]),
    ]
    made = printer("yaml")
    async with rig.client() as client:
        await print_list(client, Wanted(agents=False), made)
    assert rig.service.tokens == ["", "1", "2"]
    assert [line for line in printed(made).splitlines() if "mesh_id" in line] == [
        "- mesh_id: a",
        "- mesh_id: b",
        "- mesh_id: c",
    ]
    assert "revision: 8" in printed(made)


@pytest.mark.parametrize("age", [59, 3599, 86399, 99 * 86400])
async def test_a_list_of_usual_colonies_fits_80_columns_whole(rig: Rig, age: int) -> None:
    now = datetime.now(UTC)  # it is the terminal's clock that a list goes by
    colony = record(
        mesh_id="my-app-prod",
        endpoints=["203.0.113.42:41820", "[2001:db8::1]:1"],
        granted_at=now - timedelta(seconds=age),
        last_seen=now - timedelta(seconds=300),
        expires_at=now + timedelta(seconds=300),
    )
    rig.service.pages = [pb.ListRegistrationsResponse([colony])]
    made = printer("table", width=80)
    async with rig.client() as client:
        await print_list(client, Wanted(agents=False), made)
    heading, row = printed(made).splitlines()
    assert heading.split() == [
        "MESH",
        "ID",
        "PUBKEY",
        "ENDPOINTS",
        "GRANTED",
        "LAST",
        "SEEN",
        "EXPIRES",
    ]
    assert "my-app-prod" in row
    assert "203.0.113.42:41820 (+1)" in row


async def test_the_api_key_goes_with_each_call(rig: Rig) -> None:
    async with rig.client(api_key="coral_x") as client:
        await client.stats()
    assert rig.service.metadata["authorization"] == "Bearer coral_x"


async def go_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a call with a GOAWAY, as a server that stops."""
    connection = H2Connection(H2Configuration(client_side=False))
    connection.initiate_connection()
    while not any(
        isinstance(happened, RequestReceived)
        for happened in connection.receive_data(await reader.read(65536))
    ):
        pass
    connection.close_connection()
    writer.write(connection.data_to_send())
    writer.close()


async def test_a_server_that_stops_before_it_answers_does_what_drain_asks_for() -> None:
    listener = socket.create_server((LOOPBACK, 0))
    where = f"{LOOPBACK}:{listener.getsockname()[1]}"
    async with (
        await asyncio.start_server(go_away, sock=listener),
        AdminClient(where, timeout=10) as client,
    ):
        await client.drain()
        with pytest.raises(UnreachableError):
            await client.stats()


async def test_a_drain_of_nobody_is_an_error() -> None:
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        async with AdminClient(f"{LOOPBACK}:{nobody.getsockname()[1]}", timeout=10) as client:
            with pytest.raises(UnreachableError):
                await client.drain()


async def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(rig: Rig) -> None:
    rig.service.on_stats = lambda: asyncio.Event().wait()
    async with rig.client(timeout=0.05) as client:
        with pytest.raises(DeadlineExceededError, match=r"did not answer within 0\.05 s"):
            await client.stats()


async def test_a_refusal_keeps_its_class(rig: Rig) -> None:
    async def refuse() -> None:
        raise GRPCError(Status.UNAUTHENTICATED, "who are you?")

    rig.service.on_stats = refuse
    async with rig.client() as client:
        with pytest.raises(DiscoveryError, match="who are you") as caught:
            await client.stats()
    assert caught.value.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize("ending", [None, GRPCError(Status.UNAVAILABLE, "the server stops")])
async def test_the_stream_of_events_never_ends_but_with_an_error(
    rig: Rig, ending: Exception | None
) -> None:
    rig.service.ending = ending
    async with rig.client() as client, aclosing(client.events("", [])) as events:
        reply = await anext(events)
        assert (reply.event.kind, reply.missed) == (pb.EventKind.GONE, 2)
        with pytest.raises(UnreachableError) as caught:
            await anext(events)
    assert exit_code(caught.value) is ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    "error,code",
    [
        (InvalidFieldError((Violation("mesh_id", "must not be empty"),)), ExitCode.USAGE),
        (NotRegisteredError("m"), ExitCode.NOT_FOUND),
        (UnreachableError("x"), ExitCode.UNREACHABLE),
        (DrainingError("x"), ExitCode.UNREACHABLE),
        (DeadlineExceededError("x"), ExitCode.UNREACHABLE),
        (PermissionDeniedError("x"), ExitCode.REFUSED),
        (UnauthenticatedError("x"), ExitCode.REFUSED),
        (RateLimitedError("x"), ExitCode.REFUSED),
        (MeshIdTakenError("m", 0), ExitCode.REFUSED),
        (InternalError("x"), ExitCode.FAILED),
        (OtherError(Code.DATA_LOSS, "NEW", "x"), ExitCode.FAILED),
    ],
)
def test_each_error_has_its_exit_code(error: DiscoveryError, code: ExitCode) -> None:
    assert exit_code(error) is code


def test_an_error_is_one_harmless_line_that_says_what_to_do() -> None:
    line = said(UnauthenticatedError(f"no{HOSTILE}\nkey"))
    assert line.isprintable()
    assert "CORAL_API_KEY" in line
    assert "--key-file" in said(ProofRequiredError("prove it", "", ""))
    assert said(OtherError(Code.UNKNOWN, "", "")) == "UNKNOWN"
