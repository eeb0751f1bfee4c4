"""Every rule about what a request may hold, in one place (the design's "What an answer means").

| field                     | rule                                                                        |
|---------------------------|-----------------------------------------------------------------------------|
| mesh_id, agent_id         | 1 to 253 of `A-Z a-z 0-9 . _ -`, the first a letter or digit                |
| pubkey                    | canonical base64 of 32 bytes, not all zero                                  |
| endpoints                 | 1 to 32, or an observed_endpoint; no duplicate                              |
| endpoints[i]              | `IPv4:port`, `[IPv6]:port` or `hostname:port`; port 1 to 65535; no          |
|                           | unspecified or multicast address                                            |
| metadata                  | up to 64 entries, key up to 128 bytes, value up to 4 KiB, 16 KiB in all     |
| mesh_ipv4, mesh_ipv6      | empty, or one address of that family                                        |
| connect_port, public_port | 0 (none) to 65535                                                           |
| observed_endpoint         | a usable IP address, port 1 to 65535; protocol udp, tcp or empty            |

A request as a whole is up to 64 KiB; transports refuse a larger one before they read it.

A function named `check_...` returns the violations it found; `require` raises them all at once.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from discovery.errors import InvalidFieldError, Violation
from discovery.models import Endpoint, Registration

MAX_REQUEST_BYTES = 64 * 1024
MAX_ID_LENGTH = 253
MAX_ENDPOINTS = 32
MAX_METADATA_ENTRIES = 64
MAX_METADATA_KEY_BYTES = 128
MAX_METADATA_VALUE_BYTES = 4 * 1024
MAX_METADATA_BYTES = 16 * 1024
MAX_PORT = 65535
PUBKEY_BYTES = 32

_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ID_LENGTH - 1}}}", re.ASCII)
_HOST_PORT = re.compile(
    r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:]*)):(?P<port>[1-9][0-9]{0,4})", re.ASCII
)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_SHOWN = 40

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def require(violations: Iterable[Violation]) -> None:
    """Raise InvalidFieldError with all of `violations`, if there are any."""
    found = tuple(violations)
    if found:
        raise InvalidFieldError(found)


def check_registration(registration: Registration) -> Iterator[Violation]:
    """Check everything a colony may say of itself."""
    yield from check_id("mesh_id", registration.mesh_id)
    yield from _check_content(registration)


def check_agent_registration(registration: Registration) -> Iterator[Violation]:
    """Check everything an agent may say of itself."""
    yield from check_agent(registration.mesh_id, registration.agent_id)
    yield from _check_content(registration)


def check_agent(mesh_id: str, agent_id: str) -> Iterator[Violation]:
    """Check what names an agent."""
    yield from check_id("mesh_id", mesh_id)
    yield from check_id("agent_id", agent_id)


def _check_content(registration: Registration) -> Iterator[Violation]:
    yield from check_pubkey(registration.pubkey)
    yield from _check_endpoints(registration.endpoints, registration.observed_endpoint)
    yield from _check_observed(registration.observed_endpoint)
    yield from _check_metadata(registration.metadata)
    yield from _check_mesh_address("mesh_ipv4", registration.mesh_ipv4, 4)
    yield from _check_mesh_address("mesh_ipv6", registration.mesh_ipv6, 6)
    yield from _check_port("connect_port", registration.connect_port, lowest=0)
    yield from _check_port("public_port", registration.public_port, lowest=0)


def check_id(field: str, value: str) -> Iterator[Violation]:
    """Check a mesh_id or an agent_id."""
    if not value:
        yield Violation(field, "must not be empty")
    elif len(value) > MAX_ID_LENGTH:
        yield Violation(field, f"is {len(value)} characters long; at most {MAX_ID_LENGTH}")
    elif not _ID.fullmatch(value):
        yield Violation(
            field, "may hold only A-Z a-z 0-9 . _ - and must start with a letter or digit"
        )


@lru_cache(maxsize=4096)
def require_id(field: str, value: str) -> None:
    """Require what `check_id` checks, without the cost of asking again: agents look up the same meshes.

    Raises:
        InvalidFieldError: it is no id.
    """
    if not _ID.fullmatch(value):
        require(check_id(field, value))


def check_pubkey(value: str) -> Iterator[Violation]:
    """Check a WireGuard public key (RFC 7748 point in the base64 of RFC 4648, as `wg pubkey` prints it)."""
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != PUBKEY_BYTES or base64.b64encode(raw).decode() != value:
        yield Violation(
            "pubkey", f"must be the base64 of {PUBKEY_BYTES} bytes, as `wg pubkey` prints it"
        )
    elif not any(raw):
        yield Violation("pubkey", "must not be all zero")


def _check_endpoints(endpoints: Sequence[str], observed: Endpoint | None) -> Iterator[Violation]:
    if not endpoints and observed is None:
        yield Violation("endpoints", "at least one is needed, or an observed_endpoint")
    if len(endpoints) > MAX_ENDPOINTS:
        yield Violation("endpoints", f"{len(endpoints)} given; at most {MAX_ENDPOINTS}")
        return
    seen: dict[str, int] = {}
    for index, endpoint in enumerate(endpoints):
        field = f"endpoints[{index}]"
        canonical, problem = _parse_endpoint(endpoint)
        if problem:
            yield Violation(field, f"{_shown(endpoint)} {problem}")
        elif (first := seen.setdefault(canonical, index)) != index:
            yield Violation(field, f"{_shown(endpoint)} is a duplicate of endpoints[{first}]")


def _parse_endpoint(endpoint: str) -> tuple[str, str]:
    """Return (canonical form, problem); one of them is empty."""
    match = _HOST_PORT.fullmatch(endpoint)
    if match is None:
        return "", "must be IPv4:port, [IPv6]:port or hostname:port, port 1 to 65535"
    if int(match["port"]) > MAX_PORT:
        return "", "has a port above 65535"
    host, problem = (
        _parse_ipv6(match["v6"]) if match["host"] is None else _parse_host(match["host"])
    )
    return f"{host}:{match['port']}", problem


def _parse_ipv6(text: str) -> tuple[str, str]:
    if "%" in text:
        return "", "has a zone, which means nothing on another machine"
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return "", "is not an IPv6 address"
    return f"[{address}]", _address_problem(address)


def _parse_host(text: str) -> tuple[str, str]:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return text.lower().removesuffix("."), _hostname_problem(text)
    return str(address), _address_problem(address)


def _hostname_problem(name: str) -> str:
    """Apply RFC 1123 section 2.1; an all-digit last label would be a mistyped IPv4 address."""
    labels = name.removesuffix(".").split(".")
    if len(name) > MAX_ID_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        return "has an invalid host name"
    return "has an invalid IPv4 address" if labels[-1].isdigit() else ""


def _address_problem(address: IPAddress) -> str:
    bare = getattr(address, "ipv4_mapped", None) or address
    if bare.is_unspecified:
        return "is the unspecified address, which nobody can connect to"
    return "is a multicast address" if bare.is_multicast else ""


def _check_observed(observed: Endpoint | None) -> Iterator[Violation]:
    if observed is None:
        return
    field, ip = "observed_endpoint.ip", _bare_address(observed.ip)
    if ip is None:
        yield Violation(field, f"{_shown(observed.ip)} is not an IP address")
    elif problem := _address_problem(ip):
        yield Violation(field, f"{_shown(observed.ip)} {problem}")
    yield from _check_port("observed_endpoint.port", observed.port, lowest=1)
    if observed.protocol not in {"", "tcp", "udp"}:
        yield Violation("observed_endpoint.protocol", "must be udp or tcp, or empty")


def _bare_address(text: str) -> IPAddress | None:
    """Return the address, or None if it is none or has a zone, which means nothing on another machine."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _check_metadata(metadata: Mapping[str, str]) -> Iterator[Violation]:
    if len(metadata) > MAX_METADATA_ENTRIES:
        yield Violation("metadata", f"{len(metadata)} entries; at most {MAX_METADATA_ENTRIES}")
        return
    total = 0
    for key, value in metadata.items():
        key_bytes, value_bytes = len(key.encode()), len(value.encode())
        total += key_bytes + value_bytes
        field = f"metadata[{_shown(key)}]"
        if key_bytes > MAX_METADATA_KEY_BYTES:
            yield Violation(field, f"key is {key_bytes} bytes; at most {MAX_METADATA_KEY_BYTES}")
        if value_bytes > MAX_METADATA_VALUE_BYTES:
            yield Violation(
                field, f"value is {value_bytes} bytes; at most {MAX_METADATA_VALUE_BYTES}"
            )
    if total > MAX_METADATA_BYTES:
        yield Violation("metadata", f"{total} bytes in all; at most {MAX_METADATA_BYTES}")


def _check_mesh_address(field: str, value: str, version: int) -> Iterator[Violation]:
    if value and getattr(_bare_address(value), "version", None) != version:
        yield Violation(field, f"{_shown(value)} is not an IPv{version} address")


def _check_port(field: str, port: int, *, lowest: int) -> Iterator[Violation]:
    if not lowest <= port <= MAX_PORT:
        yield Violation(field, f"is {port}; must be {lowest} to {MAX_PORT}")


def _shown(text: str) -> str:
    """Return `text` quoted in ASCII and cut short, so that a hostile value cannot swell or forge a log or reply."""
    return ascii(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
