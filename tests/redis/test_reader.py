"""The reader of events, on answers that no server gives to order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest

from discovery.errors import StoreUnavailableError
from discovery.models import WatchEvent
from discovery.stores.redis.events import EVENTS_KEPT, EventReader
from discovery.stores.redis.link import Command, Link
from tests.redis.servers import eventually

STREAM = b"stream"


class FakeLink:
    """Gives the answers it was given, then none."""

    def __init__(self, *answers: object) -> None:
        self._answers = deque(answers)
        self.asked: list[Command] = []

    async def exchange(self, commands: list[Command]) -> list[object]:
        self.asked += commands
        if not self._answers:
            await asyncio.Event().wait()
        answer = self._answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return [answer]


class Heard:
    def __init__(self, fails: Callable[[], None] = lambda: None) -> None:
        self.said: list[WatchEvent | str] = []
        self._fails = fails

    def changed(self, event: WatchEvent) -> None:
        self._fails()
        self.said.append(event)

    def missed(self) -> None:
        self.said.append("missed")

    def lost(self) -> None:
        self.said.append("lost")


def entry(number: int) -> tuple[bytes, list[bytes]]:
    return b"%d-0" % number, [b"mesh", b"m", b"absent", b"%d" % number]


def event(number: int) -> WatchEvent:
    return WatchEvent("m", number, None)


async def said(link: FakeLink, heard: Heard) -> list[WatchEvent | str]:
    """Return what is reported of all the answers that the link has."""
    reader = EventReader(cast("Link", link), [STREAM], heard.changed, heard.missed, heard.lost)
    task = asyncio.create_task(reader.run())

    async def has_read_all() -> bool:
        await asyncio.sleep(0)
        return not link._answers

    await eventually(has_read_all)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return heard.said


async def test_it_starts_at_the_end_and_goes_on_from_what_it_read() -> None:
    link = FakeLink([entry(5)], [[STREAM, [entry(6), entry(7)]]], None, [[STREAM, [entry(8)]]])

    assert await said(link, Heard()) == ["missed", event(6), event(7), event(8)]
    assert [command[-1] for command in link.asked[1:]] == [b"5-0", b"7-0", b"7-0", b"8-0"]


async def test_as_many_as_are_kept_may_be_all_that_is_left_of_more() -> None:
    full = [entry(number) for number in range(1, EVENTS_KEPT + 1)]

    heard = await said(FakeLink([], [[STREAM, full]], [[STREAM, full[1:]]]), Heard())

    assert [word for word in heard if isinstance(word, str)] == ["missed", "missed"]
    assert len(heard) == 2 * EVENTS_KEPT + 1


async def test_after_a_failure_it_starts_at_the_end_again() -> None:
    failure = StoreUnavailableError("gone")
    link = FakeLink([], [[STREAM, [entry(1)]]], failure, [entry(9)], [[STREAM, [entry(10)]]])

    assert await said(link, Heard()) == ["missed", event(1), "lost", "missed", event(10)]


async def test_a_listener_that_fails_is_reported_and_does_not_make_it_deaf() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
    fails = iter([True])

    def fail_once() -> None:
        if next(fails, False):
            raise ZeroDivisionError

    link = FakeLink([], [[STREAM, [entry(1)]]], [entry(1)], [[STREAM, [entry(2)]]])

    assert await said(link, Heard(fail_once)) == ["missed", "missed", event(2)]
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


@pytest.mark.parametrize("failures", [1, 5])
async def test_it_asks_less_often_the_longer_it_fails(failures: int) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    link = FakeLink(*[StoreUnavailableError("gone")] * failures, [])

    await said(link, Heard())

    # At least half of 0.05, 0.1, 0.2 and so on up to 1 second.
    assert loop.time() - started >= sum(min(1.0, 0.05 * 2**n) for n in range(failures)) / 2
