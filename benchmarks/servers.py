"""The servers that are measured, and how each is started: alone on one core."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from os import pathsep
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.builds import ROOT, Scratch, run, search_path, tool
from benchmarks.calls import Coral, Etcd, Schema
from benchmarks.probing import HOST, wait_for
from benchmarks.processes import (
    LOAD_CORE,
    SERVER_CORE,
    START,
    free_port,
    listens,
    memory_folder,
    pinned,
)
from benchmarks.workloads import Protocol


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate for localhost, PEM."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where one process is to listen, and its own empty folder."""

    port: int
    tls: Tls | None
    folder: Path


@dataclass(frozen=True, slots=True)
class Start:
    """A command line, and what its environment has beyond ours."""

    command: Sequence[str]
    environment: Mapping[str, str]


Prepare = Callable[[Scratch, ExitStack], Callable[[Place], Start]]
"""Builds what a server needs, once in a run, and returns how to start it; raises SkipError where that cannot be."""


@dataclass(frozen=True, slots=True)
class Server:
    """One of those that are measured."""

    name: str
    about: str
    prepare: Prepare
    protocols: frozenset[Protocol] = frozenset(Protocol)
    schema: Schema = field(default_factory=Coral)


@dataclass(frozen=True, slots=True)
class Instance:
    """A server that runs."""

    server: Server
    process: psutil.Process
    port: int
    ca: Path | None

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used since it started."""
        used = self.process.cpu_times()
        return used.user + used.system

    def resident_bytes(self) -> int:
        """Return the memory that it holds."""
        return int(self.process.memory_info().rss)


@contextmanager
def started(
    server: Server, start: Callable[[Place], Start], tls: Tls | None, core: int = SERVER_CORE
) -> Iterator[Instance]:
    """Run a server on one core for as long as the context is open.

    Raises:
        BrokenError: it ended, or did not listen in time.
    """
    with TemporaryDirectory(prefix="coral-bench-", dir=memory_folder()) as folder:
        place = Place(free_port(), tls, Path(folder))
        how = start(place)
        log = Path(folder, "log")
        with pinned(how.command, core, how.environment, log) as process:
            wait_for(
                lambda: listens(process, place.port, log), START, f"{server.name} does not listen"
            )
            ca = None if tls is None else tls.ca
            yield Instance(server, psutil.Process(process.pid), place.port, ca)


def tls_flags(tls: Tls | None, cert: str = "--tls-cert", key: str = "--tls-key") -> tuple[str, ...]:
    """Return the flags that name a server's certificate."""
    return () if tls is None else (cert, str(tls.cert), key, str(tls.key))


def coral_command(port: int, *more: str) -> tuple[str, ...]:
    """Return the command of our server: as it comes, with metrics, but with no rate limits and few logs."""
    settings = ("--host", HOST, "--port", str(port), "--metrics-port", str(free_port()))
    quiet = ("--rate-limit", "off", "--log-level", "warning", "--admin-listen", "off")
    limits = ("--max-connections", "0", "--max-connections-per-address", "0")
    return (tool("coral-discovery"), *settings, *quiet, *limits, *more)


def coral(*more: str) -> Prepare:
    """Return how to prepare our server with further flags."""

    def prepare(_scratch: Scratch, _stack: ExitStack) -> Callable[[Place], Start]:
        return lambda place: Start(coral_command(place.port, *tls_flags(place.tls), *more), {})

    return prepare


def _coral_redis(scratch: Scratch, stack: ExitStack) -> Callable[[Place], Start]:
    port = free_port()
    address = stack.enter_context(_redis(port))
    return coral("--store", f"redis://{address}/0")(scratch, stack)


@contextmanager
def _redis(port: int) -> Iterator[str]:
    program = shutil.which("redis-server", path=search_path()) or tool("valkey-server", "valkey")
    keeps_nothing = ("--save", "", "--appendonly", "no")
    command = (program, "--bind", HOST, "--port", str(port), *keeps_nothing)
    with TemporaryDirectory(prefix="coral-bench-") as folder:
        log = Path(folder, "log")
        with pinned((*command, "--dir", folder), LOAD_CORE, {}, log) as process:
            wait_for(lambda: listens(process, port, log), START, "redis does not listen")
            yield f"{HOST}:{port}"


def _python_peer(
    module: str, generated: Callable[[Scratch], Path] | None, scratch: Scratch, _stack: ExitStack
) -> Callable[[Place], Start]:
    folders = [str(ROOT), *([str(generated(scratch))] if generated else [])]
    command = (sys.executable, "-m", f"benchmarks.peers.{module}")
    more = {"PYTHONPATH": pathsep.join(folders)}
    return lambda place: Start((*command, "--port", str(place.port), *tls_flags(place.tls)), more)


def _connect_go(scratch: Scratch, _stack: ExitStack) -> Callable[[Place], Start]:
    program = str(scratch.go / "connectgo")
    return lambda place: Start((program, "--port", str(place.port), *tls_flags(place.tls)), {})


def _etcd(_scratch: Scratch, _stack: ExitStack) -> Callable[[Place], Start]:
    program = tool("etcd", "etcd-server")

    def start(place: Place) -> Start:
        scheme = "http" if place.tls is None else "https"
        clients = f"{scheme}://{HOST}:{place.port}"
        peers = f"http://{HOST}:{free_port()}"
        flags = {
            "--data-dir": str(place.folder / "data"),
            "--listen-client-urls": clients,
            "--advertise-client-urls": clients,
            "--listen-peer-urls": peers,
            "--initial-advertise-peer-urls": peers,
            "--initial-cluster": f"default={peers}",
            "--log-level": "error",
        }
        pairs = [word for pair in flags.items() for word in pair]
        return Start((program, *pairs, *tls_flags(place.tls, "--cert-file", "--key-file")), {})

    return start


GENERAL_PATH = "--no-fast-path"


OURS = Server("coral", "this server, memory store", coral())

_GENERAL = Server("coral-general", f"this server, {GENERAL_PATH}", coral(GENERAL_PATH))


def servers() -> tuple[Server, ...]:
    """Return all that can be measured, ours first."""
    has_general_path = GENERAL_PATH in run(tool("coral-discovery"), "--help")
    return (
        OURS,
        *((_GENERAL,) if has_general_path else ()),
        Server("coral-redis", "this server on Redis, which has the load's core", _coral_redis),
        Server(
            "grpclib",
            "plain grpclib and betterproto",
            partial(_python_peer, "plain_grpclib", None),
            frozenset({Protocol.GRPC}),
        ),
        Server(
            "grpcio",
            "grpcio.aio and protobuf",
            partial(_python_peer, "grpcio_aio", attrgetter("grpcio")),
            frozenset({Protocol.GRPC}),
        ),
        Server(
            "connectrpc",
            "connectrpc on uvicorn",
            partial(_python_peer, "connectrpc_uvicorn", attrgetter("connectrpc")),
            frozenset({Protocol.PROTO, Protocol.JSON}),
        ),
        Server("connect-go", "connect-go on net/http", _connect_go),
        Server("etcd", "etcd, data in memory", _etcd, frozenset({Protocol.GRPC}), Etcd()),
    )
