"""Messages to models and back, and messages to bytes and back. Shared by servers and clients."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import betterproto

from discovery._gen.coral.discovery import v1 as pb
from discovery.errors import MalformedMessageError
from discovery.models import (
    NO_METADATA,
    CertificateFingerprint,
    Endpoint,
    HealthReport,
    Lease,
    PublicEndpoint,
    Registered,
    Registration,
    WatchEvent,
)
from discovery.remembered import Remembered
from discovery.transport import messages, wire
from discovery.transport.messages import Pattern, for_many, new, plain
from discovery.transport.moments import from_datetime, to_datetime

M = TypeVar("M", bound=betterproto.Message)

REGISTERED = pb.RegistrationState(pb.RegistrationState.REGISTERED)
ABSENT = pb.RegistrationState(pb.RegistrationState.ABSENT)

_HasContent = (
    pb.RegisterColonyRequest
    | pb.LookupColonyResponse
    | pb.RegisterAgentRequest
    | pb.LookupAgentResponse
)
_HasObserved = _HasContent | pb.RegisterColonyResponse | pb.RegisterAgentResponse


def encode(message: betterproto.Message) -> bytes:
    """Return the wire form of `message`."""
    try:
        return messages.written(message, wire.WIRE)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        return bytes(message)  # it knows every kind of field, and says what is wrong with a value


def decode(data: bytes, message_type: type[M]) -> M:
    """Read a message of `message_type`.

    Raises:
        MalformedMessageError: the bytes do not follow the schema.
    """
    try:
        return messages.read(data, message_type)
    except RuntimeError as error:  # what the Rust codec raises for every fault
        raise MalformedMessageError(
            f"not a {message_type.__name__}: the bytes do not follow its schema"
        ) from error


def registration_from(message: pb.RegisterColonyRequest | pb.LookupColonyResponse) -> Registration:
    """Return what a colony says of itself, from its own message or from the answer to a lookup."""
    said = plain(message)
    return Registration(
        connect_port=said.connect_port,
        public_port=said.public_port,
        public_endpoint=_public_endpoint_from(said.public_endpoint),
        **content_in(said),
    )


def content_in(said: _HasContent) -> dict[str, Any]:
    """Return what colonies and agents alike say of themselves, for a Registration; `said` must be `plain`."""
    return {
        "mesh_id": said.mesh_id,
        "pubkey": said.pubkey,
        "endpoints": tuple(said.endpoints),
        "metadata": said.metadata
        or NO_METADATA,  # all share the empty one, which nobody can change
        "mesh_ipv4": said.mesh_ipv4,
        "mesh_ipv6": said.mesh_ipv6,
        "observed_endpoint": observed_in(said),
    }


def register_request(registration: Registration) -> pb.RegisterColonyRequest:
    """Return the request that registers `registration`; `registration_from` reads it back."""
    return new(
        pb.RegisterColonyRequest,
        **_observed(registration.observed_endpoint),
        **_content(registration),
    )


def register_reply(registered: Registered) -> pb.RegisterColonyResponse:
    """Return the answer to a registration that succeeded; `registered_from` reads it back."""
    return granted(pb.RegisterColonyResponse, registered)


def granted(message_type: type[M], registered: Registered) -> M:
    """Return the answer of `message_type` to a registration that succeeded."""
    told = (registered.expires_at_us, registered.refresh_after, registered.revision)
    observed = registered.observed_endpoint
    reply: M
    if observed is None:
        reply = _granted(message_type, registered.ttl).filled(*told)
    else:
        pattern = _granted(message_type, registered.ttl, "observed_endpoint")
        reply = pattern.filled(*told, _endpoint_for_many(observed))
    return reply


@cache
def _granted(message_type: type[M], ttl: int, *seen: str) -> Pattern[M]:
    """Return what the answers have in common; they differ in what is named here."""
    same = new(message_type, success=True, ttl=ttl)
    return Pattern(same, "expires_at", "refresh_after", "revision", *seen)


def registered_from(reply: pb.RegisterColonyResponse | pb.RegisterAgentResponse) -> Registered:
    """Return what a colony's or an agent's registration was answered."""
    return Registered(
        revision=reply.revision,
        ttl=reply.ttl,
        expires_at_us=from_datetime(reply.expires_at),
        refresh_after=reply.refresh_after,
        observed_endpoint=observed_in(plain(reply)),
    )


def lookup_reply(lease: Lease) -> pb.LookupColonyResponse:
    """Return the answer to a lookup that found `lease`; `lease_from` reads it back."""
    observed = lease.registration.observed_endpoint
    return new(
        pb.LookupColonyResponse,
        last_seen=to_datetime(lease.last_seen_us),
        expires_at=to_datetime(lease.expires_at_us),
        revision=lease.revision,
        **({} if observed is None else {"observed_endpoints": [endpoint_message(observed)]}),
        **_content(lease.registration),
    )


def lease_from(reply: pb.LookupColonyResponse) -> Lease:
    """Return the lease that a lookup found."""
    return Lease(
        registration=registration_from(reply),
        revision=reply.revision,
        last_seen_us=from_datetime(reply.last_seen),
        expires_at_us=from_datetime(reply.expires_at),
    )


def watch_reply(event: WatchEvent) -> pb.WatchColonyResponse:
    """Return the message that tells a watcher of `event`; `event_from` reads it back."""
    if event.lease is None:
        return pb.WatchColonyResponse(ABSENT, revision=event.revision)
    return pb.WatchColonyResponse(REGISTERED, lookup_reply(event.lease), event.revision)


def event_from(mesh_id: str, reply: pb.WatchColonyResponse) -> WatchEvent:
    """Return what a watcher of `mesh_id` was told."""
    lease = lease_from(reply.colony) if reply.state == REGISTERED else None
    return WatchEvent(mesh_id, reply.revision, lease)


def health_reply(report: HealthReport) -> pb.HealthResponse:
    """Return the answer to a health check; `health_from` reads it back."""
    return pb.HealthResponse(
        status=report.status,
        version=report.version,
        uptime_seconds=report.uptime_seconds,
        registered_colonies=report.registered_colonies,
    )


def health_from(reply: pb.HealthResponse) -> HealthReport:
    """Return what a health check was answered."""
    return HealthReport(
        reply.status, reply.version, reply.uptime_seconds, reply.registered_colonies
    )


def _content(registration: Registration) -> dict[str, object]:
    """Return the fields that requests and lookups share."""
    content: dict[str, object] = {
        "mesh_id": registration.mesh_id,
        "pubkey": registration.pubkey,
        "endpoints": list(registration.endpoints),
        "metadata": dict(registration.metadata),
        "mesh_ipv4": registration.mesh_ipv4,
        "mesh_ipv6": registration.mesh_ipv6,
        "connect_port": registration.connect_port,
        "public_port": registration.public_port,
    }
    if registration.public_endpoint is not None:
        content["public_endpoint"] = _public_endpoint_message(registration.public_endpoint)
    return content


def _observed(endpoint: Endpoint | None) -> dict[str, pb.Endpoint]:
    return {} if endpoint is None else {"observed_endpoint": endpoint_message(endpoint)}


def endpoint_message(endpoint: Endpoint) -> pb.Endpoint:
    """Return `endpoint` as a message; `observed_in` reads it back."""
    return new(
        pb.Endpoint,
        ip=endpoint.ip,
        port=endpoint.port,
        protocol=endpoint.protocol,
        via_relay=endpoint.via_relay,
    )


_endpoint_for_many: Remembered[Endpoint, pb.Endpoint] = Remembered(
    lambda endpoint: for_many(endpoint_message(endpoint))
)
"""`endpoint_message`, for where a client was seen: that is told with each of its heartbeats."""


def observed_in(said: _HasObserved) -> Endpoint | None:
    """Return the observed endpoint of a message that has one, or a list of them; it must be `plain`."""
    several = getattr(said, "observed_endpoints", ())  # as lookups have it
    observed = several[0] if several else getattr(said, "observed_endpoint", None)
    if observed is None:
        return None
    return Endpoint(observed.ip, observed.port, observed.protocol, observed.via_relay)


def _public_endpoint_message(endpoint: PublicEndpoint) -> pb.PublicEndpointInfo:
    message = pb.PublicEndpointInfo(
        enabled=endpoint.enabled, url=endpoint.url, ca_cert=endpoint.ca_cert
    )
    if (fingerprint := endpoint.ca_fingerprint) is not None:
        algorithm = pb.FingerprintAlgorithm.try_value(fingerprint.algorithm)
        message.ca_fingerprint = pb.CertificateFingerprint(algorithm, fingerprint.value)
    if endpoint.updated_at_us is not None:
        message.updated_at = to_datetime(endpoint.updated_at_us)
    return message


def _public_endpoint_from(info: pb.PublicEndpointInfo | None) -> PublicEndpoint | None:
    if info is None:
        return None
    return PublicEndpoint(
        enabled=info.enabled,
        url=info.url,
        ca_cert=info.ca_cert,
        ca_fingerprint=_fingerprint_in(info),
        updated_at_us=from_datetime(info.updated_at) if info.is_set("updated_at") else None,
    )


def _fingerprint_in(info: pb.PublicEndpointInfo) -> CertificateFingerprint | None:
    if not info.is_set("ca_fingerprint"):
        return None
    return CertificateFingerprint(int(info.ca_fingerprint.algorithm), info.ca_fingerprint.value)
