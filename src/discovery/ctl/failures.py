"""How an error ends a command: its exit code, and the one line that is said."""

from __future__ import annotations

import enum

from discovery.ctl.text import on_one_line
from discovery.errors import Code, DiscoveryError, ProofRequiredError, UnauthenticatedError


class ExitCode(enum.IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    REFUSED = 5


_CODES = {
    Code.INVALID_ARGUMENT: ExitCode.USAGE,
    Code.NOT_FOUND: ExitCode.NOT_FOUND,
    Code.UNAVAILABLE: ExitCode.UNREACHABLE,
    Code.DEADLINE_EXCEEDED: ExitCode.UNREACHABLE,
    Code.UNIMPLEMENTED: ExitCode.UNREACHABLE,
    Code.ALREADY_EXISTS: ExitCode.REFUSED,
    Code.PERMISSION_DENIED: ExitCode.REFUSED,
    Code.UNAUTHENTICATED: ExitCode.REFUSED,
    Code.RESOURCE_EXHAUSTED: ExitCode.REFUSED,
    Code.FAILED_PRECONDITION: ExitCode.REFUSED,
}


def exit_code(error: DiscoveryError) -> ExitCode:
    """Return the exit code for `error`."""
    return _CODES.get(error.code, ExitCode.FAILED)


def said(error: DiscoveryError) -> str:
    """Return what to tell of `error`, on one line, and what to do if that is known."""
    return on_one_line(error.message or error.reason or error.code.name) + _advice(error)


def _advice(error: DiscoveryError) -> str:
    if isinstance(error, ProofRequiredError):
        return " (name the private key with --key-file)"
    if isinstance(error, UnauthenticatedError):
        return " (give a key with --api-key-file or CORAL_API_KEY)"
    if error.code is Code.PERMISSION_DENIED:
        return " (`coral-discoveryctl keys list` shows what a key may do)"
    return ""
