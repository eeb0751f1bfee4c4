"""Everything that can go wrong with a call, as one tree of exceptions.

Each class has one status code and one reason (the `reason` of google.rpc.ErrorInfo), and carries what
a caller may want to act on as attributes. Stores and the service raise these; a transport turns them into
its own words, and a client turns those words back into the same classes.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Code(enum.IntEnum):
    """Status codes with the numbers of google.rpc.Code, which gRPC and Connect share."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Violation(NamedTuple):
    """One rule that one field breaks."""

    field: str
    description: str


class DiscoveryError(Exception):
    """The root: catch this to catch every error that this package raises on purpose.

    `retry_after` is how long to wait before the same call may succeed, in seconds; None when waiting
    does not help.
    """

    code: Code = Code.UNKNOWN
    reason: str = ""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidFieldError(DiscoveryError):
    """Fields of a request break rules; `violations` names every one of them, not only the first."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_FIELD"

    def __init__(self, violations: tuple[Violation, ...], message: str | None = None) -> None:
        super().__init__(message or "; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations


class NotRegisteredError(DiscoveryError):
    """No such colony is registered, or agent if there is an `agent_id`, or its lease ran out."""

    code = Code.NOT_FOUND
    reason = "NOT_REGISTERED"

    def __init__(self, mesh_id: str, message: str | None = None, *, agent_id: str = "") -> None:
        who = f"agent {agent_id!r}" if agent_id else "colony"
        super().__init__(message or f"no {who} is registered for mesh {mesh_id!r}")
        self.mesh_id = mesh_id
        self.agent_id = agent_id


class MeshIdTakenError(DiscoveryError):
    """Another key holds a live lease on this mesh_id, until `expires_at_us` (microseconds, Unix time).

    If there is an `agent_id`, it is that agent's lease.
    """

    code = Code.ALREADY_EXISTS
    reason = "MESH_ID_TAKEN"

    def __init__(
        self, mesh_id: str, expires_at_us: int, message: str | None = None, *, agent_id: str = ""
    ) -> None:
        super().__init__(
            message or f"{_named(mesh_id, agent_id)} is already registered with another public key"
        )
        self.mesh_id = mesh_id
        self.agent_id = agent_id
        self.expires_at_us = expires_at_us


class MeshReservedError(DiscoveryError):
    """The mesh_id has no live lease, but is reserved for its last key until `reserved_until_us` (Unix time).

    If there is an `agent_id`, it is that agent's name.
    """

    code = Code.ALREADY_EXISTS
    reason = "MESH_ID_RESERVED"

    def __init__(
        self,
        mesh_id: str,
        reserved_until_us: int,
        message: str | None = None,
        *,
        agent_id: str = "",
    ) -> None:
        super().__init__(
            message or f"{_named(mesh_id, agent_id)} is reserved for another public key"
        )
        self.mesh_id = mesh_id
        self.agent_id = agent_id
        self.reserved_until_us = reserved_until_us


class NotOwnerError(DiscoveryError):
    """The mesh, or its agent `agent_id`, is held by another key than the one that asked to remove it."""

    code = Code.PERMISSION_DENIED
    reason = "NOT_OWNER"

    def __init__(self, mesh_id: str, message: str | None = None, *, agent_id: str = "") -> None:
        super().__init__(
            message or f"{_named(mesh_id, agent_id)} is registered with another public key"
        )
        self.mesh_id = mesh_id
        self.agent_id = agent_id


class TooLargeError(DiscoveryError):
    """A request is larger than the server reads. It has no `retry_after`: it will never fit."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TOO_LARGE"


class RateLimitedError(DiscoveryError):
    """Too many calls of this kind from this address, key or mesh; `retry_after` says when there is room again."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"


class QuotaError(DiscoveryError):
    """As much is registered as may be: by this key, in this mesh, or in all."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "QUOTA"


class UnauthenticatedError(DiscoveryError):
    """The server asks for an API key, and this call has none that it knows."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDeniedError(DiscoveryError):
    """The API key of this call does not allow it."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class ProofRequiredError(DiscoveryError):
    """The server asks for a proof that the caller holds its private key, made with this challenge.

    `server_key` is the server's X25519 public key and `nonce` what makes the proof good for once, both in base64.
    """

    code = Code.UNAUTHENTICATED
    reason = "PROOF_REQUIRED"

    def __init__(self, message: str, server_key: str, nonce: str) -> None:
        super().__init__(message)
        self.server_key = server_key
        self.nonce = nonce


class ProofInvalidError(DiscoveryError):
    """A proof does not hold: of another key, message, mesh, server or time."""

    code = Code.UNAUTHENTICATED
    reason = "PROOF_INVALID"


class StoreUnavailableError(DiscoveryError):
    """The store cannot answer now. It says nothing about what the store holds."""

    code = Code.UNAVAILABLE
    reason = "STORE_UNAVAILABLE"


class DrainingError(DiscoveryError):
    """This server is stopping; another replica, or this one when it is back, will answer."""

    code = Code.UNAVAILABLE
    reason = "DRAINING"


class UnreachableError(DiscoveryError):
    """A client could not reach the server, or lost it before it answered. Servers never raise it."""

    code = Code.UNAVAILABLE
    reason = "UNREACHABLE"


class DeadlineExceededError(DiscoveryError):
    """The call's deadline passed before its answer was ready."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class UnimplementedError(DiscoveryError):
    """The method is in the protocol, but this server does not serve it."""

    code = Code.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class MalformedMessageError(DiscoveryError):
    """The bytes of a message do not follow its schema.

    INTERNAL is what gRPC prescribes for it ("Could not decompress/parse", its status code table).
    """

    code = Code.INTERNAL
    reason = "MALFORMED_MESSAGE"


class InvalidMessageError(DiscoveryError):
    """A request's body is not the message it should be: what MalformedMessageError is to Connect and REST."""

    code = Code.INVALID_ARGUMENT
    reason = MalformedMessageError.reason


class InternalError(DiscoveryError):
    """A defect of this program. The message is all a caller gets; the log has the rest."""

    code = Code.INTERNAL
    reason = "INTERNAL"


class OtherError(DiscoveryError):
    """An answer from a newer server, or from a proxy, that this version has no class for. Servers never raise it."""

    def __init__(self, code: Code, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class ConfigError(Exception):
    """A setting that cannot work. The message is one line that says what to do."""


def _named(mesh_id: str, agent_id: str) -> str:
    return f"agent {agent_id!r} of mesh {mesh_id!r}" if agent_id else f"mesh {mesh_id!r}"
