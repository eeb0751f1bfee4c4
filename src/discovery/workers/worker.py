"""A worker: a server that shares its port with others, and does what its parent says."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from discovery.daemon import settle
from discovery.errors import ConfigError
from discovery.logs import set_up_logs
from discovery.reloading import reload_all
from discovery.server import DiscoveryServer
from discovery.workers.order import Command, Order, Report

_LONGEST_ORDER = 1024 * 1024


class Worker:
    """Runs a server until its parent, or the parent's end, SIGTERM or an administrator ends it."""

    def __init__(self, server: DiscoveryServer, beat: float, log: FilteringBoundLogger) -> None:
        """Run `server`, and say each `beat` seconds that the event loop turns."""
        self._server = server
        self._beat_seconds = beat
        self._reloads = server.reloads()
        self._log = log
        self._told = False

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Serve, and do what `commands` say.

        Raises:
            ConfigError: a setting cannot work here.
        """
        await self._server.start()
        # It is for who means this worker alone: the parent starts another.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        _report(Report.READY)
        tasks = [
            asyncio.create_task(work)
            for work in (self._obey(commands), self._beat(), settle(self._server.warm_up()))
        ]
        await self._server.stopping.wait()
        if not self._told:
            _report(Report.DRAIN)
        await self._server.stop()
        for task in tasks:
            task.cancel()

    async def _obey(self, commands: asyncio.StreamReader) -> None:
        while line := await commands.readline():
            match line.decode().strip():
                case Command.STOP:
                    self._stop()
                case Command.HURRY:
                    self._server.hurry()
                case Command.RELOAD:
                    reload_all(self._reloads, self._log)
        self._log.warning("the parent is gone")
        self._stop()
        self._server.hurry()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_seconds)
            _report(Report.ALIVE)

    def _stop(self) -> None:
        self._told = True
        self._server.stopping.set()


def _report(report: Report, more: str = "") -> None:
    # If the parent is gone, or has not read for long, that is no reason to stand still.
    with suppress(OSError):
        os.write(sys.stdout.fileno(), f"{report} {more}".strip().encode() + b"\n")


async def _commands() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(_LONGEST_ORDER)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


async def work() -> int:
    """Do as the order says that comes first, and return the exit code."""
    commands = await _commands()
    order = Order.model_validate_json(await commands.readline())
    settings = order.own_settings()
    log = set_up_logs(settings.log_level, settings.log_format).bind(worker=order.index)
    try:
        server = DiscoveryServer(settings, log)
        await Worker(server, order.beat, log).run(commands)
    except ConfigError as error:
        _report(Report.FAILED, " ".join(str(error).split()))
        return 2
    return 0
