"""Where the admin API listens: the loopback or a Unix socket, or with API keys anywhere."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from discovery._gen.coral.discovery.admin.v1 import AdminServiceBase
from discovery.admin.rpcs import SERVICE, AdminRpcs
from discovery.admin.service import AdminService
from discovery.clock import Clock
from discovery.errors import ConfigError, PermissionDeniedError
from discovery.models import is_this_machine
from discovery.transport.binding import bind
from discovery.transport.bounds import Bounds
from discovery.transport.connections import Connections
from discovery.transport.drain import DrainGate
from discovery.transport.limits import ConnectionLimits
from discovery.transport.pipeline import Call, Guard, Pipeline, Witness
from discovery.transport.proxies import TrustedProxies
from discovery.transport.reflection import Reflection
from discovery.transport.serving import Surface, make_listener
from discovery.transport.tls import ServerTls

_OFF = ("", "off")
_UNIX = "unix:"
_CONNECTIONS = 100


@dataclass(frozen=True, slots=True)
class AdminAddress:
    """A host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> AdminAddress | None:
        """Return the address that `text` names; None if it is `off`.

        Raises:
            ConfigError: it names none.
        """
        if text in _OFF:
            return None
        if text.startswith(_UNIX) and len(text) > len(_UNIX):
            return cls(path=Path(text.removeprefix(_UNIX)))
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
            raise ConfigError(f"admin-listen must be HOST:PORT, unix:PATH or off, not {text!r}")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    @property
    def trusted(self) -> bool:
        """Whether only this machine's users reach it, or of a Unix socket its owner alone."""
        return self.path is not None or is_this_machine(self.host)

    def bind(self) -> socket.socket:
        """Return a socket bound to the address.

        Raises:
            ConfigError: it cannot be bound.
        """
        if self.path is None:
            return bind(self.host, self.port, "--admin-listen")
        return _bind_unix(self.path)

    def file(self) -> os.stat_result | None:
        """Return which file is at the address, if it is that of a Unix socket, and there."""
        with suppress(OSError):
            return None if self.path is None else self.path.lstat()
        return None

    def remove(self, bound: os.stat_result | None) -> None:
        """Remove the file that `bind` has left, `bound`, and none that another server has put in its place.

        Call it while the socket is open: until it is closed no other file can have its inode's number.
        """
        found = self.file()
        if self.path is not None and bound and found and os.path.samestat(bound, found):
            self.path.unlink(missing_ok=True)


def _bind_unix(path: Path) -> socket.socket:
    """Bind a Unix socket, for its owner alone; one that nobody listens at any more is replaced."""
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o600)  # nobody can connect before it listens
    except OSError as error:
        listening.close()
        raise ConfigError(f"admin-listen: cannot listen at {path}: {error.strerror}") from None
    return listening


def _remove_stale(path: Path) -> None:
    with suppress(OSError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


class LocalNames(Guard):
    """Refuses calls over HTTP by another name than this machine's.

    Browsers reach the loopback too: a page whose own name is made to lead there (DNS rebinding) could ask, and act,
    as if it came from here. Its Host is that name still.
    """

    def admit(self, call: Call) -> None:
        """See Guard.

        Raises:
            PermissionDeniedError: the call has a Host, and that is not this machine.
        """
        host = call.metadata.get("host")
        if host is not None and not _is_local(str(host)):
            raise PermissionDeniedError("the admin API answers to localhost and 127.0.0.1 alone")


def _is_local(host: str) -> bool:
    name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    return is_this_machine(name)


class AdminPort:
    """The admin API on its own socket, in every protocol, for as long as the server runs."""

    def __init__(
        self,
        address: AdminAddress,
        service: AdminService,
        guards: Sequence[Guard],
        witnesses: Sequence[Witness],
        gate: DrainGate,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._address = address
        self._log = log
        self._file: os.stat_result | None = None
        self._connections = Connections()
        reflection = Reflection(gate, (SERVICE.strip("/"),))
        rpcs = AdminRpcs(service)
        if address.trusted and address.path is None:
            guards = (LocalNames(), *guards)
        pipeline = Pipeline(
            rpcs.handlers(), gate, log, rpcs.streams(), guards=guards, witnesses=witnesses
        )
        surface = Surface(AdminServiceBase, pipeline, reflection.routes(), reflection.mounts)
        proxies = TrustedProxies(())
        self._reflection = reflection
        self._listener = make_listener(surface, gate, self._connections, proxies, Bounds(), clock)

    def bind(self) -> socket.socket:
        """Return a socket to start with.

        Raises:
            ConfigError: nothing can listen there.
        """
        listening = self._address.bind()
        self._file = self._address.file()
        return listening

    def start(self, listening: socket.socket, tls: ServerTls | None) -> int | None:
        """Serve on a socket that `bind` has returned; return the port, if it is one.

        Beyond this machine it speaks `tls`, if there is that.
        """
        tls = None if self._address.trusted else tls
        port = None if self._address.path is not None else int(listening.getsockname()[1])
        self._listener.start(listening, ConnectionLimits(_CONNECTIONS, 0), self._log, tls)
        self._log.info("admin API listening", at=str(self._address.path or port), tls=bool(tls))
        return port

    def load_http(self) -> None:
        """See Listener."""
        self._listener.load_http()

    async def stop(self) -> None:
        """Close, once the server's gate is closed."""
        self._reflection.drain()
        self._address.remove(self._file)
        await self._listener.stop(0)
