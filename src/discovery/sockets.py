"""The sockets of a server: all that it is told to listen on, or none."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from discovery.admin.port import AdminPort
from discovery.config import ServerSettings
from discovery.errors import ConfigError


class Bind(Protocol):
    """Binds a TCP socket: see `discovery.transport.binding.bind`."""

    def __call__(
        self, host: str, port: int, flag: str = ..., /, *, shared: bool = ...
    ) -> socket.socket:
        """Return it; raises ConfigError if it cannot be bound."""
        ...


@dataclass(frozen=True, slots=True)
class Sockets:
    """Bound sockets, of which the latter two may be off."""

    public: socket.socket
    side: socket.socket | None
    admin: socket.socket | None


def bind_all(
    settings: ServerSettings, admin: AdminPort | None, log: FilteringBoundLogger, bind: Bind
) -> Sockets:
    """Return the sockets of the public port, the side port and the admin API.

    The latter two are done without where they are taken, and nobody asked for them: a second server on one machine is
    to start, and Prometheus likes 9090 too.

    Raises:
        ConfigError: one that was asked for cannot be bound; then none is.
    """

    def bind_default(
        name: str, without: str, bind_it: Callable[[], socket.socket]
    ) -> socket.socket | None:
        try:
            return bound.enter_context(bind_it())
        except ConfigError as error:
            if name in settings.model_fields_set:
                raise
            log.warning(without, why=str(error))
            return None

    with ExitStack() as bound:
        public = bound.enter_context(
            bind(settings.host, settings.port, shared=settings.worker_count > 1)
        )
        side = admin_socket = None
        if settings.metrics_port:
            side = bind_default(
                "metrics_port",
                "serving without metrics",
                lambda: bind(settings.host, settings.metrics_port, "--metrics-port"),
            )
        if admin is not None:
            admin_socket = bind_default("admin_listen", "serving without the admin API", admin.bind)
        bound.pop_all()
    return Sockets(public, side, admin_socket)
