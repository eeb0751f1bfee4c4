"""Concurrent calls share round trips: what is asked while an exchange is under way goes out together in the next one.

Callers never touch the connection, so that a caller who gives up, at whatever moment, leaves it as it is; and however
many there are, one connection serves them. All wait for the same time at most, so one timer does for all: that of who
has waited longest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from redis.exceptions import NoScriptError, RedisError

from discovery.errors import StoreUnavailableError
from discovery.stores.redis.failures import unavailable
from discovery.stores.redis.link import Command, Link, Reply

# Bounds how long the first caller of an exchange waits for the last one's reply.
_MOST_AT_ONCE = 256

_Call = tuple[Command, asyncio.Future[Reply]]


class Lane:
    """Calls to one server, carried out in the order in which they were made."""

    def __init__(self, link: Link, timeout: float) -> None:
        """Carry out calls by `link`, each within `timeout` seconds."""
        self._link = link
        self._timeout = timeout
        self._waiting: deque[_Call] = deque()
        self._awaited: deque[tuple[float, asyncio.Future[Reply]]] = deque()
        """The moment by which each has to be over, in the order of the calls."""
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def call(self, *command: bytes | int) -> Reply:
        """Return the server's reply.

        Who stops waiting does not take the call back: it may be carried out, or not.

        Raises:
            StoreUnavailableError: there is none in time, or it is an error.
            NoScriptError: the server does not know this script. Nothing was done.
        """
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((command, future))
        self._awaited.append((loop.time() + self._timeout, future))
        if self._timer is None:
            self._timer = loop.call_later(self._timeout, self._look, loop)
        self._wake.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    def doubt(self) -> None:
        """Connect anew before the next exchange: the server may have changed its role."""
        self._link.doubt()

    async def close(self) -> None:
        """Refuse what is under way, and disconnect. Idempotent."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
        if self._timer is not None:
            self._timer.cancel()
        for _, future in self._waiting:
            _refuse(future, StoreUnavailableError("the store is closed"))
        await self._link.close()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse the calls that have waited for too long."""
        now = loop.time()
        while self._awaited and self._awaited[0][0] <= now:
            future = self._awaited.popleft()[1]
            if not future.done():
                _refuse(future, unavailable(TimeoutError()))
        first = self._awaited[0][0] if self._awaited else None
        self._timer = None if first is None else loop.call_at(first, self._look, loop)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            if calls := self._take():
                await self._carry_out(calls)

    def _take(self) -> list[_Call]:
        """Take the next calls that somebody still waits for."""
        calls: list[_Call] = []
        while self._waiting and len(calls) < _MOST_AT_ONCE:
            call = self._waiting.popleft()
            if not call[1].done():
                calls.append(call)
        if not self._waiting:
            self._wake.clear()
        return calls

    async def _carry_out(self, calls: list[_Call]) -> None:
        try:
            replies = await self._link.exchange([command for command, _ in calls])
        except asyncio.CancelledError:
            self._waiting.extend(calls)
            raise
        except StoreUnavailableError as error:
            for _, future in calls:
                _refuse(future, unavailable(error.__cause__ or error))
        except Exception as defect:  # noqa: BLE001 - the callers raise it; without this they would wait for nothing
            for _, future in calls:
                _refuse(future, defect)
        else:
            for (_, future), reply in zip(calls, replies, strict=True):
                _answer(future, reply)
        while self._awaited and self._awaited[0][1].done():
            self._awaited.popleft()


def _answer(future: asyncio.Future[Reply], reply: Reply) -> None:
    if isinstance(reply, RedisError):
        _refuse(future, reply if isinstance(reply, NoScriptError) else unavailable(reply))
    elif not future.done():
        future.set_result(reply)


def _refuse(future: asyncio.Future[Reply], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # Seen, so that asyncio does not complain about a caller who gives up at this very moment.
        future.exception()
