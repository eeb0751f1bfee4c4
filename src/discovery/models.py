"""What the service talks about: frozen values and pure functions on them.

Times are whole microseconds since the Unix epoch (names end in `_us`), as precise as protobuf's Timestamp gets
in Python and free of rounding.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

NO_METADATA: Mapping[str, str] = MappingProxyType({})

_IPV6_SITE = 64
"""Bits that tell one IPv6 site from another; whoever has a site has all of its addresses."""

RENEWALS_PER_LEASE = 5
RENEWAL_JITTER = 0.1
_SOONEST = (1 - RENEWAL_JITTER) / RENEWALS_PER_LEASE
_WINDOW = 2 * RENEWAL_JITTER / RENEWALS_PER_LEASE
"""Of a lease: when the first of a fleet renews it, and in how long all of them do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that somebody observed, as against one that a colony says it has."""

    ip: str
    port: int
    protocol: str = "udp"
    via_relay: bool = False


@dataclass(frozen=True, slots=True)
class CertificateFingerprint:
    """A certificate's digest; `algorithm` is the protocol's enum number."""

    algorithm: int
    value: bytes


@dataclass(frozen=True, slots=True)
class PublicEndpoint:
    """How to reach a colony over HTTPS, without WireGuard. Carried for its readers, not interpreted."""

    enabled: bool = False
    url: str = ""
    ca_cert: str = ""
    ca_fingerprint: CertificateFingerprint | None = None
    updated_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """What a colony says of itself (RFD-001, RegisterColonyRequest), or an agent. Equal values mean nothing changed.

    A colony has no `agent_id`, an agent always has one: so neither can ever be taken for the other.
    """

    mesh_id: str
    pubkey: str
    endpoints: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA)
    mesh_ipv4: str = ""
    mesh_ipv6: str = ""
    connect_port: int = 0
    public_port: int = 0
    observed_endpoint: Endpoint | None = None
    public_endpoint: PublicEndpoint | None = None
    agent_id: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A registration and how long it holds.

    `revision` names this content of the mesh: it grows whenever the content changes and stays when a renewal
    repeats it, so that a watcher who has seen it need not see it again. Colonies and agents are counted apart: one
    row of revisions for the colony of a mesh, one for all of its agents.
    """

    registration: Registration
    revision: int
    last_seen_us: int
    expires_at_us: int
    granted_at_us: int = field(default=0, compare=False)
    """When it was first granted. Only administrators are told, as of `owner`."""
    owner: str = field(default="", compare=False)
    """The name of the API key that it was last registered with, if there was one."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What was found out about who calls."""

    key_name: str = ""
    """The name of the API key, if there is one."""
    old_pubkey: str = ""
    """The public key whose holder agrees to move to another, as was proved."""


NOBODY = Caller()
"""Who calls where nobody asked."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a lease is granted, beside what is registered."""

    reserve: int = 0
    """For how many seconds after its end the name stays its key's; 0 is not at all."""
    old_pubkey: str = ""
    """Another key whose holder agrees: what that one holds, or has reserved, passes to the registration's key."""
    owner: str = ""
    """The name of the API key of the call."""
    most_of_owner: int = 0
    """How many colonies one owner may have at once, this one included; 0 is any number, as of the others."""
    most_agents: int = 0
    """How many agents one mesh may have at once."""
    most_in_all: int = 0
    """How many leases there may be at once."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A name that is its last holder's although the lease may have ended."""

    pubkey: str
    until_us: int


@dataclass(slots=True)  # see Instant
class Registered:
    """What a colony or an agent is told of its lease, granted or renewed. `ttl` and `refresh_after` are in seconds."""

    revision: int
    ttl: int
    expires_at_us: int
    refresh_after: int
    observed_endpoint: Endpoint | None


@dataclass(slots=True)  # see Instant
class Found:
    """What a lookup found. `staleness` is None, or how many seconds ago it was read, if the store is away."""

    lease: Lease
    staleness: int | None = None


class Counts(NamedTuple):
    """How many live leases there are."""

    colonies: int
    agents: int


@dataclass(frozen=True, slots=True)
class HealthReport:
    """How the service is."""

    status: str
    version: str
    uptime_seconds: int
    registered_colonies: int


class Presence(enum.Enum):
    """Whether there is a live lease."""

    REGISTERED = "registered"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """The whole state of one colony or agent at one revision; `lease` is None when it is absent.

    `agent_id` is empty for a colony.
    """

    mesh_id: str
    revision: int
    lease: Lease | None
    agent_id: str = ""
    expired: bool = field(default=False, compare=False)
    """Whether it is absent because nobody renewed its lease. An absence is the same state whatever it came from."""

    @property
    def presence(self) -> Presence:
        """Whether it is registered at this revision."""
        return Presence.ABSENT if self.lease is None else Presence.REGISTERED


@dataclass(frozen=True, slots=True)
class Synced:
    """Says to a watcher of a mesh's agents that every one that is registered was named; `revision` is the highest.

    If that is the revision the watch began after, then nothing has changed since, and none was named.
    """

    mesh_id: str
    revision: int


def lease_name(mesh_id: str, agent_id: str = "") -> str:
    """Return what tells a colony's or an agent's lease from every other's: no id has a slash in it."""
    return f"{mesh_id}/{agent_id}" if agent_id else mesh_id


def next_revision(previous: int, unix_us: int) -> int:
    """Return the revision that follows `previous` at the time `unix_us`.

    Time keeps it growing across a loss of `previous` (an expiry, a lost store); the `+ 1` keeps it growing when
    the clock is stepped back.
    """
    return max(previous + 1, unix_us)


def refresh_after(ttl: int, spread: float) -> int:
    """Return after how many seconds to renew a lease of `ttl` seconds: about a fifth of it.

    `spread` is a random number in [0, 1) that moves the answer by up to a tenth either way, so that a fleet that
    started together does not renew together.
    """
    return int(ttl * (_SOONEST + _WINDOW * spread) + 0.5) or 1


def plain_address(address: str) -> str | None:
    """Return an IP address as people write it: no IPv6 zone, IPv4 not dressed as IPv6; None if it is not one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def is_this_machine(host: str) -> bool:
    """Return whether a host is this machine for certain: `localhost` or a loopback address, no name like one."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def site_of(address: str) -> str:
    """Return what stands for everybody who can call from `address`: itself, or its /64 in IPv6 (RFC 6177)."""
    plain = plain_address(address)
    if plain is None or ":" not in plain:
        return plain or address
    return str(ipaddress.ip_network((plain, _IPV6_SITE), strict=False))


@lru_cache(maxsize=4096)
def observed_endpoint(caller: str | None) -> Endpoint | None:
    """Return a caller's IP address as an endpoint, or None if it has no IP address (a unix socket).

    The port is 0: the source port of a TCP connection says nothing about a UDP mapping in the caller's NAT.
    """
    return None if caller is None else Endpoint(caller, 0, "tcp")
