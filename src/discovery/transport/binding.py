"""Sockets to listen on, and what to do when there is none."""

from __future__ import annotations

import errno
import os
import socket

from discovery.errors import ConfigError


def bind(host: str, port: int, flag: str = "--port", *, shared: bool = False) -> socket.socket:
    """Return a socket that listens at `host` (empty: every address) and `port` (0: one that the kernel chooses).

    If it is `shared`, others of the same user may listen there too, each by saying so (SO_REUSEPORT).

    Raises:
        ConfigError: it cannot be bound; the message says what to do, naming `flag` as what gives the port.
    """
    try:
        if not host:
            return _bind_everywhere(port, shared=shared)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((host, port), family=found[0][0], reuse_port=shared)
    except UnicodeError:
        raise ConfigError(_no_address(host)) from None
    except OSError as error:
        raise ConfigError(_explain(error, host, port, flag)) from None


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket at an address where nobody listens, and neither does it: `bind` may share the address with it.

    Raises:
        ConfigError: as `bind`, or the system has nothing like SO_REUSEPORT.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("this system lets no two processes share a port: use --workers 1")
    with bind(host, port) as alone:
        # Only now, so that it was nobody else's: two services would share their callers without a word.
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder = socket.socket(alone.family, socket.SOCK_STREAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if alone.family == socket.AF_INET6:
                one_family = alone.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, one_family)
            holder.bind(alone.getsockname())
        except OSError as error:
            holder.close()
            raise ConfigError(_explain(error, host, port, "--port")) from None
    return holder


def _bind_everywhere(port: int, *, shared: bool) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=shared
        )
    return socket.create_server(("", port), reuse_port=shared)


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
