"""The gate: who is let in, who is waited for, who is interrupted, and that nobody is forgotten inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from discovery.errors import DrainingError
from discovery.transport.drain import RETRY_AFTER, DrainGate

FOREVER = 3600.0


def _nobody_is_inside(gate: DrainGate) -> bool:
    return not gate.inside


class Inside:
    """A call in the gate, which stays until it is told to leave."""

    def __init__(self, gate: DrainGate) -> None:
        self._gate = gate
        self._leave = asyncio.Event()
        self.cancelling_afterwards = -1
        self.task = asyncio.create_task(self._stay())

    async def _stay(self) -> str:
        try:
            with self._gate.admit():
                await self._leave.wait()
        finally:
            self.cancelling_afterwards = self.task.cancelling()
        return "answered"

    def leave(self) -> None:
        self._leave.set()

    async def told(self) -> DrainingError:
        """Return the error that the call ends with."""
        with pytest.raises(DrainingError) as error:
            await self.task
        return error.value


async def _enter(gate: DrainGate, count: int = 1) -> list[Inside]:
    calls = [Inside(gate) for _ in range(count)]
    await asyncio.sleep(0)
    assert len(gate.inside) == count
    return calls


async def test_an_open_gate_lets_calls_in_and_out() -> None:
    gate = DrainGate()
    calls = await _enter(gate, 3)
    for call in calls:
        call.leave()

    assert await asyncio.gather(*(call.task for call in calls)) == ["answered"] * 3
    assert _nobody_is_inside(gate)


async def test_a_draining_gate_refuses_calls_and_says_when_to_try_again() -> None:
    gate = DrainGate()
    assert await gate.drain(FOREVER)

    with pytest.raises(DrainingError) as refusal, gate.admit():
        pytest.fail("it was let in")

    assert refusal.value.retry_after == RETRY_AFTER
    assert _nobody_is_inside(gate)


@pytest.mark.parametrize("grace", [0, FOREVER])
async def test_draining_an_empty_gate_is_done_at_once(grace: float) -> None:
    assert await DrainGate().drain(grace) is True


async def test_draining_waits_for_those_inside_and_refuses_others() -> None:
    gate = DrainGate()
    first, second = await _enter(gate, 2)
    draining = asyncio.create_task(gate.drain(FOREVER))
    await asyncio.sleep(0)

    with pytest.raises(DrainingError), gate.admit():
        pytest.fail("it was let in")
    first.leave()
    assert await first.task == "answered"
    assert not draining.done()
    second.leave()

    assert await draining is True
    assert await second.task == "answered"


async def test_those_who_stay_too_long_are_interrupted_and_told() -> None:
    gate = DrainGate()
    calls = await _enter(gate, 3)

    assert await gate.drain(0) is False

    for call in calls:
        assert (await call.told()).retry_after == RETRY_AFTER
    assert _nobody_is_inside(gate)


async def test_an_expulsion_ends_the_grace() -> None:
    gate = DrainGate()
    [call] = await _enter(gate)
    draining = asyncio.create_task(gate.drain(FOREVER))
    await asyncio.sleep(0)
    gate.expel()

    assert await draining is True
    await call.told()


async def test_an_expulsion_closes_the_gate() -> None:
    gate = DrainGate()
    gate.expel()

    with pytest.raises(DrainingError), gate.admit():
        pytest.fail("it was let in")


async def test_an_interrupted_call_may_still_send_its_status() -> None:
    gate = DrainGate()
    sent = []

    async def call() -> None:
        try:
            with gate.admit():
                await asyncio.Event().wait()
        except DrainingError as error:
            async with asyncio.timeout(FOREVER):
                await asyncio.sleep(0)
            sent.append(error)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    await gate.drain(0)
    await task

    assert len(sent) == 1


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_however_often_a_call_is_expelled_it_is_not_left_cancelled(times: int) -> None:
    gate = DrainGate()
    [call] = await _enter(gate)
    for _ in range(times):
        gate.expel()

    await call.told()

    assert call.cancelling_afterwards == 0


async def test_a_call_that_answers_although_it_was_expelled_is_not_left_cancelled() -> None:
    gate = DrainGate()

    async def stubborn() -> int:
        task = asyncio.current_task()
        assert task is not None
        with gate.admit():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
        return task.cancelling()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    gate.expel()

    assert await task == 0
    assert _nobody_is_inside(gate)


@pytest.mark.parametrize("draining", [False, True])
async def test_a_cancellation_that_is_not_the_gates_passes_through(draining: bool) -> None:
    gate = DrainGate()
    [call] = await _enter(gate)
    if draining:
        gate.close()
    call.task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert _nobody_is_inside(gate)


@pytest.mark.parametrize("expelled_first", [False, True])
async def test_a_client_that_cancels_as_it_is_expelled_has_cancelled(expelled_first: bool) -> None:
    gate = DrainGate()
    [call] = await _enter(gate)
    if expelled_first:
        gate.expel()
        call.task.cancel()
    else:
        call.task.cancel()
        gate.expel()

    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert _nobody_is_inside(gate)


async def test_an_error_inside_passes_through() -> None:
    gate = DrainGate()

    with pytest.raises(KeyError), gate.admit():
        raise KeyError

    assert _nobody_is_inside(gate)


async def test_draining_twice_is_draining_once() -> None:
    gate = DrainGate()
    [call] = await _enter(gate)
    both = asyncio.gather(gate.drain(FOREVER), gate.drain(FOREVER))
    await asyncio.sleep(0)
    call.leave()

    assert list(await both) == [True, True]
    assert await gate.drain(0) is True


async def test_the_shorter_of_two_graces_counts() -> None:
    gate = DrainGate()
    [call] = await _enter(gate)

    patient, hurried = await asyncio.gather(gate.drain(FOREVER), gate.drain(0))

    assert (patient, hurried) == (True, False)
    await call.told()


async def test_whoever_waits_for_the_drain_may_give_up() -> None:
    gate = DrainGate()
    [call] = await _enter(gate)
    draining = asyncio.create_task(gate.drain(FOREVER))
    await asyncio.sleep(0)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining

    call.leave()
    assert await call.task == "answered"


# A call has several awaits, and is cancelled or expelled at each of them in turn.

AWAITS = 4


def _cancel_this_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def _call_with_awaits(gate: DrainGate, at: int, act: Callable[[], object]) -> None:
    with gate.admit():
        for number in range(AWAITS):
            if number == at:
                act()
            await asyncio.sleep(0)


@pytest.mark.parametrize("at", range(AWAITS))
async def test_cancelled_at_any_await_a_call_leaves_the_gate(at: int) -> None:
    gate = DrainGate()
    task = asyncio.create_task(_call_with_awaits(gate, at, _cancel_this_task))

    with pytest.raises(asyncio.CancelledError):
        await task
    assert _nobody_is_inside(gate)


@pytest.mark.parametrize("at", range(AWAITS))
async def test_expelled_at_any_await_a_call_is_told_and_leaves_the_gate(at: int) -> None:
    gate = DrainGate()
    task = asyncio.create_task(_call_with_awaits(gate, at, gate.expel))

    with pytest.raises(DrainingError):
        await task
    assert _nobody_is_inside(gate)


# A stream is a generator: it is closed from outside, between two of its replies.


async def _replies(gate: DrainGate) -> AsyncGenerator[int]:
    with gate.admit():
        for number in range(AWAITS):
            yield number


async def test_a_stream_that_is_closed_leaves_the_gate() -> None:
    gate = DrainGate()
    stream = _replies(gate)
    assert await anext(stream) == 0
    assert not _nobody_is_inside(gate)

    await stream.aclose()

    assert _nobody_is_inside(gate)


async def test_a_stream_that_is_closed_because_it_was_expelled_is_told() -> None:
    gate = DrainGate()

    async def serve() -> None:
        stream = _replies(gate)
        try:
            await anext(stream)
            await asyncio.Event().wait()
        finally:
            await stream.aclose()

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    gate.expel()

    with pytest.raises(DrainingError):
        await task
    assert _nobody_is_inside(gate)
