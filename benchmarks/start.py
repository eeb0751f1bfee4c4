"""`python -m benchmarks.start`: how long from starting our server until its first call is answered."""

from __future__ import annotations

import resource
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import typer

from benchmarks.builds import BrokenError
from benchmarks.processes import SERVER_CORE, START, free_port, pinned
from benchmarks.raw import Crowd, opening
from benchmarks.servers import coral_command

_HEALTH = opening("/coral.discovery.v1.DiscoveryService/Health", [b""])
_PAUSE = 0.001
"""Seconds between two attempts to connect."""


def seconds_to_first_answer() -> float:
    """Start a server, call it until it answers, and end it."""
    port = free_port()
    with TemporaryDirectory(prefix="coral-bench-") as folder:
        begin = time.perf_counter()
        with pinned(coral_command(port), SERVER_CORE, {}, Path(folder, "log")):
            _call_once_it_listens(port, begin + START)
            return time.perf_counter() - begin


def _call_once_it_listens(port: int, deadline: float) -> None:
    while time.perf_counter() < deadline:
        with suppress(ConnectionRefusedError), Crowd() as client:
            client.join(port, [_HEALTH], 1)
            return
        time.sleep(_PAUSE)
    raise BrokenError(f"nothing listens after {START:g} s")


def _cpu_seconds() -> float:
    """Return the processor time of all servers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(rounds: int = 10) -> None:
    """Measure how long it takes from starting our server until its first call is answered."""
    times = [seconds_to_first_answer() for _ in range(rounds)]
    typer.echo(
        f"start to first answer: median {median(times):.3f} s, "
        f"from {min(times):.3f} to {max(times):.3f} s, {rounds} rounds; "
        f"processor time {_cpu_seconds() / rounds:.3f} s each"
    )


if __name__ == "__main__":
    typer.run(main)
