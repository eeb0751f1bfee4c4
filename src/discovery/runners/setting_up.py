"""What both commands set up in the same way: the client, keys, token and tunnel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

from discovery.client import DiscoveryClient, tls_context
from discovery.proof import Prover
from discovery.runners.settings import CoralSettings
from discovery.wireguard import (
    JoinToken,
    KeyPair,
    Programs,
    Tunnel,
    TunnelError,
    TunnelSettings,
    WgTunnel,
    choose_backend,
    interface_name,
    load,
    load_or_create,
    mesh_interface,
)
from discovery.wireguard.addresses import Role
from discovery.wireguard.endpoints import joined

MakeTunnel = Callable[[TunnelSettings], Tunnel]


def make_client(settings: CoralSettings, keys: KeyPair) -> DiscoveryClient:
    """Return a client of the discovery service, which proves to hold `keys` where that is asked for.

    Raises:
        ConfigError: an endpoint, certificate or key cannot be used.
    """
    found, old = settings.discovery, settings.wireguard.old_key_file
    old_key = None if old is None else load(old).private_key
    tls = None
    if found.ca_cert or found.client_cert:
        tls = tls_context(found.ca_cert, found.client_cert, found.client_key)
    return DiscoveryClient(
        found.endpoint,
        timeout=found.timeout,
        tls=tls,
        api_key=settings.api_key_text(),
        prover=Prover(keys.private_key, old_key),
    )


def load_keys(settings: CoralSettings, default: Path) -> KeyPair:
    """Return the key pair in the user's key file, or in `default`; a missing file is made.

    Raises:
        ConfigError: the file cannot be used.
    """
    return load_or_create(settings.wireguard.key_file or default)


def load_token(settings: CoralSettings) -> JoinToken | None:
    """Return the join token, if there is one.

    Raises:
        ConfigError: it cannot be read, or is too short.
    """
    text = settings.join_token_text()
    return None if text is None else JoinToken(text, settings.mesh_id)


def tunnel_settings(
    settings: CoralSettings, role: Role, keys: KeyPair, port: int
) -> TunnelSettings:
    """Return this end of the tunnel, at UDP `port` unless the user says another."""
    wanted, pubkey = settings.wireguard, keys.public_key
    return TunnelSettings(
        name=wanted.interface or interface_name(role, settings.mesh_id, pubkey),
        keys=keys,
        address=mesh_interface(settings.mesh_id, pubkey),
        port=port if wanted.port is None else wanted.port,
    )


def tunnel_maker(settings: CoralSettings) -> MakeTunnel | None:
    """Return what makes tunnels with the user's backend; None if that is `off`."""
    backend = settings.wireguard.backend
    if backend == "off":
        return None

    def make(wanted: TunnelSettings) -> Tunnel:
        programs = Programs()
        return WgTunnel(wanted, choose_backend(backend, programs), programs)

    return make


async def until_lost(tunnel: Tunnel) -> NoReturn:
    """Wait until the tunnel is lost, if ever.

    Raises:
        TunnelError: it is.
    """
    raise TunnelError(f"the tunnel is lost: {await tunnel.lost()}")


def with_port(endpoint: str, port: int) -> str:
    """Return `endpoint` with `port`, unless it has one: the user may say just a host."""
    host = endpoint.removeprefix("[").removesuffix("]")
    with suppress(ValueError):
        return joined(ip_address(host), port)
    return endpoint if ":" in endpoint else f"{endpoint}:{port}"
