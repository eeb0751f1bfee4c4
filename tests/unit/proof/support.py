"""A registrant, a server, and what attackers have."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from discovery.models import (
    CertificateFingerprint,
    Endpoint,
    PublicEndpoint,
    Registration,
)
from discovery.proof import MemorySeenNonces, Method, Prover, SeenNonces, ServerKeys, Verifier
from tests.support import ManualClock, key, registration


def public_of(private: str) -> str:
    raw = X25519PrivateKey.from_private_bytes(base64.b64decode(private)).public_key()
    return base64.b64encode(raw.public_bytes_raw()).decode()


# `key(n)` is 32 bytes of any kind: private keys here.
PRIVATE, OTHER_PRIVATE, OLD_PRIVATE = key(1001), key(1002), key(1003)
PUBLIC, OTHER_PUBLIC, OLD_PUBLIC = map(public_of, (PRIVATE, OTHER_PRIVATE, OLD_PRIVATE))
SERVER_PRIVATE, LATER_SERVER_PRIVATE, FOREIGN_SERVER_PRIVATE = key(2001), key(2002), key(2003)

# u-coordinates of points of small order, and those that are the same modulo p or without the highest bit, which
# X25519 ignores: https://cr.yp.to/ecdh.html#validate
_P = 2**255 - 19
_ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
SMALL_ORDER = [
    (u | highest).to_bytes(32, "little")
    for u in (0, 1, *_ORDER_8, _P - 1, _P, _P + 1)
    for highest in (0, 2**255)
]

_ENDPOINT = Endpoint("198.51.100.7", 41820)
_FINGERPRINT = CertificateFingerprint(1, b"\x01\x02")
_PUBLIC = PublicEndpoint(True, "https://colony.example", "PEM", _FINGERPRINT, 1_800_000_000_000_000)
FULL = registration(
    pubkey=PUBLIC,
    agent_id="agent-1",
    mesh_ipv4="10.42.0.1",
    mesh_ipv6="fd42::1",
    connect_port=9000,
    public_port=8443,
    observed_endpoint=_ENDPOINT,
    public_endpoint=_PUBLIC,
)

# One change of each field of FULL, and those that would hide where parts were not told apart.
CHANGES: list[Mapping[str, Any]] = [
    {"mesh_id": "mesh-2"},
    {"agent_id": "agent-2"},
    {"agent_id": ""},
    {"mesh_id": "mesh-1agent-1", "agent_id": ""},
    {"endpoints": ()},
    {"endpoints": FULL.endpoints[::-1]},
    {"endpoints": FULL.endpoints[:1]},
    {"endpoints": (*FULL.endpoints, "203.0.113.5:41821")},
    {"endpoints": ("".join(FULL.endpoints),)},
    {"metadata": {}},
    {"metadata": {"region": "eu-wesT"}},
    {"metadata": {"regio": "neu-west"}},
    {"metadata": {"region": "eu-west", "": ""}},
    {"mesh_ipv4": "10.42.0.2"},
    {"mesh_ipv6": "fd42::2"},
    {"mesh_ipv4": "", "mesh_ipv6": "10.42.0.1fd42::1"},
    {"connect_port": 8443, "public_port": 9000},
    {"connect_port": 0},
    {"public_port": 8444},
    {"observed_endpoint": None},
    {"observed_endpoint": replace(_ENDPOINT, ip="198.51.100.8")},
    {"observed_endpoint": replace(_ENDPOINT, port=41821)},
    {"observed_endpoint": replace(_ENDPOINT, protocol="")},
    {"observed_endpoint": replace(_ENDPOINT, via_relay=True)},
    {"public_endpoint": None},
    {"public_endpoint": PublicEndpoint()},
    {"public_endpoint": replace(_PUBLIC, enabled=False)},
    {"public_endpoint": replace(_PUBLIC, url="https://a.example")},
    {"public_endpoint": replace(_PUBLIC, ca_cert="")},
    {"public_endpoint": replace(_PUBLIC, ca_fingerprint=None)},
    {"public_endpoint": replace(_PUBLIC, ca_fingerprint=replace(_FINGERPRINT, algorithm=2))},
    {"public_endpoint": replace(_PUBLIC, ca_fingerprint=replace(_FINGERPRINT, value=b"\x01"))},
    {"public_endpoint": replace(_PUBLIC, updated_at_us=None)},
    {"public_endpoint": replace(_PUBLIC, updated_at_us=0)},
]
CHANGE_NAMES = [f"{'-'.join(change)}-{number}" for number, change in enumerate(CHANGES)]


@dataclass
class Rig:
    """A registrant with the key PRIVATE and one server; `changes` make other registrants and servers."""

    clock: ManualClock = field(default_factory=ManualClock)
    server_keys: str = SERVER_PRIVATE
    seen: SeenNonces = field(init=False)
    verifier: Verifier = field(init=False)

    def __post_init__(self) -> None:
        self.seen = MemorySeenNonces(self.clock)
        self.verifier = self.server(self.server_keys)

    def server(self, *private_keys: str, seen: SeenNonces | None = None) -> Verifier:
        """Return another server, which shares the clock, and what was seen unless it is said."""
        keys = ServerKeys.from_text("\n".join(private_keys))
        return Verifier(keys, self.seen if seen is None else seen, self.clock)

    def prove(
        self,
        said: Registration = FULL,
        method: Method = Method.REGISTER_COLONY,
        *,
        private: str = PRIVATE,
        old_private: str | None = None,
        verifier: Verifier | None = None,
    ) -> dict[str, str]:
        """Return valid metadata for a call now."""
        challenge = (verifier or self.verifier).challenge()
        prover = Prover(private, old_private)
        return dict(prover.prove(method, said, challenge, self.clock.now()))

    async def verify(
        self,
        metadata: Mapping[str, str | bytes],
        said: Registration = FULL,
        method: Method = Method.REGISTER_COLONY,
    ) -> str | None:
        return await self.verifier.verify(method, said, metadata)


def altered(header: str) -> Iterator[str]:
    """Yield `header` with each bit of each of its characters flipped, and all of its beginnings."""
    for at, character in enumerate(header):
        yield header[:at]
        for bit in range(8):
            yield f"{header[:at]}{chr(ord(character) ^ 1 << bit)}{header[at + 1 :]}"
