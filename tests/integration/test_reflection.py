"""Server reflection: tools find the schema by asking, over every protocol that they ask by.

grpcio's client and buf are the second implementations. grpcio's knows v1alpha alone, but v1 is the same on the wire.
"""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from h2.settings import SettingCodes

from discovery.client import DiscoveryClient
from discovery.transport.reflection_streams import _Streams
from tests.integration.grpcio_client import PACKAGE, SERVICE, GrpcioClient, Schema
from tests.integration.raw import Header, RawConnection, framed, raw_connection, request_headers
from tests.integration.support import PATIENCE, Running, running, script

FILE = "coral/discovery/v1/discovery.proto"
TIMESTAMP = "google/protobuf/timestamp.proto"
INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED = 3, 4, 5, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14

VERSIONS = pytest.mark.parametrize("version", ["v1", "v1alpha"])


def path(version: str) -> str:
    return f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"


def ask(grpcio: GrpcioClient, version: str, *requests: pb.ServerReflectionRequest) -> list[Any]:
    """Send requests on one stream, and return the replies."""
    call = grpcio.channel.stream_stream(
        path(version),
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )
    return list(call(iter(requests), timeout=PATIENCE))


def files_in(reply: Any) -> dict[str, FileDescriptorProto]:
    """Return the files in a reply by name; it must have some."""
    assert reply.WhichOneof("message_response") == "file_descriptor_response", reply
    protos = reply.file_descriptor_response.file_descriptor_proto
    return {file.name: file for file in map(FileDescriptorProto.FromString, protos)}


# -- What it says ---------------------------------------------------------------------------------


def test_grpcio_finds_every_service_that_is_served(grpcio: GrpcioClient) -> None:
    found = ProtoReflectionDescriptorDatabase(grpcio.channel).get_services()
    assert sorted(found) == [
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]


def test_grpcio_can_make_a_client_from_what_it_finds(grpcio: GrpcioClient) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(grpcio.channel))
    for name in ProtoReflectionDescriptorDatabase(grpcio.channel).get_services():
        assert pool.FindServiceByName(name).methods
    methods = pool.FindServiceByName(SERVICE).methods_by_name
    assert methods.keys() == grpcio.schema.methods().keys()
    expires_at = methods["LookupColony"].output_type.fields_by_name["expires_at"]
    assert expires_at.message_type == pool.FindMessageTypeByName("google.protobuf.Timestamp")


@VERSIONS
def test_a_file_comes_with_all_that_it_imports_and_is_what_was_compiled(
    grpcio: GrpcioClient, version: str
) -> None:
    [reply] = ask(grpcio, version, pb.ServerReflectionRequest(file_by_filename=FILE))
    files = files_in(reply)
    assert files.keys() == {FILE, TIMESTAMP}
    compiled = FileDescriptorProto()
    grpcio.schema._pool.FindFileByName(FILE).CopyToProto(compiled)
    assert files[FILE] == compiled


@VERSIONS
@pytest.mark.parametrize(
    "symbol, file",
    [
        (SERVICE, FILE),
        (f"{SERVICE}.LookupColony", FILE),
        (f"{PACKAGE}.LookupColonyResponse", FILE),
        (f"{PACKAGE}.LookupColonyResponse.mesh_id", FILE),
        (f"{PACKAGE}.NatHint", FILE),
        ("google.protobuf.Timestamp", TIMESTAMP),
        ("grpc.health.v1.Health", "grpc/health/v1/health.proto"),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"),
        ("grpc.reflection.v1alpha.ServerReflection", "grpc/reflection/v1alpha/reflection.proto"),
    ],
)
def test_a_symbol_of_any_kind_leads_to_its_file(
    grpcio: GrpcioClient, version: str, symbol: str, file: str
) -> None:
    [reply] = ask(grpcio, version, pb.ServerReflectionRequest(file_containing_symbol=symbol))
    assert file in files_in(reply)


