"""What becomes of calls while nobody can say how many there were."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from discovery.errors import StoreUnavailableError
from discovery.ratelimits.limiter import Limiter

PATIENCE = 0.25
"""How long a check may take, in seconds."""


class TolerantLimiter:
    """A Limiter that never keeps a call waiting for `shared`, and decides in its place when that cannot.

    `instead` decides then: a limiter of this process' own ("open": it sees no more calls than `shared` would, so it
    refuses no more, and a flood is still bounded), or nobody, and calls are refused ("closed").
    """

    def __init__(
        self, shared: Limiter, instead: Limiter | None, undecided: Callable[[], None]
    ) -> None:
        """`undecided` is called for each call that `shared` did not decide on."""
        self._shared = shared
        self._instead = instead
        self._undecided = undecided

    async def check(
        self,
        method: str,
        *,
        address: str | None = None,
        mesh_id: str | None = None,
        key: str | None = None,
    ) -> None:
        """See Limiter."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._shared.check(method, address=address, mesh_id=mesh_id, key=key)
        except (StoreUnavailableError, TimeoutError) as failure:
            self._undecided()
            if self._instead is None:
                raise StoreUnavailableError(
                    "rate limits cannot be checked now", retry_after=1.0
                ) from failure
            await self._instead.check(method, address=address, mesh_id=mesh_id, key=key)
