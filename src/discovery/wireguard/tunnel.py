"""What a tunnel is to a program that wants one: a device with a key and an address, and peers that come and go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Interface, IPv6Network
from typing import Protocol

from discovery.wireguard.keys import KeyPair, decode_key

MTU = 1420
"""Bytes that a tunnelled packet may have: 1500 less 80 for WireGuard over IPv6."""
KEEPALIVE = 25
"""Seconds between keepalives that hold a NAT's mapping open, as `wg(8)` advises."""

# Nothing that could end the line, or the word, that an endpoint becomes part of.
_ENDPOINT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a tunnel, as we want it.

    Its values come from the network and go into the configuration of a root's program: making one raises ValueError
    for what is no key and no endpoint.
    """

    pubkey: str
    allowed_ips: tuple[IPv6Network, ...] = ()
    """What we send to it, and take from it."""
    endpoint: str | None = None
    """`IPv4:port`, `[IPv6]:port` or `hostname:port`; None waits until it calls us."""
    preshared_key: str | None = field(default=None, repr=False)
    keepalive: int | None = None
    """Seconds between keepalives, which also start the first handshake at once; None sends none."""

    def __post_init__(self) -> None:
        decode_key(self.pubkey)
        if self.preshared_key is not None:
            decode_key(self.preshared_key)
        if self.endpoint is not None and not _ENDPOINT.fullmatch(self.endpoint):
            raise ValueError(f"not an endpoint: {self.endpoint!r}")


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer, as the device sees it."""

    endpoint: str | None
    """`IP:port` that it was last heard from, or that we set."""
    latest_handshake: int | None
    """Unix time in seconds of the last completed handshake; None if there was none."""
    received: int
    """Bytes."""
    sent: int


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """What our end of a tunnel is. `name` is the device's, at most 15 characters; `port` 0 lets the kernel choose."""

    name: str
    keys: KeyPair
    address: IPv6Interface
    port: int = 0
    mtu: int = MTU


class Tunnel(Protocol):
    """A WireGuard device of ours, in the network namespace of the calling process.

    Every method but `close` raises TunnelError if it cannot do its work, among it when the device was lost.
    """

    @property
    def port(self) -> int:
        """The UDP port that it listens on, known once it is open."""

    async def open(self) -> None:
        """Make the device, with key, address and port, and set it up. What fails half-way leaves nothing behind.

        A device of this name that a killed process of ours left behind is removed first.

        Raises:
            PermissionNeededError: this process may not make one.
            ProgramMissingError: what it takes is not installed.
            TunnelError: it cannot be made, or another process has it.
        """

    async def set_peer(self, peer: Peer) -> None:
        """Add this peer, or change the one with its key to be so. A session that is up goes on."""

    async def replace_peer(self, peer: Peer) -> None:
        """Remove the peer with this key and add it anew: a new handshake begins, at once if it has a keepalive."""

    async def remove_peer(self, pubkey: str) -> None:
        """Forget the peer with this key. Without one, nothing happens."""

    async def peers(self) -> Mapping[str, PeerStatus]:
        """Return every peer by its public key."""

    async def lost(self) -> str:
        """Wait until the device is lost without `close`, and return why; for ever, while all is well."""

    async def close(self) -> None:
        """Remove the device and end what serves it. Closing twice, or what never opened, does nothing."""
