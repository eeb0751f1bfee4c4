"""WireGuard: keys, mesh addresses, and tunnels made with `wg` and `ip`, or wireguard-go where the kernel has no module.

    keys = load_or_create(Path("private.key"))
    settings = TunnelSettings(
        interface_name("agent", mesh_id, keys.public_key), keys, mesh_interface(mesh_id, keys.public_key)
    )
    programs = Programs()
    tunnel = WgTunnel(settings, choose_backend("auto", programs), programs)
    await tunnel.open()
    await tunnel.set_peer(Peer(colony_key, (mesh_prefix(mesh_id),), "203.0.113.5:41820", keepalive=KEEPALIVE))

Tunnels need Linux, and root or CAP_NET_ADMIN; nothing else here does.
"""

from discovery.wireguard.addresses import (
    interface_name,
    mesh_address,
    mesh_interface,
    mesh_prefix,
)
from discovery.wireguard.devices import Backend, choose_backend
from discovery.wireguard.endpoints import resolve_endpoint
from discovery.wireguard.errors import (
    CommandFailedError,
    PermissionNeededError,
    ProgramMissingError,
    TunnelError,
)
from discovery.wireguard.interfaces import address_changes, local_addresses, local_endpoints
from discovery.wireguard.joining import PROOF_NAME, JoinToken
from discovery.wireguard.keys import KeyPair, load, load_or_create
from discovery.wireguard.programs import Programs
from discovery.wireguard.quick import wg_quick_config
from discovery.wireguard.tunnel import KEEPALIVE, Peer, PeerStatus, Tunnel, TunnelSettings
from discovery.wireguard.wg import WgTunnel

__all__ = [
    "KEEPALIVE",
    "PROOF_NAME",
    "Backend",
    "CommandFailedError",
    "JoinToken",
    "KeyPair",
    "Peer",
    "PeerStatus",
    "PermissionNeededError",
    "ProgramMissingError",
    "Programs",
    "Tunnel",
    "TunnelError",
    "TunnelSettings",
    "WgTunnel",
    "address_changes",
    "choose_backend",
    "interface_name",
    "load",
    "load_or_create",
    "local_addresses",
    "local_endpoints",
    "mesh_address",
    "mesh_interface",
    "mesh_prefix",
    "resolve_endpoint",
    "wg_quick_config",
]
