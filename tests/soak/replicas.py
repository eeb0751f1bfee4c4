"""What the soaks share: replicas that come and go on the same ports, and where clients find them."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import httpx

from discovery.errors import Code, DiscoveryError
from tests.integration.support import LOOPBACK, clean_environment, script
from tests.redis.servers import free_port

PATIENCE = 60.0
"""Seconds after which something that must happen is taken not to."""


class Replica:
    """A `coral-discovery` that is started any number of times, each time on the same two ports."""

    def __init__(self, name: str, directory: Path, *options: str) -> None:
        """`directory` gets its log."""
        self.name = name
        self.port, self.metrics_port = free_port(), free_port()
        self._log = directory / f"{name}.log"
        ports = ("--port", str(self.port), "--metrics-port", str(self.metrics_port))
        # All clients here call from one address, more often than one may.
        limits = ("--rate-limit", "off")
        self._arguments = ("--host", LOOPBACK, *ports, *limits, "--log-format", "json", *options)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    async def launch(self) -> None:
        """Start, and do not wait."""
        with self._log.open("a") as log:
            self._process = await asyncio.create_subprocess_exec(
                script("coral-discovery"),
                *self._arguments,
                env=clean_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )

    async def start(self) -> None:
        """Start, and return once it is ready."""
        await self.launch()
        await self.ready()

    async def ready(self) -> None:
        """Return once `/readyz` says so."""
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(PATIENCE):
            while not await self._is_ready(client):  # noqa: ASYNC110 - a process sets no event of ours
                await asyncio.sleep(0.05)

    async def stop(self) -> float:
        """Stop as systemd and Kubernetes do; return how many seconds it took."""
        started = time.monotonic()
        code = await self._end(signal.SIGTERM)
        if code != 0:
            raise RuntimeError(f"{self.name} ended with {code}; see {self._log}")
        return time.monotonic() - started

    async def kill(self) -> None:
        """End it at once, as a crash does. Nothing happens if it does not run."""
        if self._process is not None and self._process.returncode is None:
            await self._end(signal.SIGKILL)

    def problems(self) -> list[str]:
        """Return the lines of its log that tell of a defect."""
        signs = ("Traceback", '"level": "error"', '"level": "critical"')
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [f"{self.name}: {line}" for line in lines if any(sign in line for sign in signs)]

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise RuntimeError(f"{self.name} ended by itself; see {self._log}")
        try:
            answer = await client.get(f"http://{LOOPBACK}:{self.metrics_port}/readyz")
        except httpx.HTTPError:
            return False
        return answer.status_code == 200


def may_try_again(error: DiscoveryError) -> bool:
    """Say whether a client tries again: registering is idempotent for its owner, and a lookup changes nothing."""
    return error.code in {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}


def say(line: str) -> None:
    """Print a line of the report."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def progress(line: str) -> None:
    """Show how far it is: over the last such line on a terminal, below it elsewhere."""
    sys.stderr.write(f"\r\033[K{line}" if sys.stderr.isatty() else f"{line}\n")
    sys.stderr.flush()
