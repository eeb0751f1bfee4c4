"""docs/security.md holds vectors from which another language can implement proofs.

They are held against a second implementation, which shares nothing with ours: RFC 7748's ladder, RFC 5869 over
`hmac`, and the statement made of the message's JSON.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from discovery._gen.coral.discovery import v1 as pb
from discovery.clock import Instant
from discovery.models import Registration
from discovery.proof import (
    OLD_PROOF_HEADER,
    PROOF_HEADER,
    Challenge,
    MemorySeenNonces,
    Method,
    Nonce,
    Prover,
    ServerKeys,
    Verifier,
)
from discovery.proof.keys import ServerKey
from discovery.proof.nonces import make_nonce, read_nonce
from discovery.proof.statement import statement
from discovery.transport import agent_codec, codec, json_codec
from tests.docs.markdown import blocks
from tests.support import ManualClock

VECTORS: Mapping[str, Any] = json.loads(
    next(block.text for block in blocks("docs/security.md") if block.language == "json")
)
CALLS: Sequence[Mapping[str, Any]] = VECTORS["calls"]
CALL_NAMES = [f"{call['method']}-{number}" for number, call in enumerate(CALLS)]

each_call = pytest.mark.parametrize("call", CALLS, ids=CALL_NAMES)


def _raw(text: str) -> bytes:
    return base64.b64decode(text)


def _private(who: str) -> str:
    return str(VECTORS[who]["private"])


# The second implementation


def ladder(scalar: bytes, point: bytes) -> bytes:
    """RFC 7748 section 5."""
    prime = 2**255 - 19
    k = int.from_bytes(scalar, "little") & ~7 & (2**254 - 1) | 2**254
    x1 = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % prime, x1 * (da - cb) ** 2 % prime
        x2, z2 = aa * bb % prime, e * (aa + 121665 * e) % prime
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, prime - 2, prime) % prime).to_bytes(32, "little")


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 for 32 bytes of SHA-256, which are the first block."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def sized(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "big") + raw


def text(message: Mapping[str, Any], name: str) -> bytes:
    return sized(message.get(name, "").encode())


def number(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def said_in(call: Mapping[str, Any]) -> bytes:
    """Return the statement of a call by the page."""
    message = call["message"]
    endpoints = [sized(endpoint.encode()) for endpoint in message.get("endpoints", [])]
    metadata = sorted((k.encode(), v.encode()) for k, v in message.get("metadata", {}).items())
    made = sized(b"coral-discovery proof v1") + sized(call["method"].encode())
    made += sized(_raw(VECTORS["server"]["public"])) + sized(_raw(VECTORS["nonce"]))
    made += number(VECTORS["at_ms"])
    made += text(message, "meshId") + text(message, "agentId") + text(message, "pubkey")
    made += len(endpoints).to_bytes(4, "big") + b"".join(endpoints)
    made += len(metadata).to_bytes(4, "big") + b"".join(sized(k) + sized(v) for k, v in metadata)
    made += text(message, "meshIpv4") + text(message, "meshIpv6")
    made += number(message.get("connectPort", 0)) + number(message.get("publicPort", 0))
    made += observed_in(message.get("observedEndpoint"))
    return made + public_endpoint_in(message.get("publicEndpoint"))


def observed_in(endpoint: Mapping[str, Any] | None) -> bytes:
    if endpoint is None:
        return b"\0"
    relayed = bytes([endpoint.get("viaRelay", False)])
    port = number(endpoint.get("port", 0))
    return b"\1" + text(endpoint, "ip") + port + text(endpoint, "protocol") + relayed


def public_endpoint_in(endpoint: Mapping[str, Any] | None) -> bytes:
    if endpoint is None:
        return b"\0"
    made = b"\1" + bytes([endpoint.get("enabled", False)])
    made += text(endpoint, "url") + text(endpoint, "caCert")
    # The vectors have both: algorithm 1, and a time that the page gives in microseconds too.
    value = sized(_raw(endpoint["caFingerprint"]["value"]))
    made += b"\1" + number(endpoint["caFingerprint"]["algorithm"]) + value
    return made + b"\1" + number(VECTORS["updated_at_us"])


def tag_of(said: bytes, private: bytes, public: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the shared secret, the tag's key and the tag of a statement."""
    server = _raw(VECTORS["server"]["public"])
    secret = ladder(private, server)
    key = hkdf(secret, public + server, b"coral-discovery proof v1")
    return secret, key, hmac.new(key, said, hashlib.sha256).digest()


# The page and the second implementation


def test_the_second_implementations_ladder_is_rfc_7748s() -> None:
    scalar, point, product = (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    )

    assert ladder(bytes.fromhex(scalar), bytes.fromhex(point)).hex() == product


def test_the_second_implementations_hkdf_is_rfc_5869s() -> None:
    made = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)))

    assert made.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"


@pytest.mark.parametrize("who", ["registrant", "old", "server"])
def test_the_pages_keys_are_pairs(who: str) -> None:
    base = (9).to_bytes(32, "little")

    assert ladder(_raw(_private(who)), base) == _raw(VECTORS[who]["public"])


