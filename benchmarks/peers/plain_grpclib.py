"""The plain server: grpclib and betterproto as their manuals show them, with our own generated messages."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from benchmarks.peers.registry import (
    CLEANUP_INTERVAL,
    REFRESH_AFTER,
    TTL,
    InvalidError,
    Registry,
    TakenError,
    arguments,
)
from discovery._gen.coral.discovery.v1 import (
    DiscoveryServiceBase,
    LookupColonyRequest,
    LookupColonyResponse,
    RegisterColonyRequest,
    RegisterColonyResponse,
)

BACKLOG = 1024
"""As our own. With asyncio's 100, some of 128 connections at once are dropped and come a second late."""


class Service(DiscoveryServiceBase):
    """The two RPCs that are measured."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def register_colony(
        self, register_colony_request: RegisterColonyRequest
    ) -> RegisterColonyResponse:
        """Store a registration."""
        message = register_colony_request
        try:
            entry = self._registry.register(
                message.mesh_id, message.pubkey, message.endpoints, message.metadata
            )
        except InvalidError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except TakenError as error:
            raise GRPCError(Status.ALREADY_EXISTS, "already registered") from error
        return RegisterColonyResponse(
            success=True,
            ttl=TTL,
            expires_at=_moment(entry.expires_at),
            refresh_after=REFRESH_AFTER,
        )

    async def lookup_colony(
        self, lookup_colony_request: LookupColonyRequest
    ) -> LookupColonyResponse:
        """Find a registration."""
        entry = self._registry.lookup(lookup_colony_request.mesh_id)
        if entry is None:
            raise GRPCError(Status.NOT_FOUND, "not registered")
        return LookupColonyResponse(
            mesh_id=entry.mesh_id,
            pubkey=entry.pubkey,
            endpoints=list(entry.endpoints),
            metadata=dict(entry.metadata),
            last_seen=_moment(entry.last_seen),
            expires_at=_moment(entry.expires_at),
        )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _tls(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    return context


async def _main() -> None:
    given = arguments()
    registry = Registry()
    server = Server([Service(registry)])
    tls = _tls(given.tls_cert, given.tls_key) if given.tls_cert else None
    await server.start("127.0.0.1", given.port, ssl=tls, backlog=BACKLOG)
    while True:
        await asyncio.sleep(CLEANUP_INTERVAL)
        registry.clean_up()


if __name__ == "__main__":
    asyncio.run(_main())
