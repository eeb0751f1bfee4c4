"""The deadlines that calls bring."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from grpclib.metadata import decode_timeout

from discovery.errors import DeadlineExceededError, InvalidMessageError

_TIMEOUT = re.compile(
    r"[0-9]{1,8}[HMSmun]", re.ASCII
)  # "TimeoutValue" of gRPC's protocol over HTTP/2


def until(deadline: float | None) -> AbstractAsyncContextManager[object]:
    """Return what raises TimeoutError once `deadline`, on `time.monotonic()`, has passed; there need not be one."""
    # The loop goes by that clock too. A timeout that never comes would still take some microseconds.
    return nullcontext() if deadline is None else asyncio.timeout_at(deadline)


def overdue() -> DeadlineExceededError:
    """Return what a client is told whose call did not end in time."""
    return DeadlineExceededError("the call's deadline was exceeded")


def read_deadline(fields: Mapping[str, str]) -> float | None:
    """Return a gRPC call's deadline, on `time.monotonic()`; see `read_timeout`."""
    seconds = read_timeout(fields)
    return None if seconds is None else time.monotonic() + seconds


def read_timeout(fields: Mapping[str, str]) -> float | None:
    """Return how many seconds a gRPC call has, if its headers say so.

    Raises:
        InvalidMessageError: `grpc-timeout` is none.
        DeadlineExceededError: it is over before it began.
    """
    value = fields.get("grpc-timeout")
    if value is None:
        return None
    if not _TIMEOUT.fullmatch(value):
        raise InvalidMessageError("grpc-timeout must be up to eight digits and a unit")
    seconds: float = decode_timeout(value)
    if seconds <= 0:
        raise DeadlineExceededError("the deadline was over before the call began")
    return seconds
