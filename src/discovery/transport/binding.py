"""Sockets to listen on, and what to do when there is none."""

from __future__ import annotations

import errno
import os
import socket

from discovery.errors import ConfigError


def bind(host: str, port: int, flag: str = "--port") -> socket.socket:
    """Return a socket bound to `host` (empty: every address) and `port` (0: one that the kernel chooses).

    Raises:
        ConfigError: it cannot be bound; the message says what to do, naming `flag` as what gives the port.
    """
    try:
        if not host:
            return _bind_everywhere(port)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((host, port), family=found[0][0])
    except UnicodeError:
        raise ConfigError(_no_address(host)) from None
    except OSError as error:
        raise ConfigError(_explain(error, host, port, flag)) from None


def _bind_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _no_address(host: str) -> str:
    return f"{host!r} is not an address of this machine: choose another with --host"


def _explain(error: OSError, host: str, port: int, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is already in use: stop the program that has it, or choose another with {flag}"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights: choose one above 1023 with {flag}"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return _no_address(host)
    return f"cannot listen on {host}:{port}: {os.strerror(error.errno) if error.errno else error}"