@VERSIONS
@pytest.mark.parametrize(
    "question",
    [
        {"file_by_filename": "no/such.proto"},
        {"file_containing_symbol": f"{PACKAGE}.Nothing"},
        {"file_containing_symbol": f"{SERVICE}.Nothing"},
        {"file_containing_symbol": ""},
        {"file_containing_extension": pb.ExtensionRequest(containing_type=f"{PACKAGE}.Endpoint")},
        {"all_extension_numbers_of_type": f"{PACKAGE}.Nothing"},
    ],
    ids=["file", "symbol", "method", "empty symbol", "extension", "extensions"],
)
def test_what_does_not_exist_is_not_found_and_the_stream_goes_on(
    grpcio: GrpcioClient, version: str, question: dict[str, Any]
) -> None:
    request = pb.ServerReflectionRequest(**question)
    unknown, known = ask(grpcio, version, request, pb.ServerReflectionRequest(list_services=""))
    assert unknown.error_response.error_code == NOT_FOUND
    assert unknown.original_request == request
    assert known.list_services_response.service


def test_our_messages_have_no_extensions(grpcio: GrpcioClient) -> None:
    name = f"{PACKAGE}.HealthRequest"
    [reply] = ask(grpcio, "v1", pb.ServerReflectionRequest(all_extension_numbers_of_type=name))
    assert reply.all_extension_numbers_response.base_type_name == name
    assert not reply.all_extension_numbers_response.extension_number


def test_the_health_service_is_described_as_grpcio_has_it(grpcio: GrpcioClient) -> None:
    request = pb.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health")
    [file] = files_in(ask(grpcio, "v1", request)[0]).values()
    theirs = FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(theirs)
    for part in ("package", "syntax", "message_type", "enum_type", "service"):
        assert getattr(file, part) == getattr(theirs, part)


# -- buf curl -------------------------------------------------------------------------------------


@pytest.fixture
def buf(threaded_server: Running) -> Any:
    """`buf curl` with some arguments, and the path after the server's address as the last."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        *options, path = arguments
        # Since 1.74 buf implies the option where it is needed.
        command = (script("buf"), "curl", "--http2-prior-knowledge", *options)
        return subprocess.run(
            (*command, threaded_server.url + path),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


@pytest.mark.parametrize("protocol", ["connect", "grpc", "grpcweb"])
@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
def test_buf_curl_needs_no_schema(buf: Any, protocol: str, version: str) -> None:
    options = ("--protocol", protocol, "--reflect-protocol", version)
    answer = buf(*options, f"/{SERVICE}/Health")
    assert json.loads(answer.stdout)["status"] == "ok", answer.stderr
    missing = buf(*options, "--data", '{"mesh_id": "nobody"}', f"/{SERVICE}/LookupColony")
    assert json.loads(missing.stderr)["code"] == "not_found"


def test_buf_curl_lists_methods(buf: Any, schema: Schema) -> None:
    listed = buf("--list-methods", "").stdout.split()
    assert {f"{SERVICE}/{name}" for name in schema.methods()} < set(listed)
    assert "grpc.health.v1.Health/Watch" in listed


# -- Bad clients ----------------------------------------------------------------------------------


@pytest.fixture
async def raw(server: Running) -> AsyncIterator[RawConnection]:
    async with raw_connection(server.port) as connection:
        yield connection


def begin(connection: RawConnection, content_type: str = "application/grpc", *more: Header) -> int:
    """Begin a stream of v1, and return its id."""
    ours: dict[Any, Header] = {
        ":path": (":path", path("v1")),
        "content-type": ("content-type", content_type),
    }
    headers = [ours.get(header[0], header) for header in request_headers("", *more)]
    return connection.begin(headers)


LIST = framed(pb.ServerReflectionRequest(list_services="").SerializeToString())


@pytest.mark.parametrize(
    "body, status",
    [
        pytest.param(framed(b""), INVALID_ARGUMENT, id="asks for nothing"),
        pytest.param(framed(b"\xff" * 9), INTERNAL, id="no message"),
        pytest.param(framed(b"\x1a\x02\xff\xff"), INTERNAL, id="no UTF-8"),
        pytest.param(framed(b"abc", size=9), INTERNAL, id="ends early"),
        pytest.param(framed(b"", compressed=1), UNIMPLEMENTED, id="compressed"),
        pytest.param(framed(b"", size=2**30), RESOURCE_EXHAUSTED, id="too large"),
    ],
)
async def test_a_bad_request_ends_its_stream_with_a_status(
    raw: RawConnection, body: bytes, status: int
) -> None:
    stream = begin(raw)
    raw.data(stream, LIST + body)
    await raw.send()
    answer = await raw.answer(stream)
    assert answer.status == status
    assert SERVICE.encode() in answer.body, "the request before it was answered"


async def test_a_stream_ends_with_its_deadline(raw: RawConnection) -> None:
    stream = begin(raw, "application/grpc", ("grpc-timeout", "200m"))
    raw.data(stream, LIST, end=False)
    await raw.send()
    answer = await raw.answer(stream)
    assert answer.status == DEADLINE_EXCEEDED
    assert SERVICE.encode() in answer.body


async def test_a_bad_request_over_connect_ends_its_stream_with_an_error(raw: RawConnection) -> None:
    stream = begin(raw, "application/connect+proto")
    raw.data(stream, LIST + framed(b""))
    await raw.send()
    answer = await raw.answer(stream)
    assert SERVICE.encode() in answer.body
    assert connect_end(answer.body)["error"]["code"] == "invalid_argument"


async def test_requests_without_end_leave_others_their_turn() -> None:
    from discovery.transport.drain import DrainGate

    class Echo:
        async def server_reflection_info(
            self, request: AsyncIterator[int], ctx: object, /
        ) -> AsyncIterator[int]:
            async for number in request:
                yield number

    async def endless() -> AsyncIterator[int]:
        while True:
            yield 0

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    answered = 0
    async for _ in _Streams(Echo(), DrainGate(), DrainGate()).server_reflection_info(
        endless(), None
    ):
        answered += 1
        if answered == 100:
            break
    task.cancel()
    assert turns >= answered - 1


# -- Draining -------------------------------------------------------------------------------------


def connect_end(body: bytes) -> Any:
    """Return the message that ends a stream of Connect's."""
    while body:
        flags, size = struct.unpack_from(">BI", body)
        message, body = body[5 : 5 + size], body[5 + size :]
        if flags & 2:
            return json.loads(message)
    raise AssertionError("the stream has no end")


