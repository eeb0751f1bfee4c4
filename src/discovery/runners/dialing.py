"""Connecting a tunnel to a colony: its endpoints in order, until a handshake has really happened."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv6Network, ip_address

from discovery.wireguard import Peer, PeerStatus, Tunnel, TunnelError, resolve_endpoint
from discovery.wireguard.waiting import until

_HASTE = 0.3
"""Seconds after which an endpoint is tried once more: the colony may have heard of us a moment after our first try.

WireGuard itself would repeat a handshake after five.
"""

MakePeer = Callable[[str, str], Peer]
"""Returns the peer for a public key, at an endpoint."""


class Dialer:
    """Tries endpoints, one at a time: WireGuard has one endpoint for each peer."""

    def __init__(self, tunnel: Tunnel, make_peer: MakePeer, mesh: IPv6Network) -> None:
        """Set peers of `tunnel` as `make_peer` makes them; `mesh` is what the tunnel itself carries."""
        self._tunnel = tunnel
        self._make_peer = make_peer
        self._mesh = mesh

    async def dial(self, pubkey: str, endpoints: Iterable[str], patience: float) -> str | None:
        """Return the first endpoint at which the peer shakes hands, each within `patience` seconds; None if none does.

        Each begins a handshake of its own, at once, so whatever session there was is over.

        Raises:
            TunnelError: the tunnel is broken.
        """
        for endpoint in endpoints:
            for address in await self._addresses(endpoint):
                peer = self._make_peer(pubkey, address)
                if await self._try(peer, _HASTE) or await self._try(peer, patience):
                    return endpoint
        await self.forget(pubkey)
        return None

    async def status(self, pubkey: str) -> PeerStatus | None:
        """Return how the peer is, None if there is no such peer."""
        return (await self._tunnel.peers()).get(pubkey)

    async def forget(self, pubkey: str) -> None:
        """End the session with this peer."""
        await self._tunnel.remove_peer(pubkey)

    async def _addresses(self, endpoint: str) -> list[str]:
        """Return what an endpoint stands for, without what cannot be reached from here: that would cost patience."""
        with suppress(TunnelError):  # no such name: the next endpoint may do
            return [
                address for address in await resolve_endpoint(endpoint) if self._is_routed(address)
            ]
        return []

    def _is_routed(self, endpoint: str) -> bool:
        """Return whether this machine has a route there, and none through the tunnel itself."""
        host, _, port = endpoint.rpartition(":")
        address = ip_address(host.strip("[]"))
        if address in self._mesh:
            return False
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((str(address), int(port)))  # sends nothing
            except OSError:
                return False
        return True

    async def _try(self, peer: Peer, patience: float) -> bool:
        async def shook_hands() -> bool:
            status = await self.status(peer.pubkey)
            return status is not None and status.latest_handshake is not None

        await self._tunnel.replace_peer(peer)
        with suppress(TimeoutError):
            await until(shook_hands, patience)
            return True
        return False
