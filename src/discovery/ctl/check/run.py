"""Checking one promise after the other."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from discovery.ctl.access import Access
from discovery.ctl.check.promises import PROMISES, BrokenError, Promise, SkippedError
from discovery.ctl.check.subject import Subject
from discovery.ctl.failures import said
from discovery.errors import DiscoveryError

Verdict = Literal["pass", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a promise; `why` is empty if it is kept."""

    promise: str
    result: Verdict
    why: str
    seconds: float


async def check(
    access: Access,
    prefix: str,
    max_wait: float,
    promises: Sequence[Promise] = PROMISES,
) -> AsyncIterator[Result]:
    """Yield the result of each promise, in their order; each has a mesh of its own, whose id begins with `prefix`.

    Raises:
        DiscoveryError: the server cannot be reached at all.
    """
    async with access.client() as client:
        await client.health()
    unique = f"{prefix}{secrets.token_hex(6)}"
    for number, promise in enumerate(promises):
        yield await _check(access, promise, f"{unique}-{number}", max_wait)


async def _check(access: Access, promise: Promise, mesh: str, max_wait: float) -> Result:
    started = time.monotonic()
    verdict: Verdict = "pass"
    why = ""
    try:
        async with Subject.of(access, mesh, max_wait) as subject:
            await promise.hold(subject)
    except SkippedError as skipped:
        verdict, why = "skip", str(skipped)
    except BrokenError as broken:
        verdict, why = "fail", str(broken)
    except DiscoveryError as error:
        verdict, why = "fail", f"{error.code.name}: {said(error)}"
    return Result(promise.sentence, verdict, why, round(time.monotonic() - started, 3))
