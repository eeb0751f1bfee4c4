"""Errors to status and details, and back (the design's "What an answer means"). Shared by servers and clients.

An error travels as a status code, a message, and details: google.rpc.ErrorInfo with the reason and its data, and
where they apply BadRequest with every violation and RetryInfo. See https://google.aip.dev/193.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

import betterproto
from betterproto.lib.google.protobuf import Any

from discovery import errors
from discovery._gen.google.rpc import (
    BadRequest,
    BadRequestFieldViolation,
    ErrorInfo,
    RetryInfo,
    Status,
)
from discovery.errors import Code, DiscoveryError, MalformedMessageError, Violation
from discovery.transport import codec
from discovery.transport.messages import new
from discovery.transport.moments import from_datetime, to_datetime

DOMAIN = "discovery.coral.io"

# Clients refuse trailers beyond 8 KiB by default, and these travel in base64.
_MAX_VIOLATION_BYTES = 4 * 1024
_MAX_MESSAGE_LENGTH = 512
_DETAIL_TYPES: tuple[type[betterproto.Message], ...] = (ErrorInfo, BadRequest, RetryInfo)
_BY_REASON: Mapping[tuple[int, str], type[DiscoveryError]] = {
    (kind.code, kind.reason): kind
    for kind in (
        errors.TooLargeError,
        errors.RateLimitedError,
        errors.QuotaError,
        errors.UnauthenticatedError,
        errors.PermissionDeniedError,
        errors.ProofInvalidError,
        errors.StoreUnavailableError,
        errors.DrainingError,
        errors.UnimplementedError,
        errors.MalformedMessageError,
        errors.InternalError,
        errors.InvalidMessageError,
        errors.DeadlineExceededError,
        errors.UnreachableError,
    )
}
_BY_CODE: Mapping[Code, type[DiscoveryError]] = {
    Code.UNAVAILABLE: errors.UnreachableError,
    Code.DEADLINE_EXCEEDED: errors.DeadlineExceededError,
    Code.UNIMPLEMENTED: errors.UnimplementedError,
    Code.INTERNAL: errors.InternalError,
}
_NAMING: Mapping[str, type[errors.NotRegisteredError | errors.NotOwnerError]] = {
    kind.reason: kind for kind in (errors.NotRegisteredError, errors.NotOwnerError)
}
_DATED: Mapping[str, tuple[type[errors.MeshIdTakenError | errors.MeshReservedError], str]] = {
    errors.MeshIdTakenError.reason: (errors.MeshIdTakenError, "expires_at"),
    errors.MeshReservedError.reason: (errors.MeshReservedError, "reserved_until"),
}
_Named = (
    errors.NotRegisteredError
    | errors.NotOwnerError
    | errors.MeshIdTakenError
    | errors.MeshReservedError
)
_TYPE_PREFIX = "type.googleapis.com/google.rpc."


def status_of(error: DiscoveryError) -> Status:
    """Return `error` as google.rpc.Status, the form that every protocol carries."""
    details = [_packed(detail) for detail in _details(error)]
    return new(Status, code=error.code.value, message=message_of(error), details=details)


def message_of(error: DiscoveryError) -> str:
    """Return the error's message, cut to what fits in a header; the details have the whole."""
    message = error.message
    return (
        message if len(message) <= _MAX_MESSAGE_LENGTH else message[: _MAX_MESSAGE_LENGTH - 1] + "…"
    )


def error_of(code: int, message: str, details: Iterable[Any] = ()) -> DiscoveryError:
    """Return the error that a status means; the inverse of `status_of`, for clients.

    A reason that this version does not know, or none (a proxy's answer), gives the class for the code alone.
    """
    info, bad_request = ErrorInfo(), BadRequest()
    retry_after: float | None = None
    for detail in _unpacked(details):
        match detail:
            case ErrorInfo():
                info = detail
            case BadRequest():
                bad_request = detail
            case RetryInfo():
                retry_after = detail.retry_delay.total_seconds()
    error = _error_with_data(info, bad_request, message) or _error_without_data(
        code, info.reason, message
    )
    error.retry_after = retry_after
    return error


