"""connectrpc's ASGI application with its own messages, on uvicorn with httptools, and uvloop where it is installed."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from protobuf.wkt import Timestamp

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
messages: Any = import_module("coral.discovery.v1.discovery_pb")
stubs: Any = import_module("coral.discovery.v1.discovery_connect")


class Service(stubs.DiscoveryService):  # type: ignore[misc]  # see `stubs`
    """The two RPCs that are measured."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def register_colony(self, request: Any, _context: Any) -> Any:  # noqa: ANN401 - generated types
        """Store a registration."""
        try:
            entry = self._registry.register(
                request.mesh_id, request.pubkey, request.endpoints, request.metadata
            )
        except InvalidError as error:
            raise ConnectError(Code.INVALID_ARGUMENT, str(error)) from error
        except TakenError as error:
            raise ConnectError(Code.ALREADY_EXISTS, "already registered") from error
        return messages.RegisterColonyResponse(
            success=True,
            ttl=TTL,
            expires_at=_moment(entry.expires_at),
            refresh_after=REFRESH_AFTER,
        )

    async def lookup_colony(self, request: Any, _context: Any) -> Any:  # noqa: ANN401 - generated types
        """Find a registration."""
        entry = self._registry.lookup(request.mesh_id)
        if entry is None:
            raise ConnectError(Code.NOT_FOUND, "not registered")
        return messages.LookupColonyResponse(
            mesh_id=entry.mesh_id,
            pubkey=entry.pubkey,
            endpoints=list(entry.endpoints),
            metadata=dict(entry.metadata),
            last_seen=_moment(entry.last_seen),
            expires_at=_moment(entry.expires_at),
        )


def _moment(seconds: float) -> Timestamp:
    whole = int(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


async def _serve(config: uvicorn.Config, registry: Registry) -> None:
    cleaning = asyncio.create_task(_clean(registry))
    await uvicorn.Server(config).serve()
    cleaning.cancel()


async def _clean(registry: Registry) -> None:
    while True:
        await asyncio.sleep(CLEANUP_INTERVAL)
        registry.clean_up()


def _main() -> None:
    given = arguments()
    registry = Registry()
    config = uvicorn.Config(
        stubs.DiscoveryServiceASGIApplication(Service(registry)),
        host="127.0.0.1",
        port=given.port,
        ssl_certfile=given.tls_cert,
        ssl_keyfile=given.tls_key,
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(config, registry))


if __name__ == "__main__":
    _main()
