"""Whoever gives up, at whatever moment, leaves nothing behind and spoils nothing for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import hiredis
import pytest

from discovery.errors import StoreUnavailableError
from discovery.stores.redis import RedisStore
from discovery.stores.redis.link import Reply
from discovery.stores.redis.routes import Dialer, Fixed
from tests.redis.support import NOW

# More than a call and a connection take with the wires below.
STEPS = range(25)


class FakeWire:
    """A connection that takes its time: each method lets others run once, and each reply is what was asked."""

    def __init__(self, opened: set[FakeWire]) -> None:
        self._opened = opened
        self._unread: list[Any] = []

    async def connect(self) -> None:
        self._opened.add(self)
        await asyncio.sleep(0)

    async def disconnect(self, nowait: bool = False) -> None:
        self._opened.discard(self)
        await asyncio.sleep(0)

    async def can_read(self) -> bool:
        await asyncio.sleep(0)
        return bool(self._unread)

    async def send_packed_command(self, command: Iterable[bytes]) -> None:
        await asyncio.sleep(0)
        reader = hiredis.Reader()
        for part in command:
            reader.feed(part)
        self._unread += iter(reader.gets, False)

    async def read_response(self) -> Reply:
        await asyncio.sleep(0)
        name, *arguments = self._unread.pop(0)
        if name in {b"ROLE", b"XREVRANGE", b"XREAD"}:
            return [b"master"] if name == b"ROLE" else []
        return b"reply to " + (arguments or [name])[-1]


@pytest.fixture
def opened() -> set[FakeWire]:
    return set()


@pytest.fixture
def store(opened: set[FakeWire]) -> RedisStore:
    route = Fixed(Dialer(lambda _: FakeWire(opened), timeout=5))
    return RedisStore(route, "test", timeout=5)


async def _call(store: RedisStore, name: str) -> object:
    return await store._backend.servers[0].lane.call(b"ECHO", name.encode())


async def _steps(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("steps", STEPS)
async def test_a_caller_who_gives_up_spoils_nothing(
    store: RedisStore, opened: set[FakeWire], steps: int
) -> None:
    loser = asyncio.create_task(_call(store, "loser"))
    winner = asyncio.create_task(_call(store, "winner"))
    await _steps(steps)

    loser.cancel()

    assert await winner == b"reply to winner"
    assert await _call(store, "another") == b"reply to another"
    assert len(opened) == 1
    await store.close()
    assert not opened
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("steps", STEPS)
async def test_a_store_may_close_at_any_moment(
    store: RedisStore, opened: set[FakeWire], steps: int
) -> None:
    store.listen(lambda _: None)
    call = asyncio.create_task(_call(store, "call"))
    await _steps(steps)

    await store.close()

    assert not opened
    [answer] = await asyncio.gather(call, return_exceptions=True)
    assert answer == b"reply to call" or isinstance(answer, StoreUnavailableError)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("steps", STEPS)
async def test_a_connection_that_is_made_while_the_maker_is_stopped_is_closed(
    opened: set[FakeWire], steps: int
) -> None:
    dialer = Dialer(lambda _: FakeWire(opened), timeout=5)
    asking = asyncio.create_task(dialer.ask(("host", 1), b"PING"))
    await _steps(steps)

    asking.cancel()

    await asyncio.gather(asking, return_exceptions=True)
    assert not opened


async def test_what_nobody_waits_for_any_more_is_not_even_sent(store: RedisStore) -> None:
    calls = [asyncio.create_task(_call(store, str(number))) for number in range(10)]
    await _steps(1)
    for call in calls:
        call.cancel()
    await _steps(2)

    assert await _call(store, "next") == b"reply to next"
    lane = store._backend.servers[0].lane
    assert not lane._waiting
    assert not lane._awaited
    await store.close()


async def test_a_defect_reaches_its_callers_and_not_those_after_them(store: RedisStore) -> None:
    with pytest.raises(TypeError):
        await store._backend.servers[0].lane.call(b"ECHO", cast("Any", None))

    assert await _call(store, "next") == b"reply to next"
    await store.close()


async def test_a_reply_that_makes_no_sense_is_an_error_and_no_absence(store: RedisStore) -> None:
    with pytest.raises(StoreUnavailableError, match="not ours"):
        await store.lookup("mesh-1", now=NOW)
    await store.close()
