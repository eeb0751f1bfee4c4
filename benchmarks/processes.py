"""Programs that run on one core for a while."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import environ
from pathlib import Path

from benchmarks.builds import ROOT, BrokenError, on_core, search_path
from benchmarks.probing import HOST

SERVER_CORE = 0
LOAD_CORE = 1
"""Of the load generators, and of Redis."""

START = 20.0
"""Seconds that a server may take to listen."""


def listens(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    """Return whether a program that was started listens yet.

    Raises:
        BrokenError: it has ended.
    """
    if process.poll() is not None:
        raise BrokenError(f"{process.args!r} ended: {log.read_text()[-2000:]}")
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) == 0


@contextmanager
def pinned(
    command: Sequence[str], core: int, more: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on one core for as long as the context is open; what it prints goes to `log`."""
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - the commands are ours
            on_core(core, command),
            cwd=ROOT,
            env={**environ, "PATH": search_path(), **more},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def memory_folder() -> str | None:
    """Return a folder in memory, so that etcd is not measured by this machine's disk; None where there is none."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - TemporaryDirectory makes a private one
