"""Calls that are begun before there is a task for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import betterproto
import pytest
import structlog

from discovery._gen.coral.discovery import v1 as pb
from discovery.errors import Code, DrainingError, InternalError, NotRegisteredError
from discovery.transport.begun import Begun
from discovery.transport.drain import DrainGate
from discovery.transport.pipeline import Account, Call, Pipeline

PATH = "/coral.discovery.v1.DiscoveryService/LookupColony"
REPLY = pb.LookupColonyResponse(mesh_id="m")

Act = Callable[[], Awaitable[betterproto.Message]]


class Rig:
    """A pipeline with one method, that does what it is told."""

    def __init__(self) -> None:
        self.gate = DrainGate()
        self.accounts: list[Account] = []
        self.act: Act = reply
        self._pipeline = Pipeline(
            {PATH: self._handle},
            self.gate,
            structlog.get_logger(),
            witnesses=[self.accounts.append],
        )

    def begin(self) -> Begun:
        return self._pipeline.begin(Call(PATH, "grpc"), lambda: pb.LookupColonyRequest("m"))

    async def _handle(self, _message: betterproto.Message, _call: Call) -> betterproto.Message:
        return await self.act()

    @property
    def codes(self) -> list[Code]:
        return [account.code for account in self.accounts]


async def reply() -> betterproto.Message:
    return REPLY


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    assert await made.gate.drain(0)


async def test_a_call_that_never_waits_is_over_at_once(rig: Rig) -> None:
    begun = rig.begin()
    assert begun.reply is REPLY
    assert await begun.outcome() is REPLY
    assert rig.codes == [Code.OK]


@pytest.mark.parametrize("pauses", [1, 2, 5])
async def test_a_call_that_waits_goes_on_in_the_task_that_asks_for_its_outcome(
    rig: Rig, pauses: int
) -> None:
    async def act() -> betterproto.Message:
        for _ in range(pauses):
            await asyncio.sleep(0)
        async with asyncio.timeout(60):  # needs a task
            await asyncio.sleep(0)
        return REPLY

    rig.act = act
    begun = rig.begin()
    assert begun.reply is None
    assert rig.codes == []
    assert await begun.outcome() is REPLY
    assert rig.codes == [Code.OK]


async def test_what_a_call_waits_for_may_happen_before_anybody_asks(rig: Rig) -> None:
    future = asyncio.get_running_loop().create_future()
    rig.act = lambda: future
    begun = rig.begin()
    future.set_result(REPLY)
    await asyncio.sleep(0)
    assert await begun.outcome() is REPLY


async def test_an_error_is_its_outcome(rig: Rig) -> None:
    async def act() -> betterproto.Message:
        raise NotRegisteredError("m")

    rig.act = act
    begun = rig.begin()
    assert begun.reply is None
    assert rig.codes == [Code.NOT_FOUND]
    with pytest.raises(NotRegisteredError):
        await begun.outcome()


@pytest.mark.parametrize("late", [False, True])
async def test_a_defect_is_accounted_for_and_told_as_internal(rig: Rig, late: bool) -> None:
    async def act() -> betterproto.Message:
        if late:
            await asyncio.sleep(0)
        raise RuntimeError("boom")

    rig.act = act
    with pytest.raises(InternalError):
        await rig.begin().outcome()
    assert rig.codes == [Code.INTERNAL]


async def test_a_call_is_cancelled_with_its_task(rig: Rig) -> None:
    rig.act = asyncio.Event().wait  # type: ignore[assignment]
    task = asyncio.create_task(rig.begin().outcome())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.codes == [Code.CANCELLED]


async def test_a_call_that_outstays_the_grace_period_is_told(rig: Rig) -> None:
    rig.act = asyncio.Event().wait  # type: ignore[assignment]
    task = asyncio.create_task(rig.begin().outcome())
    await asyncio.sleep(0)
    assert not await rig.gate.drain(0)
    with pytest.raises(DrainingError):
        await task
    assert rig.codes == [Code.UNAVAILABLE]


async def test_a_call_that_nobody_waits_for_leaves(rig: Rig) -> None:
    rig.act = asyncio.Event().wait  # type: ignore[assignment]
    rig.begin().abandon()
    assert rig.codes == [Code.CANCELLED]


async def test_a_closed_gate_refuses_a_call(rig: Rig) -> None:
    rig.gate.close()
    with pytest.raises(DrainingError):
        await rig.begin().outcome()
    assert rig.codes == [Code.UNAVAILABLE]
