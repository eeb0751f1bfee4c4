"""What carries a watch out, at each moment at which somebody may want something of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from discovery.transport.grpc_stream import StreamExchange, Vigil


class Exchange:
    """A call that does one thing at a time, and then waits until it is told to go on, or to end."""

    def __init__(self) -> None:
        self.replies: Any = None
        self.steps: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.ends = False
        self.over = 0

    async def carry_out(self, vigil: Vigil) -> None:
        self.replies = self.replies or SimpleNamespace(over=False)
        if vigil.cancelled:
            self.steps.append("told")
            self.replies.over = True
            raise asyncio.CancelledError
        self.steps.append("step")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.steps.append("interrupted")
            self.replies.over = True
            raise
        self.replies.over = self.ends

    def watched(self) -> Vigil:
        return Vigil(cast("StreamExchange", self), self._note_end)

    def _note_end(self) -> None:
        self.over += 1


@pytest.fixture
async def exchange() -> Exchange:
    return Exchange()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_call_that_ends_is_over_once(exchange: Exchange) -> None:
    exchange.ends = True
    vigil = exchange.watched()
    assert not vigil.done()
    await settle()
    assert vigil.done()

    vigil()
    vigil.cancel()
    await settle()

    assert (exchange.steps, exchange.over) == (["step"], 1)


async def test_a_call_that_waits_has_no_task(exchange: Exchange) -> None:
    before = asyncio.all_tasks()
    vigil = exchange.watched()
    await settle()

    assert asyncio.all_tasks() == before
    assert not vigil.done()

    vigil()
    await settle()
    assert exchange.steps == ["step", "step"]


async def test_who_is_called_while_it_acts_goes_on_afterwards(exchange: Exchange) -> None:
    exchange.go.clear()
    vigil = exchange.watched()
    await settle()
    vigil()
    vigil()
    assert exchange.steps == ["step"]
    exchange.go.set()
    await settle()
    assert exchange.steps == ["step", "step"]


async def test_a_call_that_is_cancelled_before_it_began_is_over(exchange: Exchange) -> None:
    vigil = exchange.watched()
    vigil.cancel()
    await settle()

    assert vigil.done()
    assert (exchange.steps, exchange.over) == ([], 1)


async def test_a_call_that_is_cancelled_while_it_acts_is_interrupted(exchange: Exchange) -> None:
    exchange.go.clear()
    vigil = exchange.watched()
    await settle()
    vigil.cancel()
    await settle()

    assert vigil.done()
    assert (exchange.steps, exchange.over) == (["step", "interrupted"], 1)


@pytest.mark.parametrize("rung", [False, True], ids=["while it waits", "as it is about to go on"])
async def test_a_call_that_is_cancelled_with_no_task_is_told_by_one(
    exchange: Exchange, *, rung: bool
) -> None:
    vigil = exchange.watched()
    await settle()
    if rung:
        vigil()  # there is a task, which has not begun
    vigil.cancel()
    await settle()

    assert vigil.done()
    assert (exchange.steps, exchange.over) == (["step", "told"], 1)


@pytest.mark.parametrize("turns", range(4))
async def test_a_call_that_is_cancelled_at_any_turn_ends_once(
    exchange: Exchange, turns: int
) -> None:
    """One of them is between the end of its task and when that is noticed."""
    vigil = exchange.watched()
    for _ in range(turns):
        await asyncio.sleep(0)
    vigil.cancel()
    await settle()

    assert vigil.done()
    assert exchange.over == 1


async def test_cancellations_are_taken_back_one_by_one(exchange: Exchange) -> None:
    exchange.go.clear()
    vigil = exchange.watched()
    await settle()
    vigil.cancel()
    vigil.cancel()

    assert [vigil.uncancel(), vigil.cancelled] == [1, True]
    assert [vigil.uncancel(), vigil.cancelled] == [0, False]
    exchange.go.set()
    await settle()
