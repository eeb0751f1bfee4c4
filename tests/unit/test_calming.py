from __future__ import annotations

import asyncio

import pytest

from discovery.transport.calm_flow import CalmFlow
from discovery.transport.calming import PAUSE, TURN, Turns, hush


class Pipe(asyncio.Transport):
    """A transport of which only the reading matters."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def is_reading(self) -> bool:
        return self.reads

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def at_once() -> float:
    return 0.0


def never() -> float:
    return 3600.0


async def a_moment() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_the_first_connection_of_an_address_waits_for_the_pause() -> None:
    assert Turns().take("203.0.113.5") == pytest.approx(PAUSE)


async def test_each_connection_more_of_an_address_waits_longer() -> None:
    turns = Turns()
    waits = [turns.take("203.0.113.5") for _ in range(3)]
    assert waits == pytest.approx([PAUSE, PAUSE + TURN, PAUSE + 2 * TURN], abs=TURN / 2)
    assert turns.take("203.0.113.6") == pytest.approx(PAUSE)


async def test_a_crowd_of_addresses_is_forgotten() -> None:
    turns = Turns()
    for number in range(10_001):
        turns.take(str(number))
    assert turns.take("0") == pytest.approx(PAUSE)


async def test_a_connection_that_is_not_heard_takes_no_second_turn() -> None:
    pipe, turns = Pipe(), iter([3600.0])
    for _ in range(2):
        hush(pipe, lambda: next(turns))
    assert not pipe.reads
    assert not list(turns)


async def test_a_connection_is_heard_again_when_it_is_its_turn() -> None:
    pipe = Pipe()
    hush(pipe, at_once)
    assert not pipe.reads
    await a_moment()
    assert pipe.reads


async def test_what_uvicorn_resumes_stays_silent_until_its_turn() -> None:
    pipe = Pipe()
    flow = CalmFlow(pipe)
    flow.pause_reading()
    flow.hush(never)
    flow.resume_reading()
    assert not pipe.reads


async def test_what_uvicorn_pauses_stays_so_after_the_turn() -> None:
    pipe = Pipe()
    flow = CalmFlow(pipe)
    flow.hush(at_once)
    flow.pause_reading()
    await a_moment()
    assert not pipe.reads
    flow.resume_reading()
    assert pipe.reads


async def test_uvicorn_has_its_way_with_who_is_heard() -> None:
    pipe = Pipe()
    flow = CalmFlow(pipe)
    flow.pause_reading()
    assert not pipe.reads
    flow.resume_reading()
    assert pipe.reads
