"""Why a command gives up, and the exit code that says so."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

from discovery.client.pacing import is_transient
from discovery.errors import DiscoveryError, NotRegisteredError
from discovery.wireguard import TunnelError


class ExitCode(enum.IntEnum):
    """The exit codes of `coral`, beside 0 for success, 1 for a defect and 130 for an interruption."""

    USAGE = 2
    """A flag, a variable or the configuration cannot work."""
    NOT_REGISTERED = 3
    """No colony is registered for the mesh."""
    UNREACHABLE = 4
    """Discovery cannot be reached, and nothing is known from before."""
    NO_CONNECTION = 5
    """The colony is known, but no endpoint of it answered."""
    NO_TUNNEL = 6
    """A tunnel cannot be made: permissions or programs are missing, or the device was lost."""
    REFUSED = 7
    """Discovery refuses, as the message says."""


class GivenUpError(Exception):
    """A command cannot do what it is for. The message is one line that says what to do where something can be done."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def giving_up() -> Iterator[None]:
    """Take the reason out of the groups that concurrent work wraps it in.

    Raises:
        GivenUpError: the block gave up, or its tunnel failed.
    """
    try:
        yield
    except (TunnelError, ExceptionGroup) as error:
        if (reason := _reason(error)) is None:
            raise
        raise reason from None


def _reason(error: Exception) -> GivenUpError | None:
    """Return why the work was given up; None if any of the errors is a defect."""
    if isinstance(error, ExceptionGroup):
        reasons = [_reason(inner) for inner in error.exceptions]
        return reasons[0] if all(reasons) else None
    if isinstance(error, TunnelError):
        return GivenUpError(str(error), ExitCode.NO_TUNNEL)
    return error if isinstance(error, GivenUpError) else None


def is_hopeful(error: DiscoveryError) -> bool:
    """Return whether a lookup that failed may succeed later: discovery may come back, and a colony start."""
    return is_transient(error) or isinstance(error, NotRegisteredError)


def given_up(error: DiscoveryError) -> GivenUpError:
    """Return why a command gives up after `error` of a lookup."""
    if isinstance(error, NotRegisteredError):
        return GivenUpError(f"{error.message}: is it started?", ExitCode.NOT_REGISTERED)
    code = ExitCode.UNREACHABLE if is_transient(error) else ExitCode.REFUSED
    return GivenUpError(error.message, code)
