"""Our messages beside Google's: what one writes, the other reads, and both mean the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import betterproto
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from discovery._gen.coral.discovery import v1 as pb
from discovery.errors import MalformedMessageError
from discovery.models import (
    CertificateFingerprint,
    Endpoint,
    HealthReport,
    Lease,
    PublicEndpoint,
    Registered,
    Registration,
)
from discovery.transport import codec
from discovery.transport.moments import from_datetime, to_datetime
from tests.support import examples, registration


def _google_pool() -> descriptor_pool.DescriptorPool:
    descriptors = files("discovery._gen").joinpath("descriptors.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _google_pool()


def google(message_type: type[betterproto.Message]) -> type[Message]:
    """Return Google's class for the same message."""
    descriptor = POOL.FindMessageTypeByName(f"coral.discovery.v1.{message_type.__name__}")
    return message_factory.GetMessageClass(descriptor)


def rewritten_by_google(
    message: betterproto.Message, message_type: type[betterproto.Message] | None = None
) -> bytes:
    """Return the message as Google's library writes it after having read ours."""
    kind = google(message_type or type(message))
    return kind.FromString(codec.encode(message)).SerializeToString()


LATEST_US = 253_402_300_799_999_999
MOMENTS = st.integers(min_value=-62_135_596_800_000_000, max_value=LATEST_US)
UINT32 = st.integers(min_value=0, max_value=2**32 - 1)
UINT64 = st.integers(min_value=0, max_value=2**64 - 1)
INT32 = st.integers(min_value=-(2**31), max_value=2**31 - 1)
TEXT = st.text(max_size=30)

ENDPOINTS = st.builds(Endpoint, TEXT, UINT32, TEXT, st.booleans())
FINGERPRINTS = st.builds(CertificateFingerprint, INT32, st.binary(max_size=40))
PUBLIC_ENDPOINTS = st.builds(
    PublicEndpoint,
    st.booleans(),
    TEXT,
    TEXT,
    st.none() | FINGERPRINTS,
    st.none() | MOMENTS.filter(bool),
)
REGISTRATIONS = st.builds(
    Registration,
    mesh_id=TEXT,
    pubkey=TEXT,
    endpoints=st.lists(TEXT, max_size=4).map(tuple),
    metadata=st.dictionaries(TEXT, TEXT, max_size=4),
    mesh_ipv4=TEXT,
    mesh_ipv6=TEXT,
    connect_port=UINT32,
    public_port=UINT32,
    observed_endpoint=st.none() | ENDPOINTS,
    public_endpoint=st.none() | PUBLIC_ENDPOINTS,
)
LEASES = st.builds(Lease, REGISTRATIONS, UINT64, MOMENTS, MOMENTS)
REGISTERED = st.builds(Registered, UINT64, INT32, MOMENTS, INT32, st.none() | ENDPOINTS)
HEALTH = st.builds(
    HealthReport, TEXT, TEXT, st.integers(min_value=-(2**63), max_value=2**63 - 1), INT32
)


@given(sent=REGISTRATIONS)
@examples(200)
def test_a_registration_arrives_as_it_was_sent(sent: Registration) -> None:
    message = codec.register_request(sent)

    for data in (codec.encode(message), rewritten_by_google(message)):
        assert codec.registration_from(codec.decode(data, pb.RegisterColonyRequest)) == sent


@given(sent=LEASES)
@examples(200)
def test_a_lease_arrives_as_it_was_sent(sent: Lease) -> None:
    message = codec.lookup_reply(sent)

    for data in (codec.encode(message), rewritten_by_google(message)):
        assert codec.lease_from(codec.decode(data, pb.LookupColonyResponse)) == sent


@given(sent=REGISTERED)
@examples(100)
def test_a_grant_arrives_as_it_was_sent(sent: Registered) -> None:
    kind = pb.RegisterColonyResponse
    message = codec.register_reply(sent)

    for data in (codec.encode(message), rewritten_by_google(message, kind)):
        assert codec.registered_from(codec.decode(data, kind)) == sent


@given(sent=HEALTH)
@examples(100)
def test_a_health_report_arrives_as_it_was_sent(sent: HealthReport) -> None:
    message = codec.health_reply(sent)

    for data in (codec.encode(message), rewritten_by_google(message)):
        assert codec.health_from(codec.decode(data, pb.HealthResponse)) == sent


