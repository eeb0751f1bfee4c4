"""The addresses of this machine that others may reach it at, and their changes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator

import psutil

from discovery.validation import MAX_ENDPOINTS, IPAddress
from discovery.wireguard.addresses import DEVICE_PREFIX
from discovery.wireguard.endpoints import joined

_FAMILIES = {socket.AF_INET, socket.AF_INET6}


def local_addresses() -> list[IPAddress]:
    """Return the addresses of this machine's interfaces that are up, IPv4 first, each once.

    Without those that mean nothing to others (loopback, link-local, multicast, unspecified), and without our own
    tunnels'.
    """
    return sorted(dict.fromkeys(_usable_addresses()), key=lambda address: address.version)


def local_endpoints(
    port: int, observed: str | None = None, addresses: Iterable[IPAddress] | None = None
) -> list[str]:
    """Return where this machine may be reached at UDP `port`, most promising first, at most MAX_ENDPOINTS.

    First its own global addresses, then the address `observed` that discovery saw us come from (a NAT's, if it is not
    one of ours), then its other addresses, good within its own network; each time IPv4 before IPv6. `addresses` are
    those of `local_addresses` unless they are given.
    """
    own = list(local_addresses() if addresses is None else addresses)
    public = [address for address in own if address.is_global]
    ordered = dict.fromkeys([*public, *_seen(observed), *own])
    return [joined(address, port) for address in ordered][:MAX_ENDPOINTS]


async def address_changes(
    interval: float = 1.0,
    *,
    read: Callable[[], list[IPAddress]] = local_addresses,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AsyncGenerator[list[IPAddress]]:
    """Yield this machine's addresses each time their set has changed; looks every `interval` seconds.

    What they are when it starts is no change.
    """
    known = set(read())
    while True:
        await sleep(interval)
        now = read()
        if set(now) != known:
            known = set(now)
            yield now


def _usable_addresses() -> Iterator[IPAddress]:
    states = psutil.net_if_stats()
    for name, entries in psutil.net_if_addrs().items():
        if name.startswith(DEVICE_PREFIX) or name not in states or not states[name].isup:
            continue
        for entry in entries:
            if entry.family in _FAMILIES:
                yield from _usable(entry.address)


def _seen(observed: str | None) -> Iterator[IPAddress]:
    if observed is not None:
        yield from _usable(observed)


def _usable(text: str) -> Iterator[IPAddress]:
    """Return the address, without its zone, if others may reach it; what is no address is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return
    address = getattr(address, "ipv4_mapped", None) or address
    useless = address.is_loopback or address.is_link_local or address.is_multicast
    if not (useless or address.is_unspecified):
        yield address
