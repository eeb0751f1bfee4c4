"""grpcio's asyncio server with Google's protobuf: both in C. Its messages are generated before it starts."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.peers.registry import (
    CLEANUP_INTERVAL,
    REFRESH_AFTER,
    TTL,
    InvalidError,
    Registry,
    TakenError,
    arguments,
)

# Generated at run time into a folder on PYTHONPATH, so a type checker never sees them.
messages: Any = import_module("coral.discovery.v1.discovery_pb2")
stubs: Any = import_module("coral.discovery.v1.discovery_pb2_grpc")

Context = grpc.aio.ServicerContext[Any, Any]


class Service(stubs.DiscoveryServiceServicer):  # type: ignore[misc]  # see `stubs`
    """The two RPCs that are measured."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def RegisterColony(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802 - generated names
        """Store a registration."""
        try:
            entry = self._registry.register(
                request.mesh_id, request.pubkey, request.endpoints, request.metadata
            )
        except InvalidError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TakenError:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "already registered")
        reply = messages.RegisterColonyResponse(success=True, ttl=TTL, refresh_after=REFRESH_AFTER)
        reply.expires_at.FromNanoseconds(_nanoseconds(entry.expires_at))
        return reply

    async def LookupColony(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802 - generated names
        """Find a registration."""
        entry = self._registry.lookup(request.mesh_id)
        if entry is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not registered")
        reply = messages.LookupColonyResponse(
            mesh_id=entry.mesh_id,
            pubkey=entry.pubkey,
            endpoints=entry.endpoints,
            metadata=entry.metadata,
        )
        reply.last_seen.FromNanoseconds(_nanoseconds(entry.last_seen))
        reply.expires_at.FromNanoseconds(_nanoseconds(entry.expires_at))
        return reply


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _tls(cert: str, key: str) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(Path(key).read_bytes(), Path(cert).read_bytes())])


async def _main() -> None:
    given = arguments()
    registry = Registry()
    server = grpc.aio.server()
    stubs.add_DiscoveryServiceServicer_to_server(Service(registry), server)
    address = f"127.0.0.1:{given.port}"
    if given.tls_cert:
        server.add_secure_port(address, _tls(given.tls_cert, given.tls_key))
    else:
        server.add_insecure_port(address)
    await server.start()
    while True:
        await asyncio.sleep(CLEANUP_INTERVAL)
        registry.clean_up()


if __name__ == "__main__":
    asyncio.run(_main())
