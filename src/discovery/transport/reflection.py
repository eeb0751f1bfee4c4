"""gRPC server reflection, v1 and v1alpha: tools ask the server for its schema, and need no copy of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from grpclib.const import Cardinality
from grpclib.const import Handler as Route

from discovery.transport import grpc_health
from discovery.transport.drain import DrainGate
from discovery.transport.grpc import GrpcStream
from discovery.transport.loading import LOADING

if TYPE_CHECKING:
    from starlette.routing import Mount

    from discovery.transport.reflection_streams import ReflectionStreams

_VERSIONS = ("v1", "v1alpha")
PUBLIC = ("coral.discovery.v1.DiscoveryService", grpc_health.SERVICE)
"""The services of the public port that tools are told of, beside reflection itself."""


class Reflection:
    """Where reflection is found, over every protocol. What answers is made when it is first asked for."""

    def __init__(self, gate: DrainGate, services: Sequence[str] = PUBLIC) -> None:
        """Tell of `services`."""
        self._gate = gate
        self._services = services
        self._open = DrainGate()

    def routes(self) -> Mapping[str, Route]:
        """Return the gRPC handlers by path.

        One serves both versions: they differ in their package's name, and gRPC sends no names of types.
        """
        route = Route(self._grpc, Cardinality.STREAM_STREAM, bytes, bytes)
        return {
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": route
            for version in _VERSIONS
        }

    def mounts(self) -> list[Mount]:
        """Return the applications for Connect and gRPC-Web. Tools use them over HTTP/2, as streams go both ways."""
        return self._streams.mounts()

    def drain(self) -> None:
        """End every stream with UNAVAILABLE at once: they wait for clients that may have nothing more to ask."""
        self._open.expel()

    async def _grpc(self, stream: GrpcStream) -> None:
        await self._streams.answer_grpc(stream)

    @cached_property
    def _streams(self) -> ReflectionStreams:
        with LOADING:
            from discovery.transport.reflection_streams import ReflectionStreams

        return ReflectionStreams(self._services, self._gate, self._open)
