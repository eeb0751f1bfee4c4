"""HTTP in all its forms: what gRPC does without, and what takes as long to import as all that gRPC needs.

A server answers gRPC first. The rest is imported by a thread while calls are answered, or at once by the first who asks
for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import RLock

from discovery.transport.schema import descriptors

LOADING = RLock()
"""Held by who imports any of this: of modules that import each other, two threads may each see half of one."""

# First what the side port takes too: whoever started the server may ask there whether it is ready.
_MODULES = (
    "starlette.applications",
    "uvicorn.protocols.http.auto",
    "uvicorn.lifespan.off",
    "discovery.transport.http1",
    "discovery.exposition",
    "discovery.sideport.application",
    "protobuf.txtpb",
    "protobuf.wkt",
    "connectrpc.server",
    "connectrpc_grpcreflect",
    "discovery.transport.connect",
    "discovery.transport.http_app",
    "discovery.transport.reflection_streams",
)


async def load_meanwhile(stopping: Callable[[], bool]) -> None:
    """Import everything, or what there is time for before `stopping`, and leave the event loop to the calls."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread:
        for name in _MODULES:
            if stopping():
                return
            await loop.run_in_executor(thread, _load, name)
        await loop.run_in_executor(thread, descriptors)


def _load(name: str) -> None:
    with LOADING:
        import_module(name)
