"""A transport that sends once a turn: what it hands on, when, and in what order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest

from discovery.transport.gathering import GatheringTransport, Turn

Said = list[tuple[str, object]]


class Recorder(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self, said: Said, name: str = "") -> None:
        super().__init__({"peername": name})
        self._said, self._name = said, name
        self.closing = False

    def write(self, data: Any) -> None:
        self._said.append((f"{self._name}write", data))

    def close(self) -> None:
        self.closing = True
        self._said.append((f"{self._name}close", None))

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self._said.append((f"{self._name}abort", None))

    def write_eof(self) -> None:
        self._said.append((f"{self._name}eof", None))

    def get_write_buffer_size(self) -> int:
        return 7


async def a_turn() -> None:
    await asyncio.sleep(0)


async def test_what_is_written_in_one_turn_leaves_in_one_piece_after_it() -> None:
    said: Said = []
    transport = GatheringTransport(Recorder(said), Turn())
    transport.write(b"one ")
    transport.writelines([bytearray(b"two "), b"three"])
    assert not said
    assert transport.get_write_buffer_size() == len(b"one two three") + 7

    await a_turn()
    assert said == [("write", b"one two three")]
    assert transport.get_write_buffer_size() == 7

    await a_turn()
    transport.write(b"four")
    await a_turn()
    assert said == [("write", b"one two three"), ("write", b"four")]


async def test_what_was_written_may_be_changed_afterwards() -> None:
    said: Said = []
    transport = GatheringTransport(Recorder(said), Turn())
    data = bytearray(b"before")
    transport.write(data)
    data[:] = b"after!"
    await a_turn()
    assert said == [("write", b"before")]


async def test_connections_send_in_the_order_in_which_they_were_written_to() -> None:
    said: Said = []
    turn = Turn()
    one, two = (GatheringTransport(Recorder(said, name), turn) for name in "ab")
    two.write(b"1")
    one.write(b"2")
    two.write(b"3")
    await a_turn()
    assert said == [("bwrite", b"13"), ("awrite", b"2")]


async def test_many_connections_do_not_wait_for_each_other() -> None:
    said: Said = []
    turn = Turn()
    transports = [GatheringTransport(Recorder(said), turn) for _ in range(100)]
    for number, transport in enumerate(transports):
        transport.write(bytes([number]))
    sent_at_once = len(said)
    assert 0 < sent_at_once < 100

    await a_turn()
    assert [data for _, data in said] == [bytes([number]) for number in range(100)]


async def test_a_large_answer_is_not_kept() -> None:
    said: Said = []
    transport = GatheringTransport(Recorder(said), Turn())
    transport.write(b"small")
    transport.write(bytes(100_000))
    assert said == [("write", b"small" + bytes(100_000))]
    assert transport.get_write_buffer_size() == 7

    await a_turn()
    assert len(said) == 1


@pytest.mark.parametrize(
    "end, name",
    [
        (GatheringTransport.close, "close"),
        (GatheringTransport.abort, "abort"),
        (GatheringTransport.write_eof, "eof"),
    ],
)
async def test_an_end_comes_after_what_was_written(
    end: Callable[[GatheringTransport], None], name: str
) -> None:
    said: Said = []
    transport = GatheringTransport(Recorder(said), Turn())
    transport.write(b"last words")
    end(transport)
    assert said == [("write", b"last words"), (name, None)]

    await a_turn()
    assert len(said) == 2


async def test_a_connection_that_ends_meanwhile_is_sent_nothing_and_the_next_one_is() -> None:
    said: Said = []
    turn, gone = Turn(), Recorder(said, "gone: ")
    GatheringTransport(gone, turn).write(b"lost")
    GatheringTransport(Recorder(said, "next: "), turn).write(b"sent")
    gone.closing = True

    await a_turn()
    assert said == [("next: write", b"sent")]


async def test_the_rest_is_the_transports_own() -> None:
    near, far = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=near)
    reader, other = await asyncio.open_connection(sock=far)
    try:
        inner = cast("asyncio.Transport", writer.transport)
        transport = GatheringTransport(inner, Turn())
        assert transport.get_extra_info("socket") is inner.get_extra_info("socket")
        assert transport.get_extra_info("no such thing", 5) == 5
        assert transport.get_protocol() is inner.get_protocol()
        transport.set_protocol(protocol := asyncio.Protocol())
        assert inner.get_protocol() is protocol
        assert transport.can_write_eof()
        transport.set_write_buffer_limits(high=10, low=5)
        assert transport.get_write_buffer_limits() == (5, 10) == inner.get_write_buffer_limits()
        transport.pause_reading()
        assert not transport.is_reading()
        assert not inner.is_reading()
        transport.resume_reading()
        assert transport.is_reading()
        transport.write(b"whole\n")
        assert not transport.is_closing()
        transport.close()
        assert transport.is_closing()
        assert await reader.read() == b"whole\n"
    finally:
        writer.close()
        other.close()
