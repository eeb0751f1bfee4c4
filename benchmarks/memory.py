"""`python -m benchmarks.memory`: what a registered colony, an idle connection and an idle watch take.

And for how long a call waits while everything ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.request import urlopen

import typer

from benchmarks.builds import BrokenError, Scratch
from benchmarks.calls import Coral, mesh_id, registration
from benchmarks.generators import Loader, Target
from benchmarks.probing import HOST
from benchmarks.push import STREAMS, WATCH
from benchmarks.raw import PATIENCE, Crowd, allow_many_files, opening
from benchmarks.runner import good
from benchmarks.servers import Instance, Server, coral, started
from benchmarks.workloads import TRANSPORTS
from discovery._gen.coral.discovery.v1 import RegisterColonyRequest, WatchColonyRequest
from discovery.clock import MICROSECONDS, Instant
from discovery.server import sweep
from discovery.stores.memory import MemoryStore
from discovery.transport.codec import decode, registration_from

BATCH = 10_000
"""Registrations that the load program is given at a time."""
WARM_UP = 100
"""Calls, over one connection, before anything is counted: what the first ones take is nobody's in particular."""
HEALTH = "/coral.discovery.v1.DiscoveryService/Health"

SERVER = Server("coral", "with leases that outlast the measurement", coral("--ttl", "86400"))


@contextmanager
def fresh(scratch: Scratch) -> Iterator[Instance]:
    """Run a server that has answered a few calls, has loaded all, and whose memory nothing larger has been through."""
    with ExitStack() as stack:
        start = SERVER.prepare(scratch, stack)
        server = stack.enter_context(started(SERVER, start, None))
        with Crowd() as crowd:
            crowd.join(server.port, [opening(HEALTH, [b""] * WARM_UP)], WARM_UP)
        # What is asked by HTTP is answered once all of that is loaded.
        with urlopen(f"http://{HOST}:{server.port}/health") as answer:
            answer.read()
        yield server


def colony_bytes(scratch: Scratch, count: int) -> tuple[float, float]:
    """Return what a registered colony takes when so many are, and what it takes once it was renewed."""
    loader = Loader(scratch.go / "load")
    taken = []
    with fresh(scratch) as server:
        before = server.resident_bytes()
        for _ in ("granted", "renewed"):
            for first in range(0, count, BATCH):
                _register(server, loader, scratch, range(first, min(first + BATCH, count)))
            taken.append((server.resident_bytes() - before) / count)
    return taken[0], taken[1]


def _register(server: Instance, loader: Loader, scratch: Scratch, meshes: range) -> None:
    calls = [Coral().register(mesh) for mesh in meshes]
    target = Target(server.port, TRANSPORTS[0], None)
    load = good(loader(target, calls, scratch.folder, seconds=PATIENCE, count=len(calls)))
    if load.calls != len(calls):
        raise BrokenError(f"only {load.calls} of {len(calls)} were registered in {PATIENCE:g} s")


def connection_bytes(scratch: Scratch, count: int) -> float:
    """Return what a gRPC connection takes that has made one call and now waits."""
    with fresh(scratch) as server, Crowd() as crowd:
        before = server.resident_bytes()
        crowd.join(server.port, [opening(HEALTH, [b""])] * count, 1)
        return (server.resident_bytes() - before) / count


def watch_bytes(scratch: Scratch, count: int, of_connection: float) -> float:
    """Return what a watch takes to which nothing happens, beyond its connection; each is of another mesh."""
    firsts = range(0, count, STREAMS)
    sent = (opening(WATCH, _watches(first)) for first in firsts)
    with fresh(scratch) as server, Crowd() as crowd:
        before = server.resident_bytes()
        crowd.join(server.port, sent, STREAMS)
        grown = server.resident_bytes() - before - len(firsts) * of_connection
    return grown / (len(firsts) * STREAMS)


def _watches(first: int) -> list[bytes]:
    meshes = range(first, first + STREAMS)
    return [bytes(WatchColonyRequest(mesh_id=mesh_id(mesh))) for mesh in meshes]


class _Standing:
    """A clock that stands still."""

    def __init__(self, seconds: int) -> None:
        self._now = Instant(seconds * MICROSECONDS, seconds * MICROSECONDS)

    def now(self) -> Instant:
        """See Clock."""
        return self._now


async def longest_wait(count: int) -> float:
    """Return for how many seconds a lookup waits at most while the server sweeps leases that all end at once."""
    store, start, end = MemoryStore(), _Standing(1), _Standing(2)
    for mesh in range(count):
        request = decode(bytes(registration(mesh)), RegisterColonyRequest)
        await store.register(registration_from(request), ttl=1, now=start.now())
    sweeping = asyncio.create_task(sweep(store, end))
    longest = 0.0
    while not sweeping.done():
        asked = time.perf_counter()
        await asyncio.sleep(0)
        await store.lookup(mesh_id(0), now=end.now())
        longest = max(longest, time.perf_counter() - asked)
    return longest


def main(colonies: int = 1_000_000, connections: int = 5_000, watches: int = 10_000) -> None:
    """Measure what a registered colony, an idle connection and an idle watch take, and how long everybody's end."""
    allow_many_files()
    with Scratch.opened() as scratch:
        connection = connection_bytes(scratch, connections)
        typer.echo(f"{connections:,} idle gRPC connections: {connection:,.0f} bytes each")
        watch = watch_bytes(scratch, watches, connection)
        typer.echo(f"{watches:,} idle watches: {watch:,.0f} bytes each beyond the connections")
        payload = len(bytes(registration(colonies)))
        typer.echo(f"{colonies:,} colonies, beyond the payload of {payload} bytes:")
        granted, renewed = colony_bytes(scratch, colonies)
        typer.echo(f"{granted - payload:,.0f} bytes each; renewed, {renewed - payload:,.0f}")
    waits = asyncio.run(longest_wait(colonies))
    typer.echo(f"{colonies:,} leases that end at once: a call waits {1000 * waits:.1f} ms at most")


if __name__ == "__main__":
    typer.run(main)
