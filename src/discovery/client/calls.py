"""Making calls: to which server, how often, and within which time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, cast

from discovery._gen.coral.discovery.v1 import DiscoveryServiceStub
from discovery.client.targets import ELSEWHERE, Target, was_cut_off
from discovery.errors import DiscoveryError, UnreachableError

R = TypeVar("R")

Unary = Callable[[DiscoveryServiceStub], Awaitable[R]]
Watch = Callable[[DiscoveryServiceStub], Any]

# However many servers are left to ask, the one that is asked now has this many seconds at least.
_SHORTEST_TRY = 0.001


class Calls:
    """Calls to the first of several servers that can answer, within `timeout` seconds, however many that takes."""

    def __init__(self, targets: Sequence[Target], timeout: float) -> None:
        self._targets = targets
        self._timeout = timeout
        self._closed = False

    def close(self) -> None:
        """Close the connections; calls in flight fail, and later ones too. Idempotent."""
        self._closed = True
        self.reconnect()

    def reconnect(self) -> None:
        """Drop the connections, so that each call connects anew."""
        for target in self._targets:
            target.close()

    async def unary(self, call: Unary[R]) -> R:
        """Make a call to the first server that can answer it; each has its share of the time that is left.

        Raises:
            DiscoveryError: what a server has answered, or why the last one has not.
        """
        deadline = time.monotonic() + self._timeout
        targets = self._in_order()
        for place, target in enumerate(targets):
            share = (deadline - time.monotonic()) / (len(targets) - place)
            try:
                return await self._try(target, call, max(share, _SHORTEST_TRY))
            except DiscoveryError as error:
                if target is targets[-1] or error.code not in ELSEWHERE:
                    raise
        raise AssertionError("there is always a last target")

    async def watch(self, call: Watch) -> AsyncGenerator[Any]:
        """Yield what a call to the first server yields, until it fails; it has no timeout.

        Raises:
            DiscoveryError: why it ended.
        """
        self._require_open()
        target = self._in_order()[0]
        try:
            with target.calling():
                async with aclosing(cast("AsyncGenerator[Any]", call(target.stub()))) as replies:
                    async for reply in replies:
                        yield reply
                raise UnreachableError(f"{target.endpoint} ended the watch without a word")
        finally:
            self._close_if_over(target)

    async def _try(self, target: Target, call: Unary[R], share: float) -> R:
        """Make a call to one server, and once more if the connection was lost under it: every call may be repeated."""
        started = time.monotonic()
        try:
            return await self._once(target, call, share)
        except UnreachableError as error:
            left = share - (time.monotonic() - started)
            if self._closed or left <= 0 or not was_cut_off(error):
                raise
        await asyncio.sleep(0)  # for the channel to notice
        return await self._once(target, call, left)

    async def _once(self, target: Target, call: Unary[R], share: float) -> R:
        self._require_open()
        try:
            with target.calling(share):
                return await call(target.stub(share))
        finally:
            self._close_if_over(target)

    def _in_order(self) -> list[Target]:
        now = time.monotonic()
        return sorted(self._targets, key=lambda target: target.failed_lately(now))

    def _close_if_over(self, target: Target) -> None:
        """Close a connection that grpclib has made after `close`, for a call that had begun before."""
        if self._closed:
            target.close()

    def _require_open(self) -> None:
        if self._closed:
            named = ", ".join(target.endpoint for target in self._targets)
            raise UnreachableError(f"the client of {named} is closed")