@pytest.mark.parametrize(
    "sent",
    [
        registration(observed_endpoint=Endpoint("", 0, "")),
        registration(public_endpoint=PublicEndpoint()),
        registration(public_endpoint=PublicEndpoint(ca_fingerprint=CertificateFingerprint(0, b""))),
        pytest.param(
            registration(public_endpoint=PublicEndpoint(updated_at_us=0)),
            marks=pytest.mark.xfail(reason="betterproto does not write a Timestamp of the epoch"),
        ),
    ],
    ids=["observed_endpoint", "public_endpoint", "ca_fingerprint", "updated_at"],
)
def test_a_field_that_is_set_to_its_default_is_not_taken_for_unset(sent: Registration) -> None:
    data = codec.encode(codec.register_request(sent))

    assert codec.registration_from(codec.decode(data, pb.RegisterColonyRequest)) == sent


FULL = registration(
    mesh_ipv4="10.0.0.1",
    mesh_ipv6="fd00::1",
    connect_port=9000,
    public_port=8443,
    observed_endpoint=Endpoint("198.51.100.7", 41820, "udp", via_relay=True),
    public_endpoint=PublicEndpoint(
        enabled=True,
        url="https://colony.example.org",
        ca_cert="PEM",
        ca_fingerprint=CertificateFingerprint(1, b"\x01\x02"),
        updated_at_us=1_800_000_000_123_456,
    ),
)


def _google_request() -> Any:
    return google(pb.RegisterColonyRequest).FromString(codec.encode(codec.register_request(FULL)))


def test_google_reads_each_field_of_a_registration_by_name() -> None:
    read = _google_request()

    assert read.mesh_id == FULL.mesh_id
    assert read.pubkey == FULL.pubkey
    assert tuple(read.endpoints) == FULL.endpoints
    assert dict(read.metadata) == FULL.metadata
    assert (read.mesh_ipv4, read.mesh_ipv6) == ("10.0.0.1", "fd00::1")
    assert (read.connect_port, read.public_port) == (9000, 8443)


def test_google_reads_an_observed_endpoint() -> None:
    observed = _google_request().observed_endpoint

    assert (observed.ip, observed.port) == ("198.51.100.7", 41820)
    assert (observed.protocol, observed.via_relay) == ("udp", True)


def test_google_reads_a_public_endpoint() -> None:
    public = _google_request().public_endpoint

    assert (public.enabled, public.url, public.ca_cert) == (
        True,
        "https://colony.example.org",
        "PEM",
    )
    assert public.ca_fingerprint.algorithm == 1
    assert public.ca_fingerprint.value == b"\x01\x02"
    assert public.updated_at.ToMicroseconds() == 1_800_000_000_123_456


def test_google_reads_a_lookup() -> None:
    lease = Lease(FULL, 7, 1_800_000_000_000_001, 1_800_000_300_000_001)
    data = codec.encode(codec.lookup_reply(lease))

    read: Any = google(pb.LookupColonyResponse).FromString(data)

    assert read.mesh_id == FULL.mesh_id
    assert read.pubkey == FULL.pubkey
    assert read.revision == 7
    assert read.last_seen.ToMicroseconds() == 1_800_000_000_000_001
    assert read.expires_at.ToMicroseconds() == 1_800_000_300_000_001
    assert [endpoint.ip for endpoint in read.observed_endpoints] == ["198.51.100.7"]


def test_google_reads_a_grant() -> None:
    granted = Registered(7, 300, 1_800_000_300_000_001, 61, Endpoint("198.51.100.7", 0, "tcp"))
    data = codec.encode(codec.register_reply(granted))

    read: Any = google(pb.RegisterColonyResponse).FromString(data)

    assert read.success
    assert (read.ttl, read.refresh_after, read.revision) == (300, 61, 7)
    assert read.expires_at.ToMicroseconds() == 1_800_000_300_000_001
    assert (read.observed_endpoint.ip, read.observed_endpoint.port) == ("198.51.100.7", 0)


def test_what_is_unset_is_not_sent() -> None:
    bare = Registration("m", "k")
    request: Any = google(pb.RegisterColonyRequest).FromString(
        codec.encode(codec.register_request(bare))
    )

    assert not request.HasField("observed_endpoint")
    assert not request.HasField("public_endpoint")
    assert codec.encode(codec.register_request(bare)) == b"\n\x01m\x12\x01k"


