"""What a proof says, as bytes: the same for the same call, others for every other.

It is not protobuf's own form, in which one message has many forms: a map has no order.

| part   | form                                                                              |
|--------|-----------------------------------------------------------------------------------|
| bytes  | their number in 4 bytes, then they themselves                                     |
| text   | its UTF-8, as bytes                                                               |
| number | 8 bytes, two's complement                                                         |
| flag   | 1 byte, 0 or 1                                                                    |
| list   | how many in 4 bytes, then each                                                    |
| map    | as a list of key and value, sorted by the keys' UTF-8                             |
| maybe  | a flag that says whether it is there, then, only if it is, the thing itself       |

Numbers are big-endian. Each part says itself where it ends, so two different calls never make the same bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from discovery.models import CertificateFingerprint, Endpoint, PublicEndpoint, Registration

LABEL = "coral-discovery proof v1"

_NO, _YES = b"\x00", b"\x01"

T = TypeVar("T")


class Method(enum.StrEnum):
    """The calls that take a proof, by their names in the protocol."""

    REGISTER_COLONY = "RegisterColony"
    DEREGISTER_COLONY = "DeregisterColony"
    REGISTER_AGENT = "RegisterAgent"
    DEREGISTER_AGENT = "DeregisterAgent"


@dataclass(frozen=True, slots=True)
class Occasion:
    """When and to whom a statement is made, so that it means nothing at another time or to another server.

    `server_key` and `nonce` are the challenge's, `at_ms` is Unix time in milliseconds by the registrant's clock.
    """

    server_key: bytes
    nonce: bytes
    at_ms: int


def statement(method: Method, registration: Registration, occasion: Occasion) -> bytes:
    """Return what the holder of a key says with a call of `method`.

    `registration` is the whole message. A deregistration is one that has its `mesh_id`, `agent_id` and `pubkey` alone.
    """
    said = registration
    return b"".join(
        (
            _text(LABEL),
            _text(method),
            _bytes(occasion.server_key),
            _bytes(occasion.nonce),
            _number(occasion.at_ms),
            _text(said.mesh_id),
            _text(said.agent_id),
            _text(said.pubkey),
            _list(said.endpoints, _text),
            _list(sorted((k.encode(), v.encode()) for k, v in said.metadata.items()), _entry),
            _text(said.mesh_ipv4),
            _text(said.mesh_ipv6),
            _number(said.connect_port),
            _number(said.public_port),
            _maybe(said.observed_endpoint, _endpoint),
            _maybe(said.public_endpoint, _public_endpoint),
        )
    )


def _endpoint(endpoint: Endpoint) -> bytes:
    return b"".join(
        (
            _text(endpoint.ip),
            _number(endpoint.port),
            _text(endpoint.protocol),
            _YES if endpoint.via_relay else _NO,
        )
    )


def _public_endpoint(endpoint: PublicEndpoint) -> bytes:
    return b"".join(
        (
            _YES if endpoint.enabled else _NO,
            _text(endpoint.url),
            _text(endpoint.ca_cert),
            _maybe(endpoint.ca_fingerprint, _fingerprint),
            _maybe(endpoint.updated_at_us, _number),
        )
    )


def _fingerprint(fingerprint: CertificateFingerprint) -> bytes:
    return _number(fingerprint.algorithm) + _bytes(fingerprint.value)


def _entry(entry: tuple[bytes, bytes]) -> bytes:
    return b"".join(map(_bytes, entry))


def _maybe(value: T | None, form: Callable[[T], bytes]) -> bytes:
    return _NO if value is None else _YES + form(value)


def _list(values: Iterable[T], form: Callable[[T], bytes]) -> bytes:
    forms = [form(value) for value in values]
    return _size(len(forms)) + b"".join(forms)


def _text(text: str) -> bytes:
    return _bytes(text.encode())


def _bytes(raw: bytes) -> bytes:
    return _size(len(raw)) + raw


def _size(size: int) -> bytes:
    return size.to_bytes(4, "big")


def _number(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)
