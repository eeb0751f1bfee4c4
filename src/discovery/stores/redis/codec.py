"""Leases as Redis keeps them: a line of words that scripts read, then the registration in canonical JSON.

    1 <revision> <last seen> <end> <public key> <first granted> <owner, or "-">
    {"endpoints":["203.0.113.5:41820"],"mesh_id":"my-mesh","pubkey":"..."}

Scripts compare registrations as bytes, so equal ones must be equal bytes, whichever version wrote them: keys are
sorted, and what has its default value is left out. A newer version may add words and fields; they are ignored. An older
one wrote no words after the key. A reservation is one line:

    1 <end> <public key>
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from discovery.errors import StoreUnavailableError
from discovery.models import (
    NO_METADATA,
    CertificateFingerprint,
    Endpoint,
    Lease,
    PublicEndpoint,
    Registration,
    Reservation,
    WatchEvent,
)
from discovery.remembered import ROOM, Latest

_FORMAT = b"1"
_NOBODY = b"-"

_LONGEST = 1024
"""Bytes of a value that is remembered, at most."""

# Escapes everything beyond ASCII, so that no string can fail to be encoded.
_to_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False).encode

T = TypeVar("T")


def _read_again(read: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Return `read`, remembering what it made of short values. What it raises is not remembered."""
    remembered = lru_cache(ROOM)(read)

    @wraps(read)
    def read_again(value: bytes) -> T:
        return remembered(value) if len(value) <= _LONGEST else read(value)

    return read_again


def _write_again(write: Callable[[Registration], bytes]) -> Callable[[Registration], bytes]:
    """Return `write`, remembering what it made of an object: a renewal's is mostly that of the renewal before."""
    written = Latest[int, tuple[Registration, bytes]]()

    @wraps(write)
    def write_again(registration: Registration) -> bytes:
        # What is remembered stays alive, so that no other object takes its place.
        _, value = written.kept.get(id(registration), (None, None))
        if value is None:
            value = write(registration)
            if len(value) <= _LONGEST:
                written.add(id(registration), (registration, value))
        return value

    return write_again


@_write_again
def encode_registration(registration: Registration) -> bytes:
    """Return the canonical form: two registrations are equal if and only if these are."""
    fields = {
        "mesh_id": registration.mesh_id,
        "pubkey": registration.pubkey,
        "endpoints": registration.endpoints,
        "metadata": dict(registration.metadata),
        "mesh_ipv4": registration.mesh_ipv4,
        "mesh_ipv6": registration.mesh_ipv6,
        "connect_port": registration.connect_port,
        "public_port": registration.public_port,
        "agent_id": registration.agent_id,
    }
    document: dict[str, Any] = {name: value for name, value in fields.items() if value}
    if registration.observed_endpoint is not None:
        document["observed_endpoint"] = _endpoint_document(registration.observed_endpoint)
    if registration.public_endpoint is not None:
        document["public_endpoint"] = _public_endpoint_document(registration.public_endpoint)
    return _to_json(document).encode()


@_read_again
def decode_lease(value: bytes) -> Lease:
    """Return the lease that is stored as `value`. Of the same value it may be the same object, which nobody changes.

    Raises:
        StoreUnavailableError: it is none.
    """
    with _understanding():
        head, _, body = value.partition(b"\n")
        form, revision, last_seen_us, expires_at_us, *more = head.split(b" ")
        if form != _FORMAT:
            raise ValueError(form)
        registration = _registration(body)
        granted_at_us, owner = more[1:3] if len(more) > 2 else (b"0", _NOBODY)  # noqa: PLR2004
        return Lease(
            *(registration, int(revision), int(last_seen_us), int(expires_at_us)),
            *(int(granted_at_us), _decode_owner(owner)),
        )


def decode_reservation(value: bytes) -> Reservation:
    """Return the reservation that is stored as `value`.

    Raises:
        StoreUnavailableError: it is none.
    """
    with _understanding():
        form, until_us, pubkey, *_ = value.split(b" ")
        if form != _FORMAT:
            raise ValueError(form)
        return Reservation(pubkey.decode(), int(until_us))


