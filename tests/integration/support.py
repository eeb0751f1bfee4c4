"""What the integration tests share: servers in this process and in child processes, and proof of their clean end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from discovery.config import ServerSettings
from discovery.server import DiscoveryServer
from tests.support import ManualClock

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
PATIENCE = 30.0
"""Seconds after which something that must happen is taken not to: far beyond what a busy machine needs."""


# -- A server in this process ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Running:
    """A server in this process, the clock it goes by and what it logged."""

    server: DiscoveryServer
    clock: ManualClock
    log: LogCapture

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def requests(self) -> list[Mapping[str, Any]]:
        """Return the log lines of the calls that are over."""
        return [entry for entry in self.log.entries if entry["event"] == "request"]


_APART = {
    "host": LOOPBACK,
    "port": 0,
    "metrics_port": 0,
    "admin_listen": "off",
    "drain_timeout": 0.0,
}
"""What lets many servers run side by side."""
FAST_PATH = os.environ.get("CORAL_DISCOVERY_FAST_PATH", "true") == "true"
"""CI runs these tests a second time without the short cuts; servers in processes of their own read the same."""


@asynccontextmanager
async def running(clock: ManualClock | None = None, **settings: Any) -> AsyncIterator[Running]:
    """Run a server in this loop. Once the block is over nothing of it is left, and it has not logged an error."""
    before = asyncio.all_tasks()
    log = LogCapture()
    clock = clock or ManualClock()
    settings = {**_APART, "fast_path": FAST_PATH, **settings}
    server = DiscoveryServer(ServerSettings(**settings), capturing_logger(log), clock)
    await server.start()
    try:
        yield Running(server, clock, log)
    finally:
        await server.stop()
        await all_ended(asyncio.all_tasks() - before)
    assert not [entry for entry in log.entries if entry["log_level"] == "error"]


def capturing_logger(log: LogCapture) -> FilteringBoundLogger:
    logger: FilteringBoundLogger = structlog.wrap_logger(
        None, processors=[log], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    return logger


async def all_ended(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait until `tasks`, but for the one that asks, are over."""
    if others := tasks - {asyncio.current_task()}:
        _, left = await asyncio.wait(others, timeout=PATIENCE)
        assert not left, f"left behind: {left}"


# -- A server in a child process ------------------------------------------------------------------


def script(name: str) -> str:
    """Return the path of an installed command: that of this Python's environment, whatever PATH says."""
    path = shutil.which(name, path=sysconfig.get_path("scripts"))
    assert path, f"{name} is not installed beside this Python"
    return path


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without its CORAL_DISCOVERY_ variables, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CORAL_")}
    return {**kept, **variables}


_NO_OTHER_PORTS = {
    "CORAL_DISCOVERY_METRICS_PORT": "0",
    "CORAL_DISCOVERY_ADMIN_LISTEN": "off",
}


def run_command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `coral-discovery` with `arguments` to its end, with the public port alone unless `variables` say more."""
    return subprocess.run(
        [script("coral-discovery"), *arguments],
        env=clean_environment(**{**_NO_OTHER_PORTS, **variables}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A `coral-discovery` that runs, ready to serve."""

    process: subprocess.Popen[str]
    announcement: Sequence[str]
    """The lines that it printed to say so."""
    stderr_path: Path

    @property
    def port(self) -> int:
        return int(self.announcement[1].rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the end."""
        return self.process.wait(timeout=PATIENCE)

    def log(self) -> str:
        return self.stderr_path.read_text()


# The kernel chooses the public port; a test that needs another says which.
_PORTS = ("--port", "0", "--metrics-port", "0", "--admin-listen", "off")


@contextmanager
def server_process(
    directory: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run `coral-discovery` on a port that the kernel chooses; `directory` gets its log.

    However the block ends, the process ends with it. If the block lets it run, it must stop cleanly, and whatever the
    block did to it, it must not have logged an error.
    """
    stderr_path = directory / "stderr"
    with (
        stderr_path.open("w") as stderr,
        subprocess.Popen(
            [script("coral-discovery"), *_PORTS, "--host", LOOPBACK, *arguments],
            env=clean_environment(**(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            yield ServerProcess(process, _announcement(process, stderr_path), stderr_path)
            _stop(process)
        finally:
            process.kill()
    assert "Traceback" not in (log := stderr_path.read_text())
    assert '"level": "error"' not in log


def _announcement(process: subprocess.Popen[str], stderr_path: Path) -> Sequence[str]:
    assert process.stdout is not None
    lines = [process.stdout.readline().rstrip("\n") for _ in range(3)]
    assert all(lines), f"it did not start: {lines}\n{stderr_path.read_text()}"
    return lines


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0