def _error_with_data(
    info: ErrorInfo, bad_request: BadRequest, message: str
) -> DiscoveryError | None:
    data = info.metadata
    mesh_id, agent_id = data.get("mesh_id", ""), data.get("agent_id", "")
    match info.reason:
        case errors.InvalidFieldError.reason:
            found = ((v.field, v.description) for v in bad_request.field_violations)
            return errors.InvalidFieldError(tuple(Violation(*each) for each in found), message)
        case errors.NotRegisteredError.reason | errors.NotOwnerError.reason:
            kind = _NAMING[info.reason]
            return kind(mesh_id, message, agent_id=agent_id)
        case errors.MeshIdTakenError.reason | errors.MeshReservedError.reason:
            dated, name = _DATED[info.reason]
            return dated(mesh_id, _moment(info, name), message, agent_id=agent_id)
        case errors.ProofRequiredError.reason:
            challenge = data.get("server_key", ""), data.get("nonce", "")
            return errors.ProofRequiredError(message, *challenge)
    return None


def _error_without_data(code: int, reason: str, message: str) -> DiscoveryError:
    if (kind := _BY_REASON.get((code, reason))) is not None:
        return kind(message)
    known = Code(code) if code in Code.__members__.values() else Code.UNKNOWN
    if not reason and (kind := _BY_CODE.get(known)) is not None:
        return kind(message)
    return errors.OtherError(known, reason, message)


def _moment(info: ErrorInfo, name: str) -> int:
    try:
        return from_datetime(datetime.fromisoformat(info.metadata[name]))
    except (KeyError, ValueError, TypeError):
        return 0


def _details(error: DiscoveryError) -> Iterator[betterproto.Message]:
    if error.reason:
        yield new(ErrorInfo, reason=error.reason, domain=DOMAIN, metadata=dict(_metadata(error)))
    if isinstance(error, errors.InvalidFieldError):
        yield BadRequest(field_violations=list(_field_violations(error.violations)))
    if error.retry_after is not None:
        yield RetryInfo(retry_delay=timedelta(seconds=error.retry_after))


def _metadata(error: DiscoveryError) -> Iterator[tuple[str, str]]:
    if isinstance(error, _Named):
        yield "mesh_id", error.mesh_id
        if error.agent_id:
            yield "agent_id", error.agent_id
    if isinstance(error, errors.MeshIdTakenError):
        yield "expires_at", _text_of(error.expires_at_us)
    if isinstance(error, errors.MeshReservedError):
        yield "reserved_until", _text_of(error.reserved_until_us)
    if isinstance(error, errors.ProofRequiredError):
        yield "server_key", error.server_key
        yield "nonce", error.nonce


def _text_of(unix_us: int) -> str:
    return to_datetime(unix_us).isoformat().replace("+00:00", "Z")


def _field_violations(violations: tuple[Violation, ...]) -> Iterator[BadRequestFieldViolation]:
    size = 0
    for index, (field, description) in enumerate(violations):
        size += len(field) + len(description)
        if size > _MAX_VIOLATION_BYTES:
            yield BadRequestFieldViolation(
                field="", description=f"and {len(violations) - index} more"
            )
            return
        yield BadRequestFieldViolation(field=field, description=description)


def _packed(detail: betterproto.Message) -> Any:
    name = type(detail).__name__
    return new(Any, type_url=_TYPE_PREFIX + name, value=codec.encode(detail))


def _unpacked(details: Iterable[Any]) -> Iterator[betterproto.Message]:
    known = {_TYPE_PREFIX + kind.__name__: kind for kind in _DETAIL_TYPES}
    for detail in details:
        if (kind := known.get(detail.type_url)) is not None:
            with suppress(MalformedMessageError):  # the code and the message still stand
                yield codec.decode(detail.value, kind)
