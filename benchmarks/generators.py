"""The load generators: h2load where it can do the work, our own `load` where it cannot.

h2load is nobody's own, written in C, and fast enough for any server here, so it makes the calls that repeat. It cannot
send a different body with each call, nor one call a connection; it measures latency from when it got around to
sending; and it never ends if a connection, slowed by TLS, is made only when its time is up. All that is `load`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.builds import BrokenError, run, tool
from benchmarks.calls import Call, call_file
from benchmarks.probing import HOST
from benchmarks.processes import LOAD_CORE
from benchmarks.results import Load
from benchmarks.workloads import Protocol, Transport

SHORTEST_ANSWER = 0.8
"""Of the bytes of a right answer. HTTP's 200 is h2load's success, and a gRPC error has that too, but no message."""


PATIENCE = 30.0
"""Seconds that a load generator may take beyond its run, to connect and to wait for the last answers."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to call, and how."""

    port: int
    transport: Transport
    ca: Path | None

    @property
    def protocol(self) -> Protocol:
        """How calls are put into bytes."""
        return self.transport.protocol


def h2load(target: Target, call: Call, answer: bytes, seconds: float, folder: Path) -> Load:
    """Repeat one call, whose right answer is known, for that long."""
    command = h2load_command(target, call, folder)
    duration = ("--duration", f"{round(seconds * 1000)}ms")
    output = run(*command, *duration, core=LOAD_CORE, timeout=seconds + PATIENCE)
    return read_h2load(output, len(answer))


def h2load_command(target: Target, call: Call, folder: Path) -> Sequence[str]:
    """Return the command that repeats one call, but for how often; its body goes into `folder`."""
    body = folder / "body"
    body.write_bytes(call.body(target.protocol))
    transport = target.transport
    scheme = "http" if target.ca is None else "https"
    return (
        *(tool("h2load", "nghttp2-client"), f"{scheme}://{HOST}:{target.port}{call.path}"),
        *("--clients", str(transport.connections), "--max-concurrent-streams"),
        *(str(transport.streams), "--data", str(body)),
        *("--header", f"content-type: {target.protocol.content_type}"),
        *(("--header", "te: trailers") if target.protocol is Protocol.GRPC else ("--h1",)),
    )


_FINISHED = re.compile(r"^finished in ([\d.]+)(ms|s|us),", re.MULTILINE)
_REQUESTS = re.compile(
    r"^requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded", re.MULTILINE
)
_STATUSES = re.compile(r"^status codes: (\d+) 2xx", re.MULTILINE)
_DATA = re.compile(r"\((\d+)\) data$", re.MULTILINE)
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def read_h2load(output: str, answer_bytes: int) -> Load:
    """Return what h2load printed; `answer_bytes` is the size of a right answer.

    Raises:
        BrokenError: that is not h2load's output.
    """
    found = [pattern.search(output) for pattern in (_FINISHED, _REQUESTS, _STATUSES, _DATA)]
    if not all(found):
        raise BrokenError(f"h2load said: {output.strip()}")
    finished, requests, statuses, data = (match.groups() for match in found if match)
    done, succeeded, good = int(requests[0]), int(requests[1]), int(statuses[0])
    seconds = float(finished[0]) * _UNITS[finished[1]]
    calls = min(succeeded, good)
    if int(data[0]) < SHORTEST_ANSWER * answer_bytes * calls:
        return Load(0, done, seconds, "answers without a message")
    return Load(calls, done - calls, seconds, "an HTTP error" if calls < done else "")


@dataclass(frozen=True, slots=True)
class Loader:
    """Our own load program, built from `benchmarks/load`."""

    program: Path

    def __call__(
        self,
        target: Target,
        calls: Sequence[Call],
        folder: Path,
        *,
        seconds: float,
        rate: float = 0,
        count: int = 0,
    ) -> Load:
        """Make calls in order, over and over, for that long; unless 0, `rate` a second and at most `count`."""
        file = folder / "calls.json"
        file.write_text(call_file(calls, target.protocol))
        transport = target.transport
        address = f"{HOST if target.ca is None else 'localhost'}:{target.port}"
        command = (
            *(str(self.program), "-address", address, "-calls", str(file)),
            *("-content-type", target.protocol.content_type, "-duration", f"{seconds:g}s"),
            *("-connections", str(transport.connections), "-streams", str(transport.streams)),
            *("-rate", f"{rate:g}", "-count", str(count)),
            *(() if target.protocol is Protocol.GRPC else ("-http1",)),
            *(("-once",) if transport.once else ()),
            *(() if target.ca is None else ("-ca", str(target.ca))),
        )
        return read_loader(run(*command, core=LOAD_CORE, timeout=seconds + PATIENCE))


def read_loader(output: str) -> Load:
    """Return what `load` printed."""
    said = json.loads(output)
    return Load(
        calls=said["calls"],
        failed=said["failed"],
        seconds=said["seconds"],
        example=said["example"],
        p50_ms=said["p50_ms"],
        p99_ms=said["p99_ms"],
    )
