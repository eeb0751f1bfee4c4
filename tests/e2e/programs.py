"""The programs of a test: a discovery server, colonies and agents, each on a host, and what they print."""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.network import Host
from tests.integration.support import clean_environment, script

PATIENCE = 30.0
"""Seconds after which something that must happen is taken not to: far beyond what a busy machine needs."""


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Wait until it is so; return how many seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience, "it did not happen"
        time.sleep(0.05)  # other programs tell nobody when it is so
    return time.monotonic() - began


@dataclass
class Program:
    """A program that runs, and its lines."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _fresh: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    _readers: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        for target in (self._read, self._read_errors):
            reader = threading.Thread(target=target, daemon=True)
            reader.start()
            self._readers.append(reader)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._fresh.put(self.lines[-1])
        self._fresh.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.rstrip("\n"))

    def wait_for(self, beginning: str, patience: float = PATIENCE) -> str:
        """Return the next line that begins so."""
        end = time.monotonic() + patience
        while True:
            try:
                line = self._fresh.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {beginning!r}: {self.said()}") from None
            assert line is not None, f"it ended without {beginning!r}: {self.said()}"
            if line.startswith(beginning):
                return line

    def said(self) -> str:
        return f"{self.lines} {self.errors}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self, patience: float = PATIENCE) -> int:
        """Return its exit code once it has ended, with all of its lines read."""
        code = self.process.wait(patience)
        for reader in self._readers:
            reader.join(patience)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


class Programs:
    """Starts programs, and ends them all with `end`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Program] = []

    def start(
        self, host: Host, *argv: str, run_by: Sequence[str] = (), **variables: str
    ) -> Program:
        """Start a command of ours on a host, which keeps the state of its commands; `run_by` is what runs it there."""
        state = self._folder / host.name
        words = *run_by, script(argv[0]), *argv[1:]
        return self.start_other(host, *words, XDG_STATE_HOME=str(state), **variables)

    def start_other(self, host: Host, *argv: str, **variables: str) -> Program:
        """Start any program on a host."""
        process = subprocess.Popen(
            host.command(*argv),
            env=clean_environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        program = Program(process)
        self._running.append(program)
        return program

    def end(self) -> None:
        """End whatever still runs, cleanly if it can be."""
        for program in reversed(self._running):
            if program.process.poll() is None:
                program.process.terminate()
        for program in reversed(self._running):
            try:
                program.ended(10)
            except subprocess.TimeoutExpired:
                program.process.kill()
                program.ended()
