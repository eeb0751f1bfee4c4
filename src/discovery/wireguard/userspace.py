"""wireguard-go: a device served by a child process, which ends with us."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import Callable

from discovery.wireguard.control import is_served
from discovery.wireguard.errors import CommandFailedError, PermissionNeededError, TunnelError
from discovery.wireguard.programs import DENIED, Runner, end, environment, missing
from discovery.wireguard.waiting import for_ever, until

_STOP_LIMIT = 5.0
_START_LIMIT = 10.0
_LOG_LINES = 20

# setpriv has the kernel end it if we are killed: else it would hold our port, and serve on, with nobody in charge.
_COMMAND = ("setpriv", "--pdeathsig", "TERM", "wireguard-go", "-f")


class UserspaceDevice:
    """A device that a wireguard-go of our own serves."""

    def __init__(
        self,
        runner: Runner,
        start_limit: float = _START_LIMIT,
        served: Callable[[str], bool] = is_served,
    ) -> None:
        self._runner = runner
        self._served = served
        self._start_limit = start_limit
        self._process: Process | None = None
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._reader: asyncio.Task[None] | None = None

    async def create(self, name: str) -> None:
        """Start the program and wait until it serves the device; see Device.

        Raises:
            PermissionNeededError: this process may not make one.
            ProgramMissingError: wireguard-go, or setpriv, is not installed.
            TunnelError: it ended, or serves nothing; the message has its log.
        """
        await self._runner.run("wireguard-go", "--version")
        # In a session of its own: Ctrl-C is for us, who close the tunnel in order.
        with missing(_COMMAND[0]):
            self._process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                name,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                env=environment(LOG_LEVEL="error", WG_PROCESS_FOREGROUND="1"),
                start_new_session=True,
            )
        self._reader = asyncio.create_task(self._read_log(self._process))
        await self._until_served(name)

    async def _until_served(self, name: str) -> None:
        try:
            await until(lambda: self._is_served(name), self._start_limit)
        except TimeoutError:
            raise TunnelError(f"wireguard-go made no device {name}: {self._said()}") from None

    async def _is_served(self, name: str) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise self._failure(await self.lost())
        if not self._served(name):
            return False
        try:
            await self._runner.run("wg", "show", name, "listen-port")
        except CommandFailedError:
            return False
        return True

    def _failure(self, why: str) -> TunnelError:
        denied = any(word in why.lower() for word in DENIED)
        return PermissionNeededError("wireguard-go") if denied else TunnelError(why)

    async def destroy(self) -> None:
        """End the program; its device goes with it."""
        process, self._process = self._process, None
        if process is not None:
            await end(process, _STOP_LIMIT)
        if self._reader is not None:
            await self._reader
            self._reader = None

    async def lost(self) -> str:
        """Wait until the program ends by itself, and return its log on one line."""
        if self._process is None or self._reader is None:
            await for_ever()
        code = await self._process.wait()
        await asyncio.shield(self._reader)
        return f"wireguard-go ended with {code}: {self._said()}"

    async def _read_log(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        async for line in process.stdout:
            self._log.append(line.decode(errors="replace").strip())

    def _said(self) -> str:
        return " / ".join(filter(None, self._log)) or "it did not say why"
