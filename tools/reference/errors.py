"""Every error that a server answers with: its codes from the code, and in words what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from discovery import errors
from discovery.errors import DiscoveryError, OtherError
from discovery.transport.http_errors import http_status
from tools.reference.markdown import code, table


class _Meaning(NamedTuple):
    when: str
    helps: str
    data: tuple[str, ...] = ()
    """The keys of the ErrorInfo's metadata."""


_NAME = ("mesh_id", "agent_id")

_MEANINGS: Mapping[type[DiscoveryError], _Meaning] = {
    errors.InvalidFieldError: _Meaning(
        "fields break rules; `google.rpc.BadRequest` has all of them", "another request"
    ),
    errors.InvalidMessageError: _Meaning(
        "the body is not the message that it should be (Connect, REST)", "another request"
    ),
    errors.MalformedMessageError: _Meaning(
        "the bytes are not the message that they should be (gRPC)", "another request"
    ),
    errors.NotRegisteredError: _Meaning(
        "nobody holds a lease on that name.", "to wait for it, or to watch", _NAME
    ),
    errors.MeshIdTakenError: _Meaning(
        "another key holds a live lease, until `expires_at` unless it is renewed.",
        "another name, or to wait",
        (*_NAME, "expires_at"),
    ),
    errors.MeshReservedError: _Meaning(
        "there is no lease, but until `reserved_until` the name is kept for its last key.",
        "another name, or to wait",
        (*_NAME, "reserved_until"),
    ),
    errors.NotOwnerError: _Meaning(
        "another key holds the lease that was to be ended.", "the key that holds it", _NAME
    ),
    errors.TooLargeError: _Meaning("the request is over `--max-request-bytes`", "a smaller one"),
    errors.RateLimitedError: _Meaning(
        "too many calls from this address, for this mesh, or with this API key",
        "to wait as `google.rpc.RetryInfo` says",
    ),
    errors.QuotaError: _Meaning(
        "as much is registered as may be: with this API key, in this mesh, or in all",
        "fewer registrations, or a higher quota",
    ),
    errors.UnauthenticatedError: _Meaning(
        "the server asks for an API key, and this call has none that it knows", "a valid key"
    ),
    errors.PermissionDeniedError: _Meaning("the API key does not allow this call", "another key"),
    errors.ProofRequiredError: _Meaning(
        "the server asks for a proof that the private key is held, made with this challenge.",
        "to prove it, and call again",
        ("server_key", "nonce"),
    ),
    errors.ProofInvalidError: _Meaning(
        "the proof is for another key, message, mesh, server or time", "a right proof"
    ),
    errors.StoreUnavailableError: _Meaning(
        "the store does not answer; a change may have been made all the same",
        "to repeat the call, as `google.rpc.RetryInfo` says",
    ),
    errors.DrainingError: _Meaning(
        "this server is stopping", "to repeat the call, as `google.rpc.RetryInfo` says"
    ),
    errors.DeadlineExceededError: _Meaning(
        "the deadline passed, or the request took too long to arrive", "to repeat the call"
    ),
    errors.UnimplementedError: _Meaning("this version has no such call", "a newer server"),
    errors.InternalError: _Meaning("a defect of the server; its log has more", "to report it"),
}
_NEVER_SENT = {errors.UnreachableError, OtherError}
"""What only clients raise."""

_HEAD = ("reason", "gRPC status", "HTTP", "when", "what helps")


def errors_table() -> str:
    """Return the table of all errors, by their status.

    Raises:
        KeyError: an error has no words here yet.
    """
    kinds = sorted(_sent(), key=lambda kind: (kind.code, kind.reason))
    return table(_HEAD, map(_row, kinds))


def _sent() -> Iterator[type[DiscoveryError]]:
    for kind in DiscoveryError.__subclasses__():
        if kind not in _NEVER_SENT:
            yield kind


def _row(kind: type[DiscoveryError]) -> tuple[str, ...]:
    meaning = _MEANINGS[kind]
    status = http_status(OtherError(kind.code, kind.reason, ""))
    data = f" Metadata: {', '.join(map(code, meaning.data))}" if meaning.data else ""
    return code(kind.reason), code(kind.code.name), str(status), meaning.when + data, meaning.helps
