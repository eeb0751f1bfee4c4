"""`python -m benchmarks.flood`: what a client notices while another address registers far more often than it may.

h2load floods from `::1` and the client calls `127.0.0.1`: two addresses, each with limits of its own.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import typer

from benchmarks.builds import BrokenError, tool
from benchmarks.calls import Call, Coral, mesh_id
from benchmarks.probing import HOST, PATIENCE, probe, wait_for
from benchmarks.processes import LOAD_CORE, SERVER_CORE, START, free_port, listens, pinned
from benchmarks.servers import coral_command
from benchmarks.workloads import Protocol

_LIMIT = "address:RegisterColony=1/second"
_STREAMS = 100
"""Calls that each connection has under way; all but a few are refused."""
_GAP = 0.002
"""Seconds between two calls of the client."""
_RATE = re.compile(r"finished in .*?, ([\d.]+) req/s")

Ask = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Way:
    """A protocol to flood by, and to look up by."""

    name: str
    protocol: Protocol
    path: str
    more: Sequence[str] = ()
    """Flags of h2load."""


@dataclass(frozen=True, slots=True)
class Size:
    """How long to flood, and over how many connections."""

    seconds: int
    connections: int


_REGISTER = Coral().register(1)
WAYS = (
    Way("gRPC", Protocol.GRPC, _REGISTER.path, ("--header", "te: trailers")),
    Way("Connect, HTTP/1.1", Protocol.JSON, _REGISTER.path, ("--h1",)),
    Way("Connect, HTTP/2", Protocol.JSON, _REGISTER.path),
    Way("REST, HTTP/1.1", Protocol.JSON, "/v1/colony/register", ("--h1",)),
)


def measure(ask: Ask, going_on: Callable[[], bool]) -> Sequence[float]:
    """Call for as long as that is so; return how long each call took, in milliseconds."""
    took = []
    while going_on():
        begin = time.perf_counter()
        ask()
        took.append((time.perf_counter() - begin) * 1000)
        time.sleep(_GAP)
    return took


@contextmanager
def flood(way: Way, port: int, size: Size, folder: Path) -> Iterator[Callable[[], bool]]:
    """Flood; provide whether that still goes on."""
    (folder / "body").write_bytes(_REGISTER.body(way.protocol))
    command = (
        *(tool("h2load", "nghttp2-client"), "--duration", str(size.seconds), *way.more),
        *("--clients", str(size.connections), "--max-concurrent-streams", str(_STREAMS)),
        *("--header", f"content-type: {way.protocol.content_type}"),
        *("--data", str(folder / "body"), f"http://[::1]:{port}{way.path}"),
    )
    with pinned(command, LOAD_CORE, {}, folder / "flood") as process:
        yield lambda: process.poll() is None


def refused_a_second(folder: Path) -> float:
    """Return how many of the flood's calls were answered each second."""
    said = (folder / "flood").read_text()
    found = _RATE.search(said)
    if found is None:
        raise BrokenError(f"h2load said: {said[-2000:]}")
    return float(found[1])


@contextmanager
def client(way: Way, port: int) -> Iterator[Ask]:
    """Provide a well-behaved client's lookup of what is registered."""
    if way.path != _REGISTER.path:
        connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
        yield partial(_look_up_by_rest, connection)
        connection.close()
        return
    with probe(port, way.protocol, None) as ask:
        yield partial(ask, Coral().lookup(0))


def _look_up_by_rest(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", f"/v1/colony/lookup/{mesh_id(0)}")
    answer = json.loads(connection.getresponse().read())
    if answer.get("meshId") != mesh_id(0):
        raise BrokenError(f"the lookup was answered with {answer}")


def _register(port: int, call: Call) -> None:
    with probe(port, Protocol.GRPC, None) as ask:
        ask(call)


def report(way: Way, idle: Sequence[float], flooded: Sequence[float], refused: float) -> str:
    """Return the line of a protocol."""
    worst = [quantiles(times, n=100)[98] for times in (idle, flooded)]
    ratio = median(flooded) / median(idle)
    return (
        f"{way.name:18} idle {median(idle):6.2f} / {worst[0]:7.2f} ms,"
        f" flooded {median(flooded):6.2f} / {worst[1]:7.2f} ms (median / p99);"
        f" ratio {ratio:.2f}; {refused:,.0f} refused a second"
    )


def run(way: Way, size: Size, folder: Path) -> str:
    """Measure by one protocol, on a server of its own."""
    port, log = free_port(), folder / "server"
    command = coral_command(port, "--host", "", "--rate-limit", _LIMIT)
    with pinned(command, SERVER_CORE, {}, log) as server:
        wait_for(lambda: listens(server, port, log), START, "the server does not listen")
        _register(port, Coral().register(0))
        with client(way, port) as ask:
            end = time.monotonic() + size.seconds
            idle = measure(ask, lambda: time.monotonic() < end)
            with flood(way, port, size, folder) as going_on:
                flooded = measure(ask, going_on)
    return report(way, idle, flooded, refused_a_second(folder))


def main(seconds: int = 10, connections: int = 16) -> None:
    """Measure what a client's lookups take while nothing else happens, and during a flood."""
    for way in WAYS:
        with TemporaryDirectory(prefix="coral-bench-") as folder:
            typer.echo(run(way, Size(seconds, connections), Path(folder)))


if __name__ == "__main__":
    typer.run(main)
