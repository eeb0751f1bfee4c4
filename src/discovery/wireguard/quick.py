"""A tunnel as a configuration file of `wg-quick`, for those who bring their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from discovery.wireguard.tunnel import Peer, TunnelSettings


def wg_quick_config(settings: TunnelSettings, peers: Iterable[Peer]) -> str:
    """Return the text of the file. It holds the private key."""
    sections = [_interface(settings), *map(_peer, peers)]
    return "\n".join("".join(f"{line}\n" for line in section) for section in sections)


def _interface(settings: TunnelSettings) -> Iterator[str]:
    yield "[Interface]"
    yield f"PrivateKey = {settings.keys.private_key}"
    yield f"Address = {settings.address}"
    if settings.port:
        yield f"ListenPort = {settings.port}"
    yield f"MTU = {settings.mtu}"


def _peer(peer: Peer) -> Iterator[str]:
    yield "[Peer]"
    yield f"PublicKey = {peer.pubkey}"
    if peer.preshared_key is not None:
        yield f"PresharedKey = {peer.preshared_key}"
    yield f"AllowedIPs = {', '.join(map(str, peer.allowed_ips))}"
    if peer.endpoint is not None:
        yield f"Endpoint = {peer.endpoint}"
    if peer.keepalive is not None:
        yield f"PersistentKeepalive = {peer.keepalive}"
