"""`python -m benchmarks.start`: how long from starting our server until its first call is answered."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import typer

from benchmarks.builds import BrokenError
from benchmarks.probing import HOST
from benchmarks.processes import SERVER_CORE, START, free_port, pinned
from benchmarks.raw import Crowd, opening
from benchmarks.servers import coral_command

_HEALTH = opening("/coral.discovery.v1.DiscoveryService/Health", [b""])
_PAUSE = 0.001
"""Seconds between two attempts to connect."""


def _by_grpc(port: int) -> None:
    with Crowd() as client:
        client.join(port, [_HEALTH], 1)


def _by_http1(port: int) -> None:
    client = HTTPConnection(HOST, port, timeout=START)
    try:
        client.request("GET", "/health")
        client.getresponse().read()
    finally:
        client.close()


_CALLS: Mapping[str, Callable[[int], None]] = {"gRPC": _by_grpc, "HTTP/1.1": _by_http1}


def _bytecode(folder: str) -> Mapping[str, str]:
    """Return the environment in which bytecode is kept in `folder`, as it is kept where a server is installed."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}


def seconds_to_first_answer(call: Callable[[int], None], environment: Mapping[str, str]) -> float:
    """Start a server, call it until it answers, and end it."""
    port = free_port()
    with TemporaryDirectory(prefix="coral-bench-") as folder:
        begin = time.perf_counter()
        with pinned(coral_command(port), SERVER_CORE, environment, Path(folder, "log")):
            _once_it_listens(call, port, begin + START)
            return time.perf_counter() - begin


def _once_it_listens(call: Callable[[int], None], port: int, deadline: float) -> None:
    while time.perf_counter() < deadline:
        with suppress(ConnectionRefusedError):
            call(port)
            return
        time.sleep(_PAUSE)
    raise BrokenError(f"nothing listens after {START:g} s")


def _cpu_seconds() -> float:
    """Return the processor time of all servers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(rounds: int = 10) -> None:
    """Measure how long it takes from starting our server until its first call is answered."""
    with TemporaryDirectory(prefix="coral-bench-") as folder:
        environment = _bytecode(folder)
        for name, call in _CALLS.items():
            seconds_to_first_answer(call, environment)  # leaves the bytecode, which is not measured
            before = _cpu_seconds()
            times = [seconds_to_first_answer(call, environment) for _ in range(rounds)]
            typer.echo(
                f"start to first answer by {name}: median {median(times):.3f} s, "
                f"from {min(times):.3f} to {max(times):.3f} s, {rounds} rounds; "
                f"processor time {(_cpu_seconds() - before) / rounds:.3f} s each"
            )


if __name__ == "__main__":
    typer.run(main)