@pytest.mark.parametrize("who", ["registrant", "old"])
def test_both_sides_of_the_page_share_the_secret(who: str) -> None:
    registrant, server = _raw(VECTORS[who]["public"]), _raw(_private("server"))

    assert ladder(server, registrant) == ladder(
        _raw(_private(who)), _raw(VECTORS["server"]["public"])
    )


def test_the_pages_nonce_is_made_as_it_says() -> None:
    key = hkdf(_raw(_private("server")), bytes(32), b"coral-discovery nonce v1")
    stamped = bytes.fromhex(VECTORS["nonce_random"]) + number(VECTORS["nonce_issued_ms"])
    seal = hmac.new(key, stamped, hashlib.sha256).digest()[:16]

    assert _raw(VECTORS["nonce"]) == stamped + seal


@each_call
def test_the_pages_statements_are_what_it_describes(call: Mapping[str, Any]) -> None:
    assert "".join(call["statement"]) == said_in(call).hex()


@each_call
def test_the_pages_proofs_are_what_it_describes(call: Mapping[str, Any]) -> None:
    secret, key, tag = tag_of(
        said_in(call), _raw(_private("registrant")), _raw(VECTORS["registrant"]["public"])
    )
    server, at_ms, nonce = VECTORS["server"]["public"], VECTORS["at_ms"], VECTORS["nonce"]

    assert (secret.hex(), key.hex(), tag.hex()) == (
        call["shared_secret"], call["tag_key"], call["tag"],
    )  # fmt: skip
    encoded = base64.b64encode(tag).decode()
    assert call["metadata"][PROOF_HEADER] == f"v1 {server} {at_ms} {nonce} {encoded}"


def test_the_pages_move_to_a_new_key_is_what_it_describes() -> None:
    [call] = (call for call in CALLS if OLD_PROOF_HEADER in call["metadata"])
    old = VECTORS["old"]["public"]
    *_, tag = tag_of(said_in(call), _raw(_private("old")), _raw(old))

    encoded = base64.b64encode(tag).decode()
    assert call["metadata"][OLD_PROOF_HEADER] == f"v1 {old} {encoded}"


# The page and ours


def _registration(call: Mapping[str, Any]) -> Registration:
    message = json.dumps(call["message"]).encode()
    match Method(call["method"]):
        case Method.REGISTER_COLONY:
            return codec.registration_from(json_codec.decode(message, pb.RegisterColonyRequest))
        case Method.REGISTER_AGENT:
            return agent_codec.registration_from(
                json_codec.decode(message, pb.RegisterAgentRequest)
            )
        case Method.DEREGISTER_COLONY:
            colony = json_codec.decode(message, pb.DeregisterColonyRequest)
            return Registration(colony.mesh_id, colony.pubkey)
        case Method.DEREGISTER_AGENT:
            agent = json_codec.decode(message, pb.DeregisterAgentRequest)
            return Registration(agent.mesh_id, agent.pubkey, agent_id=agent.agent_id)


def _challenge() -> Challenge:
    return Challenge(VECTORS["server"]["public"], VECTORS["nonce"])


@pytest.mark.parametrize("method", Method)
def test_the_page_has_each_method(method: Method) -> None:
    assert any(call["method"] == method for call in CALLS)


def test_our_nonce_is_the_pages() -> None:
    key = ServerKey.from_private(_raw(_private("server"))).nonce_key
    random, issued_ms = bytes.fromhex(VECTORS["nonce_random"]), VECTORS["nonce_issued_ms"]

    assert make_nonce(key, random, issued_ms) == _raw(VECTORS["nonce"])
    assert read_nonce(key, _raw(VECTORS["nonce"])) == Nonce(_raw(VECTORS["nonce"]), issued_ms)


@each_call
def test_our_statements_are_the_pages(call: Mapping[str, Any]) -> None:
    occasion = _challenge().occasion(VECTORS["at_ms"])

    assert statement(Method(call["method"]), _registration(call), occasion).hex() == "".join(
        call["statement"]
    )


@each_call
def test_our_proofs_are_the_pages(call: Mapping[str, Any]) -> None:
    old = _private("old") if OLD_PROOF_HEADER in call["metadata"] else None
    now = Instant(VECTORS["at_ms"] * 1000 + 999, 0)
    prover = Prover(_private("registrant"), old)

    made = prover.prove(Method(call["method"]), _registration(call), _challenge(), now)

    assert made == call["metadata"]


@each_call
async def test_we_accept_the_pages_proofs(call: Mapping[str, Any]) -> None:
    clock = ManualClock(unix_us=VECTORS["nonce_issued_ms"] * 1000)
    verifier = Verifier(ServerKeys.from_text(_private("server")), MemorySeenNonces(clock), clock)

    old = await verifier.verify(Method(call["method"]), _registration(call), call["metadata"])

    assert old == (VECTORS["old"]["public"] if OLD_PROOF_HEADER in call["metadata"] else None)