async def test_open_streams_end_at_once_when_the_server_drains() -> None:
    async with running(drain_timeout=PATIENCE) as server, raw_connection(server.port) as raw:
        over_grpc, over_connect = begin(raw), begin(raw, "application/connect+proto")
        for stream in (over_grpc, over_connect):
            raw.data(stream, LIST, end=False)
        await raw.send()
        await raw.seen()

        stopping = asyncio.create_task(server.server.stop())
        grpc_answer, connect_answer = await raw.answer(over_grpc), await raw.answer(over_connect)

        assert grpc_answer.status == UNAVAILABLE
        assert SERVICE.encode() in grpc_answer.body
        assert grpc_answer.details.details, "it says when to try again"
        assert connect_end(connect_answer.body)["error"]["code"] == "unavailable"
        await raw.close()
        async with asyncio.timeout(PATIENCE / 2):  # the drain did not wait for its grace period
            await stopping


async def test_a_draining_server_takes_no_new_streams() -> None:
    async with running(drain_timeout=PATIENCE) as server, raw_connection(server.port) as raw:
        held = raw.begin(request_headers())  # a call that never ends holds the drain up
        await raw.send()
        await raw.seen()
        stopping = asyncio.create_task(server.server.stop())
        stream = begin(raw)
        raw.data(stream, LIST)
        await raw.send()
        assert (await raw.answer(stream)).status == UNAVAILABLE
        server.server.hurry()
        assert (await raw.answer(held)).status == UNAVAILABLE
        await raw.close()
        await stopping


async def test_clients_that_read_nothing_do_not_hold_the_drain_up() -> None:
    async with running(drain_timeout=PATIENCE) as server, raw_connection(server.port) as raw:
        raw.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        over_grpc, over_connect = begin(raw), begin(raw, "application/connect+proto")
        for stream in (over_grpc, over_connect):
            raw.data(stream, LIST, end=False)
        await raw.send()
        await raw.seen()

        stopping = asyncio.create_task(server.server.stop())
        assert (await raw.answer(over_grpc)).status == UNAVAILABLE
        async with asyncio.timeout(PATIENCE / 2):
            await raw.closed_by_server()
            await stopping


async def test_a_client_that_leaves_leaves_nothing(server: Running) -> None:
    """The `server` fixture sees to it that no task is left."""
    async with raw_connection(server.port) as raw:
        raw.data(begin(raw), LIST, end=False)
        raw.data(begin(raw, "application/connect+proto"), LIST, end=False)
        await raw.send()
        await raw.seen()
    async with DiscoveryClient(server.url, timeout=PATIENCE) as client:
        await client.health()
