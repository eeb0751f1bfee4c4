"""A worker, as its parent sees it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import cast

from discovery.workers.order import Command, Order

# How many proofs of life a worker may leave out, twice, before it is killed.
_BEATS = 3


class WorkerProcess:
    """A process that was given an order."""

    def __init__(self, process: asyncio.subprocess.Process, order: Order) -> None:
        self._process = process
        self._patience = _BEATS * order.beat
        self._orders = cast("asyncio.StreamWriter", process.stdin)
        self._said = cast("asyncio.StreamReader", process.stdout)
        self.hangs = False
        """Whether it was killed because it said nothing for too long."""

    @classmethod
    async def start(cls, order: Order) -> WorkerProcess:
        """Start one.

        Raises:
            OSError: the system has no room for it.
        """
        # -P: what the current directory has is not imported.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "discovery.workers"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        worker = cls(process, order)
        worker._orders.write(order.to_line())
        return worker

    def tell(self, command: Command) -> None:
        """Tell it something, if it still listens."""
        self._orders.write(f"{command}\n".encode())

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            self._process.kill()

    async def reports(self) -> AsyncIterator[tuple[str, str]]:
        """Yield each report with what follows it, until the process ends. One that falls silent is killed."""
        missed, patience = 0, None  # its start takes as long as it takes
        while True:
            try:
                async with asyncio.timeout(patience):
                    line = await self._said.readline()
            except TimeoutError:
                # Not at the first time: it may be this process that stood still, with what was said unread.
                missed += 1
                if missed > 1:
                    self.hangs = True
                    self.kill()
                continue
            if not line:
                return
            missed, patience = 0, self._patience
            report, _, more = line.decode().strip().partition(" ")
            yield report, more

    async def ended(self) -> int:
        """Wait for its end, and return its exit code, which is negative if a signal ended it."""
        return await self._process.wait()
