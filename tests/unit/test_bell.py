from __future__ import annotations

import asyncio

import pytest

from discovery.bell import Bell


async def test_who_listens_is_woken_each_time() -> None:
    bell = Bell()

    for _ in range(2):
        heard = bell.heard()
        assert not heard.done()
        bell.ring()
        bell.ring()
        await heard


async def test_what_rang_before_is_not_heard() -> None:
    bell = Bell()
    bell.ring()

    assert not bell.heard().done()


async def test_a_listener_that_gave_up_does_not_mind() -> None:
    bell = Bell()
    heard = bell.heard()
    heard.cancel()

    bell.ring()

    with pytest.raises(asyncio.CancelledError):
        await heard


async def test_who_is_to_be_called_is_called_once() -> None:
    bell, calls = Bell(), list[str]()
    bell.call(lambda: calls.append("first"))
    bell.call(lambda: calls.append("second"))

    bell.ring()
    bell.ring()

    assert calls == ["second"]
