"""Endpoints with host names, resolved here: `wg` would retry a failing name for minutes, and we may not wait."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from discovery.wireguard.errors import TunnelError


async def resolve_endpoint(endpoint: str) -> list[str]:
    """Return what `host:port` stands for, as `IPv4:port` and `[IPv6]:port`, in the order to try them.

    An address is returned at once; a name is asked for once, with the time limits of the system's resolver.

    Raises:
        TunnelError: there is no such name, or it cannot be asked for.
    """
    host, _, port = endpoint.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        return [joined(ipaddress.ip_address(host), port)]
    except ValueError:
        addresses = await _ask(host)
    return list(dict.fromkeys(joined(address, port) for address in addresses))


async def _ask(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "not a host name"
        raise TunnelError(f"cannot resolve {host!r}: {why}") from None
    return [ipaddress.ip_address(address[0]) for *_, address in found]


def joined(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | str) -> str:
    """Return an endpoint in its usual form."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004
