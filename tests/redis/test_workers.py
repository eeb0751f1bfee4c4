"""`coral-discovery --workers 2`: two processes on one port and one real server, and the parent that keeps them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from structlog.testing import LogCapture

from discovery import __version__
from discovery.auth import Role, create_key
from discovery.client import DiscoveryClient
from discovery.clock import SystemClock
from discovery.config import ServerSettings
from discovery.errors import DrainingError, UnreachableError
from discovery.workers.parent import Workers, WorkersFailedError
from tests.integration.support import (
    LOOPBACK,
    ServerProcess,
    capturing_logger,
    run_command,
    script,
    server_process,
)
from tests.redis.servers import PATIENCE, Server, eventually, free_port
from tests.support import MESH, registration

WORKERS = 2


@contextmanager
def workers(
    server: Server, directory: Path, *arguments: str, **variables: str
) -> Iterator[ServerProcess]:
    """Two workers, and their parent, which has said that they serve."""
    flags = ("--workers", str(WORKERS), "--store", server.url, *arguments)
    with server_process(directory, *flags, variables=variables) as process:
        yield process


def pids(parent: ServerProcess) -> set[int]:
    """Return the processes of the workers."""
    return {child.pid for child in psutil.Process(parent.process.pid).children()}


def is_over(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # nobody may ask for its end
    return True


def entries(parent: ServerProcess, event: str) -> list[Mapping[str, Any]]:
    lines = map(json.loads, parent.log().splitlines())
    return [line for line in lines if line["event"] == event]


def who_said(parent: ServerProcess, event: str) -> Sequence[int]:
    """Return the workers that logged it, in order."""
    return sorted(line["worker"] for line in entries(parent, event))


async def until_all_say(parent: ServerProcess, event: str) -> None:
    async def all_did() -> bool:
        return set(who_said(parent, event)) == set(range(WORKERS))

    await eventually(all_did)


async def until_said(parent: ServerProcess, event: str, times: int) -> None:
    async def was_said() -> bool:
        return len(entries(parent, event)) >= times

    await eventually(was_said)


async def until_both_answer(parent: ServerProcess) -> None:
    async def have() -> bool:
        async with httpx.AsyncClient() as client:  # a connection of its own
            assert (await client.get(f"{parent.url}/health")).status_code == 200
        return set(who_said(parent, "request")) == {0, 1}

    await eventually(have)


# -- As one server --------------------------------------------------------------------------------


async def test_both_serve_one_registry_on_one_port_and_are_announced_once(
    server: Server, tmp_path: Path
) -> None:
    with workers(server, tmp_path) as parent:
        assert parent.announcement == [
            f"Discovery Service v{__version__}",
            f"gRPC server listening on {LOOPBACK}:{parent.port}",
            "Ready to accept registrations",
        ]
        assert who_said(parent, "serving") == [0, 1]
        async with DiscoveryClient(parent.url, timeout=PATIENCE) as client:
            granted = await client.register_colony(registration())

        async def finds() -> bool:
            async with DiscoveryClient(parent.url, timeout=PATIENCE) as another:
                assert (await another.lookup_colony(MESH)).revision == granted.revision
            return set(who_said(parent, "request")) == {0, 1}

        await eventually(finds)
        parent.signal()
        assert parent.exit_code() == 0
        assert parent.process.stdout
        assert not parent.process.stdout.read()
    assert who_said(parent, "draining") == who_said(parent, "stopped") == [0, 1]


async def test_a_signal_to_all_processes_is_but_one_to_each_and_a_second_ends_the_wait(
    server: Server, tmp_path: Path
) -> None:
    """As a terminal and systemd send it: a worker that took it for two would drop its calls."""
    with workers(server, tmp_path, "--drain-delay", "3000") as parent:
        for worker in map(psutil.Process, pids(parent)):
            worker.send_signal(signal.SIGINT)
            worker.send_signal(signal.SIGTERM)
        parent.signal(signal.SIGINT)
        await until_all_say(parent, "leaving")
        await until_both_answer(parent)
        assert not entries(parent, "draining")
        parent.signal()
        assert parent.exit_code() == 0
    assert who_said(parent, "stopped") == [0, 1]


async def test_systemd_hears_of_all_as_of_one_and_a_reload_reaches_each(
    server: Server, tmp_path: Path
) -> None:
    keys, config = tmp_path / "keys.yaml", tmp_path / "config.yaml"
    create_key(keys, "ops", [Role.ADMIN], now=SystemClock().now())
    config.write_text("ttl: 100\n")
    flags = ("--auth", "keys", "--keys-file", str(keys), "--config", str(config))
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(PATIENCE)

        def told() -> str:
            while (message := listening.recv(4096).decode()) == "WATCHDOG=1":
                watched.append(message)
            return message

        watched: list[str] = []
        systemd = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with workers(server, tmp_path, *flags, **systemd) as parent:
            accepting = f"READY=1\nSTATUS=Accepting registrations on port {parent.port}"
            assert told() == accepting
            config.write_text("ttl: 200\n")
            parent.signal(signal.SIGHUP)
            assert told().startswith("RELOADING=1\n")
            assert told() == f"{accepting}; not reloaded: settings"
            await until_all_say(parent, "reloaded")
            assert listening.recv(4096) == b"WATCHDOG=1"
            parent.signal()
            assert told() == "STOPPING=1\nSTATUS=Draining\nEXTEND_TIMEOUT_USEC=20000000"
            assert parent.exit_code() == 0
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            told()
    assert {line["part"] for line in entries(parent, "reloaded")} == {"API keys"}
    [refused] = entries(parent, "not reloaded; the old stays in force")
    assert (refused["part"], refused["why"]) == ("settings", "restart to change ttl")


async def test_each_has_a_side_port_and_the_admin_api_of_one_drains_all(
    server: Server, tmp_path: Path
) -> None:
    first, admin = free_ports(), f"unix:{tmp_path}/admin"
    flags = ("--metrics-port", str(first), "--admin-listen", admin)
    with workers(server, tmp_path, *flags) as parent:
        async with httpx.AsyncClient() as client:
            for side in (f"http://{LOOPBACK}:{first + index}" for index in range(WORKERS)):
                assert (await client.get(f"{side}/readyz")).status_code == 200
                assert "coral_discovery_build_info" in (await client.get(f"{side}/metrics")).text
        drain = await asyncio.create_subprocess_exec(
            script("coral-discoveryctl"), "drain", "--admin", admin
        )
        assert await drain.wait() == 0
        assert parent.exit_code() == 0
    ports = {line["worker"]: line["metrics_port"] for line in entries(parent, "serving")}
    assert ports == {0: first, 1: first + 1}
    assert who_said(parent, "admin API listening") == [0]
    assert who_said(parent, "stopped") == [0, 1]


def free_ports() -> int:
    """Return the first of two free ports."""
    while True:
        first = free_port()
        with suppress(OSError), socket.create_server((LOOPBACK, first + 1)):
            return first


# -- When something ends --------------------------------------------------------------------------


async def test_a_worker_that_ends_by_itself_is_replaced_unless_all_stop(
    server: Server, tmp_path: Path
) -> None:
    with workers(server, tmp_path) as parent:
        for turn, number in enumerate((signal.SIGKILL, signal.SIGTERM), 1):
            before = pids(parent)
            victim = min(before)
            psutil.Process(victim).send_signal(number)
            await until_said(parent, "serving", WORKERS + turn)
            assert before - pids(parent) == {victim}
            assert len(pids(parent)) == WORKERS
        await until_both_answer(parent)
        for worker in map(psutil.Process, pids(parent)):
            worker.kill()
        await until_said(parent, "worker ended", 2 + WORKERS)
        parent.signal()
        assert parent.exit_code() == 0
    killed, stopped, *_ = entries(parent, "worker ended")
    assert killed["why"] == "signal 9 (Killed)"
    assert stopped["why"] == "it was stopped"


async def test_no_worker_outlives_a_parent_that_is_killed(server: Server, tmp_path: Path) -> None:
    with workers(server, tmp_path) as parent:
        orphans = pids(parent)
        async with (
            DiscoveryClient(parent.url, timeout=PATIENCE) as client,
            aclosing(client.watch_colony(MESH)) as states,  # a call that would last
        ):
            await anext(states)
            parent.signal(signal.SIGKILL)
            with pytest.raises((DrainingError, UnreachableError)):
                await anext(states)

        async def are_over() -> bool:
            return all(map(is_over, orphans))

        await eventually(are_over)
    assert who_said(parent, "stopped") == [0, 1]


async def test_a_stop_that_is_not_clean_is_no_success(server: Server, tmp_path: Path) -> None:
    with workers(server, tmp_path, "--drain-delay", "3000") as parent:
        parent.signal()
        await until_all_say(parent, "leaving")
        psutil.Process(max(pids(parent))).kill()
        parent.signal()
        assert parent.exit_code() == 1
    assert "did not stop cleanly: signal 9 (Killed)" in parent.log()


@asynccontextmanager
async def kept(server: Server, log: LogCapture, **settings: Any) -> AsyncIterator[Workers]:
    """Workers of a parent in this process, which are to prove often that they live."""
    given = {"host": LOOPBACK, "port": 0, "metrics_port": 0, "admin_listen": "off", "workers": 2}
    chosen = ServerSettings(store=server.url, **{**given, **settings})
    parent = Workers(chosen, capturing_logger(log), beat=1.0)
    await parent.start()
    try:
        yield parent
    finally:
        async with asyncio.timeout(PATIENCE):
            await parent.stop()


async def test_a_worker_that_hangs_is_killed_and_a_stop_does_not_wait_for_the_next(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.workers.parent._FIRST_DELAY", 3000.0)
    log = LogCapture()

    async with kept(server, log):
        children = psutil.Process().children()
        hung, *_ = (each for each in children if "discovery.workers" in each.cmdline())
        hung.suspend()

        async def was_killed() -> bool:
            return is_over(hung.pid) and bool(log.entries[1:])

        await eventually(was_killed)
    ended = log.entries[1]
    assert (ended["event"], ended["why"]) == ("worker ended", "it hung, and was killed")


# -- When it cannot be ----------------------------------------------------------------------------


def complaint(*arguments: str) -> str:
    result = run_command("--workers", "2", "--host", LOOPBACK, "--port", "0", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    return line


def test_workers_without_a_shared_store_are_refused() -> None:
    assert "needs a Redis store (store redis://HOST:6379/0)" in complaint("--store", "memory")


def test_a_port_that_another_service_has_is_not_shared_with_it(server: Server) -> None:
    with socket.create_server((LOOPBACK, 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        said = complaint("--store", server.url, "--port", str(port))
    assert f"port {port} is already in use" in said


def test_what_a_worker_cannot_do_ends_all_and_is_said_once(server: Server, tmp_path: Path) -> None:
    missing = ("--tls-cert", str(tmp_path / "none.crt"), "--tls-key", str(tmp_path / "none.key"))
    assert "none.crt" in complaint("--store", server.url, *missing)


@pytest.mark.parametrize(
    "program, why", [("/bin/false", "exit code 1"), ("/nowhere/python", "No such file")]
)
async def test_workers_that_cannot_start_are_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    monkeypatch.setattr("sys.executable", program)
    log = LogCapture()
    with pytest.raises(WorkersFailedError, match=f"worker [01] ended before it served: .*{why}"):
        async with kept(server, log):
            pass
    assert not log.entries


def test_a_crash_is_no_mistake_in_the_settings(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif '-m' in sys.orig_argv:\n    raise SystemExit(7)\n"
    )
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    flags = ("--workers", "2", "--store", server.url, "--port", "0")
    result = run_command(*flags, PYTHONPATH=path)
    assert result.returncode == 1
    assert "ended before it served" in result.stderr.splitlines()[-1]
