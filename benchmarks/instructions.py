"""`python -m benchmarks.instructions`: how many instructions of the processor a call takes, in all of our server.

They are counted, by Valgrind's cachegrind, and not timed: two runs differ by one in a hundred, whatever else the
machine does. So this tells whether a small change helps. It knows nothing of what the system does for us, nor of
waiting for memory.
"""

from __future__ import annotations

import re
import signal
import sys
from itertools import product

import typer

from benchmarks.builds import BrokenError, Scratch, run, tool
from benchmarks.calls import Call, Coral
from benchmarks.generators import Target, h2load_command
from benchmarks.probing import probe, wait_for
from benchmarks.processes import LOAD_CORE, SERVER_CORE, free_port, listens, pinned
from benchmarks.servers import coral_command
from benchmarks.workloads import TRANSPORTS, Protocol, Transport

_FEW = 1_000
_PATIENCE = 300.0
"""Seconds for anything: under Valgrind a program is some forty times slower."""
_COUNTED = re.compile(r"I +refs: +([\d,]+)")


def _counted(scratch: Scratch, transport: Transport, call: Call, calls: int) -> int:
    """Return how many instructions a server takes that is started, called so often, and stopped."""
    port, log = free_port(), scratch.folder / "log"
    valgrind = (tool("valgrind", "valgrind"), "--tool=cachegrind", "--cache-sim=no")
    command = (*valgrind, "--cachegrind-out-file=/dev/null", sys.executable, *coral_command(port))
    with pinned(command, SERVER_CORE, {"PYTHONHASHSEED": "0"}, log) as process:
        wait_for(lambda: listens(process, port, log), _PATIENCE, "our server under Valgrind")
        with probe(port, Protocol.GRPC, None) as ask:
            ask(Coral().register(0))
        load = h2load_command(Target(port, transport, None), call, scratch.folder)
        run(*load, "--requests", str(calls), core=LOAD_CORE, timeout=_PATIENCE)
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE)
    found = _COUNTED.search(log.read_text())
    if found is None:
        raise BrokenError(f"Valgrind said: {log.read_text()[-2000:]}")
    return int(found[1].replace(",", ""))


def main(calls: int = 5_000) -> None:
    """Count the instructions of a lookup and of a heartbeat, over each transport that keeps its connections."""
    kinds = {"lookup": Coral().lookup(0), "heartbeat": Coral().register(0)}
    plain = [transport for transport in TRANSPORTS if not (transport.once or transport.tls)]
    with Scratch.opened() as scratch:
        for (name, call), transport in product(kinds.items(), plain):
            few, many = (_counted(scratch, transport, call, n) for n in (_FEW, _FEW + calls))
            typer.echo(f"{name}/{transport.name}: {(many - few) / calls:,.0f} instructions a call")


if __name__ == "__main__":
    typer.run(main)