@given(unix_us=MOMENTS)
@examples(200)
def test_timestamps_keep_their_microseconds(unix_us: int) -> None:
    assert from_datetime(to_datetime(unix_us)) == unix_us


def test_a_timestamp_is_since_the_epoch_in_utc() -> None:
    moment = datetime(2027, 1, 15, 8, 0, 0, 123_456, tzinfo=UTC)

    assert to_datetime(1_800_000_000_123_456) == moment


# Bytes that are no message

READERS: list[tuple[type[betterproto.Message], Callable[[Any], object]]] = [
    (pb.RegisterColonyRequest, codec.registration_from),
    (pb.LookupColonyRequest, codec.encode),
    (pb.DeregisterColonyRequest, codec.encode),
    (pb.RegisterColonyResponse, codec.registered_from),
    (pb.LookupColonyResponse, codec.lease_from),
    (pb.HealthResponse, codec.health_from),
]
A_MESSAGE = codec.encode(codec.register_request(FULL))


def _read_or_refuse(data: bytes, message_type: type[Any], reader: Callable[[Any], object]) -> bool:
    """Return whether `data` could be read; anything but a refusal is raised."""
    try:
        message = codec.decode(data, message_type)
    except MalformedMessageError:
        return False
    reader(message)
    return True


@pytest.mark.parametrize(
    "message_type, reader", READERS, ids=[message_type.__name__ for message_type, _ in READERS]
)
@given(data=st.binary(max_size=200))
@examples(200)
def test_random_bytes_are_read_or_refused(
    message_type: type[Any], reader: Callable[[Any], object], data: bytes
) -> None:
    _read_or_refuse(data, message_type, reader)


@given(
    position=st.integers(0, len(A_MESSAGE) - 1),
    byte=st.integers(0, 255),
    end=st.integers(0, len(A_MESSAGE)),
)
@examples(500)
def test_a_message_that_was_tampered_with_is_read_or_refused(
    position: int, byte: int, end: int
) -> None:
    data = bytearray(A_MESSAGE)
    data[position] = byte

    _read_or_refuse(bytes(data[:end]), pb.RegisterColonyRequest, codec.registration_from)


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"\n\x05mesh",
        b"\xff\xff\xff\xff",
        b"\x00\x00",
        b"\x08\x01",
        b"\n\x02\xff\xfe",
        b"\n" + b"\xff" * 9 + b"\x01",
        b"\xff" * 11,
        b"\n\x01m\x0c",
        b"\n\x03\xed\xa0\x80",
    ],
    ids=[
        "no length",
        "truncated",
        "no tag",
        "field 0",
        "wrong wire type",
        "not UTF-8",
        "endless length",
        "endless varint",
        "stray end of group",
        "surrogate",
    ],
)
def test_bytes_that_do_not_follow_the_schema_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="not a LookupColonyRequest"):
        codec.decode(data, pb.LookupColonyRequest)


def test_what_has_no_metadata_shares_none_that_could_be_changed() -> None:
    said: Any = codec.registration_from(pb.RegisterColonyRequest(mesh_id="a")).metadata
    assert said == {}
    with pytest.raises(TypeError):
        said["region"] = "eu"


@pytest.mark.parametrize("seconds", [253_402_300_800, -62_135_596_801, 2**63 - 1, -(2**63)])
def test_a_moment_that_no_calendar_has_is_refused(seconds: int) -> None:
    request = _google_request()
    request.public_endpoint.updated_at.seconds = seconds

    with pytest.raises(MalformedMessageError):
        codec.decode(request.SerializeToString(), pb.RegisterColonyRequest)


@given(data=st.binary(max_size=60))
@examples(500)
def test_what_google_refuses_we_refuse(data: bytes) -> None:
    try:
        google(pb.LookupColonyRequest).FromString(data)
    except DecodeError:
        assert not _read_or_refuse(data, pb.LookupColonyRequest, codec.encode)


def test_fields_of_a_newer_version_are_no_fault() -> None:
    newer = b"\n\x01m" + b"\xc2\x3e\x03new" + b"\xc8\x3e\x05"

    assert codec.decode(newer, pb.LookupColonyRequest).mesh_id == "m"
