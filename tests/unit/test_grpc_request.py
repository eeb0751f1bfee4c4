from __future__ import annotations

import asyncio

import pytest

from discovery.transport.bounds import Bounds
from discovery.transport.grpc_request import MessageBuffer

MESSAGE = b"\0\0\0\0\3abc"


class Collected:
    """A MessageBuffer, and what it acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.buffer = MessageBuffer(self.acknowledged.append, Bounds(), None)


def test_a_request_that_came_whole_is_taken_at_once() -> None:
    whole = Collected()
    whole.buffer.add(MESSAGE, 10)
    assert whole.buffer.take() is None
    whole.buffer.eof()

    assert whole.buffer.unacked_size() == 10
    assert whole.buffer.take() == b"abc"
    assert whole.acknowledged == [10]
    assert whole.buffer.unacked_size() == 0


@pytest.mark.parametrize("data", [MESSAGE[:6], MESSAGE + b"d", b"\1" + MESSAGE[1:], b"\0\0"])
def test_what_is_no_whole_message_is_not_taken_but_read(data: bytes) -> None:
    odd = Collected()
    odd.buffer.add(data, len(data))
    odd.buffer.eof()

    assert odd.buffer.take() is None
    assert odd.acknowledged == []


async def test_a_request_in_pieces_is_read() -> None:
    pieces = Collected()
    pieces.buffer.add(MESSAGE[:2], 2)
    pieces.buffer.add(b"", 0)
    pieces.buffer.add(MESSAGE[2:], 6)
    pieces.buffer.eof()

    assert pieces.buffer.take() is None
    assert await pieces.buffer.read(5) == MESSAGE[:5]
    assert await pieces.buffer.read(3) == b"abc"
    assert await pieces.buffer.read(5) == b""
    assert pieces.acknowledged == [2, 6]


async def test_a_request_that_comes_while_it_is_read_is_read() -> None:
    late = Collected()
    reading = asyncio.create_task(late.buffer.read(8))
    await asyncio.sleep(0)
    late.buffer.add(MESSAGE[:2], 2)
    await asyncio.sleep(0)
    late.buffer.add(MESSAGE[2:], 6)

    assert await reading == MESSAGE
    before = late.buffer.ended
    late.buffer.eof()
    assert (before, late.buffer.ended) == (False, True)
    assert await late.buffer.read(5) == b""


async def test_a_request_that_ends_early_says_so() -> None:
    early = Collected()
    early.buffer.add(MESSAGE[:7], 7)
    early.buffer.eof()

    assert await early.buffer.read(5) == MESSAGE[:5]
    with pytest.raises(AssertionError):
        await early.buffer.read(3)