def encode_owner(owner: str) -> bytes:
    """Return an owner's name as one word, whatever it is; that of nobody if it is empty."""
    word = quote(owner, safe="").encode()
    return {b"": _NOBODY, _NOBODY: b"%2D"}.get(word, word)


def _decode_owner(word: bytes) -> str:
    return "" if word == _NOBODY else unquote(word.decode(), errors="strict")


def decode_event(fields: Sequence[bytes]) -> WatchEvent | None:
    """Return the event of one entry in a stream, or None if this version has no use for it.

    Raises:
        StoreUnavailableError: it makes no sense.
    """
    with _understanding():
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        if b"lease" in named:
            lease = decode_lease(named[b"lease"])
            return WatchEvent(lease.registration.mesh_id, lease.revision, lease)
        if b"absent" in named:
            mesh_id, revision = named[b"mesh"].decode(), int(named[b"absent"])
            return WatchEvent(mesh_id, revision, None, expired=b"expired" in named)
        # Fields of other names than a colony's: see common.lua.
        if b"agent_lease" in named:
            lease = decode_lease(named[b"agent_lease"])
            whose = lease.registration
            return WatchEvent(whose.mesh_id, lease.revision, lease, whose.agent_id)
        if b"agent_absent" in named:
            mesh_id, agent_id = named[b"mesh"].decode(), named[b"agent"].decode()
            revision = int(named[b"agent_absent"])
            return WatchEvent(mesh_id, revision, None, agent_id, b"expired" in named)
        return None


@contextmanager
def _understanding() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise StoreUnavailableError("the store holds something that is not ours") from error


def _endpoint_document(endpoint: Endpoint) -> Mapping[str, Any]:
    return {
        "ip": endpoint.ip,
        "port": endpoint.port,
        "protocol": endpoint.protocol,
        "via_relay": endpoint.via_relay,
    }


def _public_endpoint_document(endpoint: PublicEndpoint) -> Mapping[str, Any]:
    fields = {"enabled": endpoint.enabled, "url": endpoint.url, "ca_cert": endpoint.ca_cert}
    document: dict[str, Any] = {name: value for name, value in fields.items() if value}
    if endpoint.ca_fingerprint is not None:
        fingerprint = endpoint.ca_fingerprint
        document["ca_fingerprint"] = [fingerprint.algorithm, fingerprint.value.hex()]
    if endpoint.updated_at_us is not None:
        document["updated_at_us"] = endpoint.updated_at_us
    return document


@_read_again  # a renewal changes the words before the registration, and not the registration
def _registration(body: bytes) -> Registration:
    document: Mapping[str, Any] = json.loads(body)
    observed, public = document.get("observed_endpoint"), document.get("public_endpoint")
    return Registration(
        mesh_id=document["mesh_id"],
        pubkey=document["pubkey"],
        endpoints=tuple(document.get("endpoints", ())),
        metadata=document.get("metadata", NO_METADATA),
        mesh_ipv4=document.get("mesh_ipv4", ""),
        mesh_ipv6=document.get("mesh_ipv6", ""),
        connect_port=document.get("connect_port", 0),
        public_port=document.get("public_port", 0),
        observed_endpoint=None if observed is None else _endpoint(observed),
        public_endpoint=None if public is None else _public_endpoint(public),
        agent_id=document.get("agent_id", ""),
    )


def _endpoint(document: Mapping[str, Any]) -> Endpoint:
    return Endpoint(
        document["ip"], document["port"], document["protocol"], via_relay=document["via_relay"]
    )


def _public_endpoint(document: Mapping[str, Any]) -> PublicEndpoint:
    fingerprint = document.get("ca_fingerprint")
    return PublicEndpoint(
        enabled=document.get("enabled", False),
        url=document.get("url", ""),
        ca_cert=document.get("ca_cert", ""),
        ca_fingerprint=None if fingerprint is None else _fingerprint(*fingerprint[:2]),
        updated_at_us=document.get("updated_at_us"),
    )


def _fingerprint(algorithm: int, value: str) -> CertificateFingerprint:
    return CertificateFingerprint(algorithm, bytes.fromhex(value))
