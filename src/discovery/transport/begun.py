"""A call that is carried out at once, before there is a task for it, as far as that goes without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import TYPE_CHECKING, Any

import betterproto

from discovery.errors import DiscoveryError
from discovery.transport.drain import Visit

if TYPE_CHECKING:
    from discovery.transport.pipeline import Call


class Begun:
    """A `call` that was begun. On the memory store it is over already, unless it has to be refused slowly.

    `reply` is its reply if it is over and went well, `error` why it was refused if it is over and did not; `outcome` is
    what becomes of one that is neither.
    """

    __slots__ = ("_visit", "_waits_for", "_work", "call", "error", "reply")

    def __init__(
        self, call: Call, work: Coroutine[Any, Any, betterproto.Message], visit: Visit
    ) -> None:
        self.call = call
        self._work = work
        self._visit = visit
        self.error: DiscoveryError | None = None
        self.reply: betterproto.Message | None = None
        try:
            self._waits_for = work.send(None)
        except StopIteration as end:
            self.reply = end.value
        except DiscoveryError as error:
            self.error = error.with_traceback(None)  # which would hold on to this object

    async def outcome(self) -> betterproto.Message:
        """Return the reply once it is there; call it once, from a task, which takes the call over.

        Raises:
            DiscoveryError: see Pipeline.unary.
        """
        if self.reply is not None:
            return self.reply
        if self.error is not None:
            raise self.error
        self._visit.task = asyncio.current_task()
        return await _go_on(self._work, self._waits_for)

    def abandon(self) -> None:
        """Give the call up, if it is not over: nobody waits for its outcome."""
        self._work.close()


class Later:
    """A `call` that is not begun before there is a task for it: one that has to wait for a time at most needs one."""

    __slots__ = ("_carry_out", "call")

    reply = error = None

    def __init__(
        self, call: Call, carry_out: Callable[[], Coroutine[Any, Any, betterproto.Message]]
    ) -> None:
        self.call = call
        self._carry_out = carry_out

    def outcome(self) -> Coroutine[Any, Any, betterproto.Message]:
        """Carry the call out: see Begun."""
        return self._carry_out()

    def abandon(self) -> None:
        """Give the call up, which has not begun."""


@coroutine
def _go_on(
    work: Coroutine[Any, Any, betterproto.Message], waits_for: object
) -> Generator[object, Any, betterproto.Message]:
    """Await a coroutine that has run already, up to where it waits for `waits_for`."""
    try:
        while True:
            try:
                sent = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is for the coroutine to say what comes of that
                waits_for = work.throw(error)
            else:
                waits_for = work.send(sent)
    except StopIteration as end:
        reply: betterproto.Message = end.value
        return reply
