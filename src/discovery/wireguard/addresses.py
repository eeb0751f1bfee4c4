"""Mesh addresses and device names, derived from mesh id and public key: there is nothing to allocate or to agree on.

A mesh is a /64 of its own among the unique local addresses (RFC 4193): fd, 40 bits of a hash of the mesh id, subnet 0.
In it, a member's interface id is 64 bits of a hash of the mesh id and its key. Whoever knows a member's key, which
discovery says, knows its address. A collision within a mesh takes about 2^32 members.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from typing import Literal

from discovery.wireguard.keys import decode_key

Role = Literal["colony", "agent"]

DEVICE_PREFIX = "coral-"
"""What the names of all our network devices begin with."""

_GLOBAL_ID_BYTES = 5
_INTERFACE_ID_BYTES = 8


def mesh_prefix(mesh_id: str) -> IPv6Network:
    """Return the /64 of a mesh."""
    global_id = _digest("coral mesh prefix v1", mesh_id.encode())[:_GLOBAL_ID_BYTES]
    return IPv6Network((b"\xfd" + global_id + bytes(10), 64))


def mesh_address(mesh_id: str, pubkey: str) -> IPv6Address:
    """Return the address within the mesh of the member with this key.

    Raises:
        ValueError: `pubkey` is no key.
    """
    digest = _digest("coral mesh address v1", mesh_id.encode(), decode_key(pubkey))
    return mesh_prefix(mesh_id)[_interface_id(digest)]


def mesh_interface(mesh_id: str, pubkey: str) -> IPv6Interface:
    """Return the same address with the mesh's prefix length, as a device is given it."""
    return IPv6Interface((mesh_address(mesh_id, pubkey), mesh_prefix(mesh_id).prefixlen))


def interface_name(role: Role, mesh_id: str, pubkey: str) -> str:
    """Return the name of the network device of a mesh's member: always the same, and at most 15 bytes (IFNAMSIZ).

    The key is part of it because wireguard-go's control socket has the device's name, and one host may hold several
    members in network namespaces that share their files.
    """
    digest = _digest("coral device v1", role.encode(), mesh_id.encode(), pubkey.encode())
    return f"{DEVICE_PREFIX}{digest[:4].hex()}"


def _interface_id(digest: bytes) -> int:
    # Zero is the subnet-router anycast address (RFC 4291 section 2.6.1).
    return int.from_bytes(digest[:_INTERFACE_ID_BYTES]) or 1


def _digest(label: str, *fields: bytes) -> bytes:
    return hashlib.sha256(framed(label, *fields)).digest()


def framed(label: str, *fields: bytes) -> bytes:
    """Return label and fields, each with its length before it, so that no two lists look the same."""
    parts = (label.encode(), *fields)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
