"""`python -m benchmarks.push`: how long until every watcher of one mesh has a change."""

from __future__ import annotations

import time
from contextlib import ExitStack
from math import ceil
from statistics import median

import typer

from benchmarks.builds import BrokenError, Scratch
from benchmarks.calls import Coral, mesh_id, registration
from benchmarks.probing import Probe, probe
from benchmarks.raw import Crowd, allow_many_files, opening
from benchmarks.servers import OURS, started
from benchmarks.workloads import Protocol
from discovery._gen.coral.discovery.v1 import WatchColonyRequest, WatchColonyResponse

WATCH = "/coral.discovery.v1.DiscoveryService/WatchColony"
STREAMS = 100
"""Of one connection."""
_PREFIX = 5
"""Bytes before a gRPC message."""


def watch(crowd: Crowd, port: int, connections: int) -> None:
    """Open connections full of watches of one mesh, which have its present state."""
    request = bytes(WatchColonyRequest(mesh_id=mesh_id(0)))
    crowd.join(port, [opening(WATCH, [request] * STREAMS)] * connections, STREAMS)


def seconds_to_all(crowd: Crowd, watchers: int, ask: Probe, content: int) -> float:
    """Change the registration, and return when the last watcher has it."""
    begin = time.perf_counter()
    ask(Coral().register(0, content))
    payloads = crowd.messages(watchers)
    taken = time.perf_counter() - begin
    expected = registration(0, content).endpoints
    for payload in set(payloads):
        if WatchColonyResponse().parse(payload[_PREFIX:]).colony.endpoints != expected:
            raise BrokenError("a watcher was sent another state than the new one")
    return taken


def main(watchers: int = 10_000, rounds: int = 5) -> None:
    """Measure how long until every watcher of one mesh has a change."""
    allow_many_files()
    connections = ceil(watchers / STREAMS)
    with ExitStack() as stack:
        start = OURS.prepare(stack.enter_context(Scratch.opened()), stack)
        server = stack.enter_context(started(OURS, start, None))
        ask = stack.enter_context(probe(server.port, Protocol.GRPC, None))
        ask(Coral().register(0))
        crowd = stack.enter_context(Crowd())
        watch(crowd, server.port, connections)
        contents = range(1, rounds + 1)
        times = [seconds_to_all(crowd, connections * STREAMS, ask, content) for content in contents]
    typer.echo(
        f"push to {connections * STREAMS:,} watchers: median {median(times):.3f} s, "
        f"from {min(times):.3f} to {max(times):.3f} s, {rounds} rounds"
    )


if __name__ == "__main__":
    typer.run(main)
