"""A server as a process, with servers that tests make up, and a manager that only listens."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from discovery.daemon import Daemon, knock
from discovery.supervisor import Supervisor
from tests.support import captured_logs

INTERVAL = 0.02
"""Seconds between two proofs of life: half of what is allowed."""


class Server:
    """A server that accepts connections, or only lets the kernel connect."""

    def __init__(self, *, listen: bool = True) -> None:
        self.stopping = asyncio.Event()
        self.port = 8080
        self.stop_seconds = 7.0
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        if listen:
            self.listening.listen()
        self.address: tuple[int, Any] = self.listening.family, self.listening.getsockname()
        self.stops = 0
        self.warm = False
        self._accepting: asyncio.Server | None = None

    async def start(self) -> None:
        pass

    async def warm_up(self) -> None:
        self.warm = True

    async def stop(self) -> None:
        self.stops += 1

    def hurry(self) -> None:
        pass

    async def accept(self) -> None:
        """Accept connections from now on, and hang up."""

        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        self._accepting = await asyncio.start_server(hang_up, sock=self.listening)

    async def close(self) -> None:
        if self._accepting is not None:
            self._accepting.close()
            await self._accepting.wait_closed()
        self.listening.close()


class Systemd:
    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._listening.setblocking(False)

    async def told(self) -> str:
        message = await asyncio.get_running_loop().sock_recv(self._listening, 4096)
        return message.decode()

    def told_by_now(self) -> list[str]:
        messages = []
        try:
            while True:
                messages.append(self._listening.recv(4096).decode())
        except BlockingIOError:
            return messages


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[tuple[Systemd, Supervisor]]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(tmp_path / "notify"))
        supervisor = Supervisor(str(tmp_path / "notify"), 2 * INTERVAL)
        yield Systemd(listening), supervisor


async def until_logged(lines: list[Any], event: str) -> None:
    while not any(line["event"] == event for line in lines):  # noqa: ASYNC110 - a list tells nobody
        await asyncio.sleep(INTERVAL)


@pytest.fixture(autouse=True)
def freezes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing of the tests is kept from collections; when a daemon would have, this has an entry."""
    calls: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append("freeze"))
    return calls


def daemon(server: Server, supervisor: Supervisor) -> Daemon:
    return Daemon(server, list, supervisor, structlog.get_logger())


@pytest.mark.parametrize("at_terminal", [False, True])
async def test_a_terminal_that_is_closed_ends_the_server_that_was_tried_there(
    monkeypatch: pytest.MonkeyPatch, at_terminal: bool
) -> None:
    monkeypatch.setattr("discovery.daemon.at_terminal", lambda: at_terminal)
    server, reloads, started = Server(), [], asyncio.Event()

    def reload() -> list[str]:
        reloads.append("reload")
        server.stopping.set()  # so that the test ends either way
        return []

    watched = Daemon(server, reload, Supervisor(), structlog.get_logger())
    running = asyncio.create_task(watched.run(lambda _: started.set()))
    await started.wait()
    os.kill(os.getpid(), signal.SIGHUP)
    await running
    await server.close()
    assert reloads == ([] if at_terminal else ["reload"])


async def test_once_it_is_warm_garbage_is_looked_for_but_not_in_what_stays(
    freezes: list[str],
) -> None:
    class Slow(Server):
        async def warm_up(self) -> None:
            assert not gc.isenabled()
            assert not freezes
            await super().warm_up()

    server, started = Slow(), asyncio.Event()
    gc.disable()
    try:
        running = asyncio.create_task(daemon(server, Supervisor()).run(lambda _: started.set()))
        await started.wait()
        server.stopping.set()
        await running
        assert server.warm
        assert gc.isenabled()
        assert freezes == ["freeze"]
    finally:
        gc.enable()
    await server.close()


async def test_who_does_not_accept_is_not_alive_and_who_does_again_is(
    notify: tuple[Systemd, Supervisor],
) -> None:
    systemd, supervisor = notify
    server = Server()
    with captured_logs() as lines:
        running = asyncio.create_task(daemon(server, supervisor).run(lambda _: None))
        await until_logged(lines, "connections are not accepted")
        assert systemd.told_by_now() == [
            "READY=1\nSTATUS=Accepting registrations on port 8080",
        ]
        await server.accept()
        assert await systemd.told() == "WATCHDOG=1"
        server.stopping.set()
        await running
    await server.close()


async def test_a_port_that_is_gone_is_not_alive(notify: tuple[Systemd, Supervisor]) -> None:
    systemd, supervisor = notify
    server = Server(listen=False)
    with captured_logs() as lines:
        running = asyncio.create_task(daemon(server, supervisor).run(lambda _: None))
        await until_logged(lines, "connections are not accepted")
        assert not any("WATCHDOG" in message for message in systemd.told_by_now())
        server.stopping.set()
        await running
    assert server.stops == 1
    await server.close()


async def test_a_stop_asks_for_its_time_and_leaves_no_task_behind(
    notify: tuple[Systemd, Supervisor],
) -> None:
    systemd, supervisor = notify
    server = Server()
    await server.accept()
    before = asyncio.all_tasks()
    running = asyncio.create_task(daemon(server, supervisor).run(lambda _: server.stopping.set()))
    await running
    told = systemd.told_by_now()
    assert told[1] == "STOPPING=1\nSTATUS=Draining\nEXTEND_TIMEOUT_USEC=7000000"
    assert asyncio.all_tasks() <= before
    await server.close()


async def test_a_connection_that_is_reset_was_accepted() -> None:
    """As the server does that has no room for one more."""
    server = Server()
    server.listening.settimeout(0)
    knocking = asyncio.create_task(knock(*server.address))
    loop = asyncio.get_running_loop()
    accepted, _ = await loop.sock_accept(server.listening)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    accepted.close()
    await knocking
    await server.close()


async def test_a_port_where_nobody_listens_is_an_error() -> None:
    server = Server(listen=False)
    with pytest.raises(ConnectionRefusedError):
        await knock(*server.address)
    await server.close()
