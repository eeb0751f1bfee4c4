"""What answers reflection. It is imported when that is first asked for.

connectrpc's implementation answers, whatever a tool asks by: `buf curl` asks by the protocol of the call it is about to
make, Connect by default, and grpcurl by gRPC. Its messages stay out of protobuf's global pool, where those of grpclib
would clash with any other package's that knows the same services.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from importlib.resources import files
from typing import Any, Protocol, cast

from connectrpc.code import Code as ConnectCode
from connectrpc.errors import ConnectError
from connectrpc_grpcreflect import (
    ServerReflectionAlphaASGIApplication,
    ServerReflectionAlphaService,
    ServerReflectionASGIApplication,
    ServerReflectionService,
)

# The package has no public name for its messages.
from connectrpc_grpcreflect._gen.grpc.reflection.v1.reflection_pb import ServerReflectionRequest
from protobuf import DescService
from protobuf.wkt import FileDescriptorSet
from starlette.routing import Mount

from discovery.errors import (
    DiscoveryError,
    InvalidMessageError,
    MalformedMessageError,
    UnimplementedError,
)
from discovery.transport import grpc_health
from discovery.transport.drain import DrainGate
from discovery.transport.grpc import GrpcStream, answering, request_buffer
from discovery.transport.http_errors import code_name
from discovery.validation import MAX_REQUEST_BYTES


class ReflectionStreams:
    """What answers reflection."""

    def __init__(self, services: Sequence[str], gate: DrainGate, own: DrainGate) -> None:
        """Tell of `services`, to streams that pass `gate` as every call does, and `own`."""
        published = _published(services)
        self._v1 = _Streams(ServerReflectionService(*published), gate, own)
        self._v1alpha = _Streams(ServerReflectionAlphaService(*published), gate, own)

    def mounts(self) -> list[Mount]:
        """Return the applications for Connect and gRPC-Web."""
        options: Any = {"interceptors": (_Translation(),), "read_max_bytes": MAX_REQUEST_BYTES}
        applications: tuple[Any, ...] = (
            ServerReflectionASGIApplication(self._v1, **options),
            ServerReflectionAlphaASGIApplication(self._v1alpha, **options),
        )
        return [Mount(application.path, application) for application in applications]

    async def answer_grpc(self, stream: GrpcStream) -> None:
        """Answer a stream of gRPC's, whose messages are bytes."""
        replies = self._v1.server_reflection_info(_requests(stream), None)
        async with answering(request_buffer(stream).deadline), aclosing(replies):
            try:
                async for reply in replies:
                    await stream.send_message(reply.to_binary())
            except ConnectError as error:  # the request asks for nothing
                raise InvalidMessageError(error.message) from error


def _published(names: Sequence[str]) -> list[DescService]:
    # One FileDescriptorSet after the other is one with the files of both.
    ours = files("discovery._gen").joinpath("descriptors.binpb").read_bytes()
    registry = FileDescriptorSet.from_binary(ours + grpc_health.descriptors()).to_registry()
    services = [registry.service(name) for name in names]
    return [service for service in services if service is not None]


class _Service(Protocol):
    """A reflection service as connectrpc has it, of either version."""

    def server_reflection_info(
        self, request: AsyncIterator[Any], ctx: object, /
    ) -> AsyncIterator[Any]: ...


class _Streams:
    """A reflection service whose streams count as calls, and do not keep others waiting."""

    def __init__(self, service: _Service, *gates: DrainGate) -> None:
        self._service = service
        self._gates = gates

    async def server_reflection_info(
        self, request: AsyncIterator[Any], ctx: object, /
    ) -> AsyncGenerator[Any]:
        """See connectrpc.

        Raises:
            DrainingError: the server stops.
            ConnectError: a request asks for nothing.
        """
        every, own = self._gates
        with every.admit(), own.admit():
            replies = self._service.server_reflection_info(request, ctx)
            async with aclosing(cast("AsyncGenerator[Any]", replies)):
                async for reply in replies:
                    yield reply
                    await asyncio.sleep(0)  # a client may have sent requests by the thousand


async def _requests(stream: GrpcStream) -> AsyncGenerator[ServerReflectionRequest]:
    try:
        async for request in stream:
            yield _read(request)
    except NotImplementedError as error:
        raise UnimplementedError("compressed requests are not supported over gRPC") from error
    except AssertionError as error:  # how grpclib says that the stream ended early
        raise MalformedMessageError("the request ended before its message did") from error


def _read(request: bytes) -> ServerReflectionRequest:
    try:
        return ServerReflectionRequest.from_binary(request)
    except ValueError as error:
        raise MalformedMessageError("not a ServerReflectionRequest") from error


class _Translation:
    """Says what ended a stream in Connect's words: an interceptor of connectrpc's."""

    async def on_start(self, _context: object) -> None:
        """See connectrpc's MetadataInterceptor."""

    async def on_end(self, _token: None, _context: object, error: Exception | None) -> None:
        """See connectrpc's MetadataInterceptor. What is raised here takes the place of `error`."""
        if isinstance(error, DiscoveryError):
            raise ConnectError(ConnectCode(code_name(error.code)), error.message) from error
