"""Errors travel as google.rpc.Status and arrive as what they were; Google's own classes read the same from them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from betterproto.lib.google.protobuf import Any as PackedAny
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from discovery import errors
from discovery._gen.google.rpc import Status
from discovery.errors import Code, DiscoveryError, InvalidFieldError, Violation
from discovery.models import Endpoint
from discovery.transport import codec
from discovery.transport.status import DOMAIN, error_of, message_of, status_of
from discovery.validation import check_registration
from tests.support import examples, registration

M = TypeVar("M", bound=Message)

EXPIRES_AT_US = 1_800_000_300_123_456
VIOLATIONS = (Violation("mesh_id", "must not be empty"), Violation("pubkey", "must not be é"))

ERRORS: list[DiscoveryError] = [
    InvalidFieldError(VIOLATIONS),
    errors.NotRegisteredError("mesh-1"),
    errors.MeshIdTakenError("mesh-1", EXPIRES_AT_US),
    errors.MeshIdTakenError("mesh-2", 1_800_000_300_000_000),
    errors.NotOwnerError("mesh-1"),
    errors.NotRegisteredError("mesh-1", agent_id="api"),
    errors.MeshIdTakenError("mesh-1", EXPIRES_AT_US, agent_id="api"),
    errors.NotOwnerError("mesh-1", agent_id="api"),
    errors.MeshReservedError("mesh-1", EXPIRES_AT_US),
    errors.MeshReservedError("mesh-1", EXPIRES_AT_US, agent_id="api"),
    errors.RateLimitedError("too many calls", retry_after=2.0),
    errors.QuotaError("too many meshes"),
    errors.UnauthenticatedError("no key"),
    errors.PermissionDeniedError("another mesh"),
    errors.ProofRequiredError("no proof", "server key", "nonce"),
    errors.ProofInvalidError("no such proof"),
    errors.TooLargeError("the request is too large"),
    errors.StoreUnavailableError("the store does not answer", retry_after=0.25),
    errors.DrainingError("stopping", retry_after=1.0),
    errors.UnreachableError("cannot reach it"),
    errors.DeadlineExceededError("too late"),
    errors.UnimplementedError("not yet"),
    errors.MalformedMessageError("not a message"),
    errors.InvalidMessageError("no message either"),
    errors.InternalError("a defect"),
    errors.OtherError(Code.ABORTED, "BY_A_NEWER_SERVER", "another"),
]


def _travel(error: DiscoveryError) -> DiscoveryError:
    """Return what a client makes of `error`."""
    status = codec.decode(codec.encode(status_of(error)), Status)
    return error_of(status.code, status.message, status.details)


def _data(error: DiscoveryError) -> dict[str, Any]:
    return {"code": error.code, "reason": error.reason, **vars(error)}


def _read_by_google(error: DiscoveryError) -> status_pb2.Status:
    return status_pb2.Status.FromString(bytes(status_of(error)))


def _details(status: status_pb2.Status, kind: type[M]) -> list[M]:
    found = []
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            found.append(detail)
    return found


def _subclasses(kind: type[DiscoveryError]) -> Iterator[type[DiscoveryError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def test_every_kind_of_error_is_tested_here() -> None:
    ours = {kind for kind in _subclasses(DiscoveryError) if kind.__module__ == errors.__name__}

    assert {type(error) for error in ERRORS} == ours


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_arrives_as_it_was_sent(error: DiscoveryError) -> None:
    arrived = _travel(error)

    assert type(arrived) is type(error)
    assert _data(arrived) == _data(error)
    assert str(arrived) == str(error)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_google_reads_code_message_and_reason(error: DiscoveryError) -> None:
    status = _read_by_google(error)

    assert status.code == code_pb2.Code.Value(error.code.name)
    assert status.message == error.message
    [info] = _details(status, error_details_pb2.ErrorInfo)
    assert info.reason == error.reason
    assert info.domain == DOMAIN


def test_google_reads_every_violation() -> None:
    status = _read_by_google(InvalidFieldError(VIOLATIONS))

    [bad_request] = _details(status, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad_request.field_violations] == list(VIOLATIONS)


def test_google_reads_when_the_lease_ends() -> None:
    status = _read_by_google(errors.MeshIdTakenError("mesh-1", EXPIRES_AT_US))

    [info] = _details(status, error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {
        "mesh_id": "mesh-1",
        "expires_at": "2027-01-15T08:05:00.123456Z",
    }


def test_google_reads_when_to_try_again() -> None:
    status = _read_by_google(errors.DrainingError("stopping", retry_after=1.5))

    [retry] = _details(status, error_details_pb2.RetryInfo)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)


def test_without_a_time_to_try_again_there_is_no_retry_info() -> None:
    status = _read_by_google(errors.TooLargeError("too large"))

    assert _details(status, error_details_pb2.RetryInfo) == []
    assert _travel(errors.TooLargeError("too large")).retry_after is None


@given(seconds=st.integers(min_value=0, max_value=10**12).map(lambda us: us / 1_000_000))
@examples(100)
def test_the_time_to_try_again_arrives_to_the_microsecond(seconds: float) -> None:
    arrived = _travel(errors.DrainingError("stopping", retry_after=seconds))

    assert arrived.retry_after == pytest.approx(seconds, abs=1e-6)


@given(expires_at_us=st.integers(min_value=0, max_value=253_402_300_799_999_999))
@examples(100)
def test_the_end_of_a_lease_arrives_to_the_microsecond(expires_at_us: int) -> None:
    arrived = _travel(errors.MeshIdTakenError("mesh-1", expires_at_us))

    assert isinstance(arrived, errors.MeshIdTakenError)
    assert arrived.expires_at_us == expires_at_us


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_a_reason_that_is_not_known_keeps_code_and_reason(code: Code) -> None:
    arrived = _travel(errors.OtherError(code, "BY_A_NEWER_SERVER", "hello"))

    assert type(arrived) is errors.OtherError
    assert (arrived.code, arrived.reason, arrived.message) == (code, "BY_A_NEWER_SERVER", "hello")


@pytest.mark.parametrize(
    "code, kind",
    [
        (Code.UNAVAILABLE, errors.UnreachableError),
        (Code.DEADLINE_EXCEEDED, errors.DeadlineExceededError),
        (Code.UNIMPLEMENTED, errors.UnimplementedError),
        (Code.INTERNAL, errors.InternalError),
        (Code.NOT_FOUND, errors.OtherError),
        (Code.UNAUTHENTICATED, errors.OtherError),
    ],
)
def test_without_details_the_code_decides(code: Code, kind: type[DiscoveryError]) -> None:
    arrived = error_of(code.value, "from a proxy")

    assert type(arrived) is kind
    assert arrived.code is code
    assert arrived.message == "from a proxy"


@pytest.mark.parametrize("code", [-1, 17, 2**31 - 1])
def test_a_code_that_is_not_known_is_unknown(code: int) -> None:
    assert error_of(code, "hello").code is Code.UNKNOWN


def test_details_that_are_not_known_are_left_alone() -> None:
    details = [
        PackedAny("type.googleapis.com/google.rpc.Help", b"\x0a\x00"),
        PackedAny("type.googleapis.com/example.Unheard", b"\xff"),
        *status_of(errors.NotRegisteredError("mesh-1")).details,
    ]

    assert type(error_of(Code.NOT_FOUND, "hello", details)) is errors.NotRegisteredError


@pytest.mark.parametrize("kind", ["ErrorInfo", "BadRequest", "RetryInfo"])
def test_a_detail_that_cannot_be_read_does_not_hide_the_code(kind: str) -> None:
    arrived = error_of(
        Code.NOT_FOUND, "hello", [PackedAny(f"type.googleapis.com/google.rpc.{kind}", b"\xff")]
    )

    assert arrived.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    "expires_at", [None, "", "soon", "2027-01-15", "2027-01-15T08:05:00", "2027-13-01T00:00:00Z"]
)
def test_an_end_of_the_lease_that_cannot_be_read_is_zero(expires_at: str | None) -> None:
    metadata = {} if expires_at is None else {"expires_at": expires_at}
    info = error_details_pb2.ErrorInfo(reason="MESH_ID_TAKEN", metadata=metadata)
    detail = PackedAny("type.googleapis.com/google.rpc.ErrorInfo", info.SerializeToString())

    arrived = error_of(Code.ALREADY_EXISTS, "taken", [detail])

    assert isinstance(arrived, errors.MeshIdTakenError)
    assert arrived.expires_at_us == 0


def test_a_message_is_cut_to_what_fits_in_a_header() -> None:
    assert message_of(errors.InternalError("x" * 512)) == "x" * 512
    assert message_of(errors.InternalError("x" * 513)) == "x" * 511 + "…"


def _trailers(error: DiscoveryError) -> int:
    """Return the size of the trailers that carry `error`, by the gRPC over HTTP/2 specification."""
    details = base64.b64encode(bytes(status_of(error)))
    message = quote(message_of(error), safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    names = len("grpc-statusgrpc-messagegrpc-status-details-bin")
    return names + len(str(error.code.value)) + len(details) + len(message)


ALL_WRONG = registration(
    mesh_id="." * 100,
    pubkey="x" * 100,
    endpoints=tuple(f"{number:039}" for number in range(32)),
    metadata={f"{number:03}" + "\0" * 130: "v" * 5000 for number in range(64)},
    mesh_ipv4="\0" * 100,
    mesh_ipv6="\0" * 100,
    connect_port=2**32 - 1,
    public_port=2**32 - 1,
    observed_endpoint=Endpoint("\0" * 100, 2**32 - 1),
)


@pytest.mark.parametrize(
    "violations",
    [
        tuple(check_registration(ALL_WRONG)),
        tuple(Violation("pubkey", "is bad") for _ in range(200)),
        tuple(Violation("f" * 50, "d" * 50) for _ in range(2000)),
        (Violation("f", "d" * 100_000),),
    ],
    ids=["registration", "many short", "many", "one long"],
)
def test_however_many_violations_the_trailers_stay_under_8_kib(
    violations: tuple[Violation, ...],
) -> None:
    assert _trailers(InvalidFieldError(violations)) < 8 * 1024


def test_violations_that_do_not_fit_are_counted() -> None:
    violations = tuple(Violation(f"endpoints[{n}]", "d" * 100) for n in range(100))

    arrived = _travel(InvalidFieldError(violations))

    assert isinstance(arrived, InvalidFieldError)
    *listed, last = arrived.violations
    assert len(listed) >= 30
    assert tuple(listed) == violations[: len(listed)]
    assert last.description == f"and {100 - len(listed)} more"
