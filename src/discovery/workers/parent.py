"""The parent of the workers: starts them, passes on what it is told, and replaces those that end by themselves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from structlog.typing import FilteringBoundLogger

from discovery.config import ServerSettings
from discovery.daemon import Daemon
from discovery.errors import ConfigError
from discovery.reloading import reload_all, settings_check
from discovery.supervisor import Supervisor
from discovery.transport.binding import reserve
from discovery.workers.order import Command, Order, Report
from discovery.workers.process import WorkerProcess

# Until a worker that has ended is replaced, in seconds: twice as long each time, unless it has lived for long.
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_LONG = 60.0
_BEAT = 5.0


class WorkersFailedError(Exception):
    """A worker has ended as none should. The message is one line."""


def delays() -> Iterator[float]:
    """Yield how long to wait before a worker is replaced, that has not lived for long, again and again."""
    delay = _FIRST_DELAY
    while True:
        yield delay
        delay = min(2 * delay, _LONGEST_DELAY)


class Seat:
    """One worker after the other, each in place of the one before."""

    def __init__(self, order: Order, leaving: asyncio.Event, log: FilteringBoundLogger) -> None:
        """Have workers of `order`, until `leaving` is set."""
        self._order = order
        self._leaving = leaving
        self._log = log.bind(worker=order.index)
        self._worker: WorkerProcess | None = None
        self._refused = ""
        self.serves: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the first of them accepts connections; ends with ConfigError or WorkersFailedError if it cannot."""
        self.unclean = ""
        """How the last one ended, if not cleanly."""

    async def keep(self) -> None:
        """Keep a worker running. Return once it has ended and is not to be replaced."""
        waits = delays()
        loop = asyncio.get_running_loop()
        while not self._leaving.is_set():
            began = loop.time()
            why = await self._live()
            if not self.serves.done():
                self.serves.set_exception(self._failure(why))
                return
            if self._leaving.is_set():
                self.unclean = why
                return
            if loop.time() - began >= _LONG:
                waits = delays()
            wait = next(waits)
            self._log.warning("worker ended", why=why or "it was stopped", another_in=wait)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._leaving.wait()

    def tell(self, command: Command) -> None:
        """Tell the worker that there is, if there is one."""
        if self._worker is not None:
            self._worker.tell(command)

    def kill(self) -> None:
        """End the worker that there is, if there is one."""
        if self._worker is not None:
            self._worker.kill()

    async def _live(self) -> str:
        """Run a worker to its end, and return what was not clean about that."""
        self._refused = ""
        try:
            worker = await WorkerProcess.start(self._order)
        except OSError as error:
            return str(error)
        self._worker = worker
        if self._leaving.is_set():
            worker.tell(Command.STOP)
        async for report, more in worker.reports():
            self._take(report, more)
        self._worker = None
        code = await worker.ended()
        if worker.hangs:
            return "it hung, and was killed"
        return self._refused or _in_words(code)

    def _take(self, report: str, more: str) -> None:
        match report:
            case Report.READY:
                if not self.serves.done():
                    self.serves.set_result(None)
            case Report.DRAIN:
                self._leaving.set()
            case Report.FAILED:
                self._refused = more

    def _failure(self, why: str) -> Exception:
        if self._refused:
            return ConfigError(self._refused)
        return WorkersFailedError(
            f"worker {self._order.index} ended before it served: {why or 'it was stopped'}"
        )


class Workers:
    """All of them, as if they were one: see `discovery.daemon.Server`."""

    def __init__(
        self, settings: ServerSettings, log: FilteringBoundLogger, beat: float = _BEAT
    ) -> None:
        """Prepare as many as the settings say. Each shows every `beat` seconds that it does not hang."""
        self._settings = settings
        self._log = log
        self._beat = beat
        self._seats: Sequence[Seat] = ()
        self._keeping: Sequence[asyncio.Task[None]] = ()
        self.stopping = asyncio.Event()
        """Set when they are to stop, also by an administrator."""
        self.port = settings.port
        self.address: tuple[int, Any] = (0, None)
        """The family and the address where they listen, once started."""
        self.stop_seconds = settings.stop_seconds
        """How long a stop can take."""

    async def start(self) -> None:
        """Start them, and return once all accept connections.

        Raises:
            ConfigError: a setting cannot work here.
            WorkersFailedError: one of them cannot start for another reason.
        """
        settings = self._settings
        # Until they listen, and no longer: on some systems who is bound and does not listen is asked all the same.
        with reserve(settings.host, settings.port) as reserved:
            self.address = reserved.family, reserved.getsockname()
            self.port = self.address[1][1]
            self._seats = [self._seat(index) for index in range(settings.worker_count)]
            self._keeping = [asyncio.create_task(seat.keep()) for seat in self._seats]
            try:
                await asyncio.gather(*(seat.serves for seat in self._seats))
            except (ConfigError, WorkersFailedError):
                await self._give_up()
                raise
        self._log.info("workers serve", port=self.port, workers=len(self._seats))

    async def warm_up(self) -> None:
        """Load nothing: the workers do, each for itself."""

    async def stop(self) -> None:
        """Drain all, and return once they have ended.

        Raises:
            WorkersFailedError: one of them did not end cleanly.
        """
        self.stopping.set()
        self._tell(Command.STOP)
        await asyncio.gather(*self._keeping)
        for index, seat in enumerate(self._seats):
            if seat.unclean:
                raise WorkersFailedError(f"worker {index} did not stop cleanly: {seat.unclean}")

    def hurry(self) -> None:
        """End the grace of a `stop` that is under way."""
        self._tell(Command.HURRY)

    def reload(self) -> None:
        """Have all of them read files again; each says in the log how that went."""
        self._tell(Command.RELOAD)

    def _seat(self, index: int) -> Seat:
        order = Order(settings=self._settings, index=index, port=self.port, beat=self._beat)
        return Seat(order, self.stopping, self._log)

    def _tell(self, command: Command) -> None:
        for seat in self._seats:
            seat.tell(command)

    async def _give_up(self) -> None:
        self.stopping.set()
        for seat in self._seats:
            seat.kill()
        await asyncio.gather(*self._keeping)


def _in_words(code: int) -> str:
    """Say how a process has ended, unless it was cleanly. SIGTERM ends one that has hardly begun."""
    if code in {0, -signal.SIGTERM}:
        return ""
    return f"exit code {code}" if code > 0 else f"signal {-code} ({signal.strsignal(-code)})"


async def serve_by_workers(
    settings: ServerSettings,
    log: FilteringBoundLogger,
    announce: Callable[[int], None],
    supervisor: Supervisor,
    reread: Callable[[], ServerSettings],
) -> None:
    """Serve by workers; for the rest see `discovery.server.serve`.

    Raises:
        ConfigError: a setting cannot work here.
        WorkersFailedError: the workers could not start, or one did not stop cleanly.
    """
    workers = Workers(settings, log)

    def reload() -> Sequence[str]:
        workers.reload()
        return reload_all({"settings": settings_check(settings, reread)}, log)

    await Daemon(workers, reload, supervisor, log).run(announce)
