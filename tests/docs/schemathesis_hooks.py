"""What schemathesis is told beyond docs/openapi.yaml: how its formats look, and what proto3 JSON reads all the same."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import schemathesis
from hypothesis import strategies as st

_ALGORITHMS = re.compile("FINGERPRINT_ALGORITHM_(UNSPECIFIED|SHA256)")


def _usable(address: IPv4Address | IPv6Address) -> bool:
    bare = getattr(address, "ipv4_mapped", None) or address
    return not (bare.is_unspecified or bare.is_multicast)


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
HOST_NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ADDRESSES = st.ip_addresses().filter(_usable).map(str)
HOST_PORTS = st.builds(_with_port, ADDRESSES | HOST_NAMES, st.integers(1, 65535))


def filter_case(_context: Any, case: Any) -> bool:
    """Leave out requests that break the description and no rule: the description says that there are some."""
    return not _is_generous(case.body)


def _is_generous(value: Any, key: str = "") -> bool:
    match value:
        case dict():
            return any(_is_generous(member, name) for name, member in value.items())
        case list():
            return any(_is_generous(item) for item in value)
        case str() if key == "algorithm":
            return not _ALGORITHMS.fullmatch(value)
        case str():
            return value.isdigit()
    return value is None


schemathesis.openapi.format("host-port", HOST_PORTS)
schemathesis.openapi.format("unicast-address", ADDRESSES)
schemathesis.hook("filter_case")(filter_case)
