"""Where a colony is: as discovery says, or as the user said, which is how to connect while discovery is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from discovery.client import ColonyResolver
from discovery.client.state import ResolverPhase
from discovery.errors import DiscoveryError, NotRegisteredError, UnreachableError
from discovery.models import Registration
from discovery.runners.failures import given_up, is_hopeful
from discovery.runners.report import Report

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 5.0


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A colony's public key and endpoints, in the order to try them."""

    pubkey: str
    endpoints: tuple[str, ...]


class Finder(Protocol):
    """Knows where a colony is, and hears which endpoint works."""

    async def find(self) -> Whereabouts:
        """Return where it is, when that is known.

        Raises:
            GivenUpError: it will not be known.
        """
        ...

    def knows(self) -> bool:
        """Return whether it is known from before where the colony was."""
        ...

    def give_up(self) -> Whereabouts:
        """Return where it was when it was last known, as `find` took too long.

        Raises:
            GivenUpError: it was never known.
        """
        ...

    def latest(self) -> Whereabouts:
        """Return where it is as far as is known, once it was found."""
        ...

    def connected(self, endpoint: str) -> None:
        """Take note that this endpoint works."""
        ...

    def failed(self) -> None:
        """Take note that none of them works."""
        ...


class GivenColony:
    """The Finder of a colony that the user named."""

    def __init__(self, where: Whereabouts) -> None:
        self._where = where

    async def find(self) -> Whereabouts:
        """See Finder."""
        return self._where

    def knows(self) -> bool:
        """See Finder."""
        return True

    def give_up(self) -> Whereabouts:
        """See Finder."""
        return self._where

    def latest(self) -> Whereabouts:
        """See Finder."""
        return self._where

    def connected(self, endpoint: str) -> None:
        """See Finder: nothing is remembered."""

    def failed(self) -> None:
        """See Finder: there is nobody to ask."""


class DiscoveredColony:
    """The Finder that asks discovery."""

    def __init__(self, resolver: ColonyResolver, report: Report) -> None:
        self._resolver = resolver
        self._report = report
        self._error: DiscoveryError | None = None

    async def find(self) -> Whereabouts:
        """See Finder. It asks again, without end, while there is hope."""
        wait = _FIRST_WAIT
        while True:
            try:
                await self._resolver.resolve()
            except DiscoveryError as error:
                self._note(error)
            else:
                if (where := self.latest()).endpoints:
                    self._tell_if_old()
                    return where
                self._note(
                    NotRegisteredError(
                        self._registration().mesh_id, "the colony has no endpoint that can be used"
                    )
                )
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def knows(self) -> bool:
        """See Finder."""
        return bool(self._resolver.endpoints())

    def give_up(self) -> Whereabouts:
        """See Finder."""
        if self.knows():
            self._tell_if_old()
            return self.latest()
        raise given_up(self._error or UnreachableError("discovery does not answer"))

    def latest(self) -> Whereabouts:
        """See Finder."""
        return Whereabouts(self._registration().pubkey, self._resolver.endpoints())

    def connected(self, endpoint: str) -> None:
        """See Finder."""
        self._resolver.connected(endpoint)

    def failed(self) -> None:
        """See Finder."""
        self._resolver.report_failure()

    def _registration(self) -> Registration:
        lease = self._resolver.state.lease
        assert lease is not None  # noqa: S101 - it was found
        return lease.registration

    def _note(self, error: DiscoveryError) -> None:
        """Go on hoping, or give up.

        Raises:
            GivenUpError: waiting does not help.
        """
        before, self._error = self._error, error
        if not is_hopeful(error):
            raise given_up(error) from error
        if before is None or before.message != error.message:
            self._report.warn("waiting", f"{error.message}; waiting", reason=error.reason)

    def _tell_if_old(self) -> None:
        state = self._resolver.state
        if state.phase is not ResolverPhase.CURRENT:
            why = state.error.message if state.error else "discovery has forgotten it"
            self._report.warn("stale", f"using what was last known: {why}")


@asynccontextmanager
async def noticing_changes(resolver: ColonyResolver) -> AsyncIterator[asyncio.Event]:
    """Provide an event that is set whenever something is new about the colony."""
    news = asyncio.Event()

    async def notice() -> None:
        async for _ in resolver.states():
            news.set()

    task = asyncio.create_task(notice())
    try:
        yield news
    finally:
        task.cancel()
        await asyncio.wait([task])
