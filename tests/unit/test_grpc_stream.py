from __future__ import annotations

import pytest
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from discovery.transport.grpc_stream import put_message
from tests.unit.test_grpc_unary import START, Pair, meaning


def stepwise(pair: Pair, number: int, data: bytes, *, first: bool) -> None:
    if first:
        pair.server.send_headers(number, START)
    pair.server.send_data(number, data)


@pytest.mark.parametrize("size", [0, 1, 300, 16_384])
def test_messages_mean_what_they_do_in_steps(size: int) -> None:
    put, steps = Pair(), Pair()

    for first in (True, False, False):
        assert put_message(put.server, 1, bytes(size), first=first)
        stepwise(steps, 1, bytes(size), first=first)

    assert meaning(put.heard()) == meaning(steps.heard())
    assert put.server.outbound_flow_control_window == steps.server.outbound_flow_control_window
    assert put.server.local_flow_control_window(1) == steps.server.local_flow_control_window(1)


def test_what_was_put_and_what_was_sent_in_steps_follow_each_other() -> None:
    mixed, steps = Pair(), Pair()

    assert put_message(mixed.server, 1, b"one", first=True)
    stepwise(mixed, 1, b"two", first=False)
    assert put_message(mixed.server, 1, b"three", first=False)
    mixed.server.send_headers(1, [("grpc-status", "0")], end_stream=True)
    for data in (b"one", b"two", b"three"):
        stepwise(steps, 1, data, first=data == b"one")
    steps.server.send_headers(1, [("grpc-status", "0")], end_stream=True)

    assert meaning(mixed.heard()) == meaning(steps.heard())


def test_nothing_is_put_beyond_the_window_of_the_stream() -> None:
    pair = Pair({SettingCodes.INITIAL_WINDOW_SIZE: 10})

    assert not put_message(pair.server, 1, bytes(11), first=True)
    assert put_message(pair.server, 1, bytes(6), first=True)
    assert not put_message(pair.server, 1, bytes(5), first=False)


def test_nothing_is_put_beyond_the_window_of_the_connection() -> None:
    pair = Pair({SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
    stepwise(pair, 1, bytes(16_384), first=True)
    for _ in range(3):
        stepwise(pair, 1, bytes(16_383), first=False)

    assert not put_message(pair.server, 1, bytes(100), first=False)
    assert put_message(pair.server, 1, bytes(2), first=False)


def test_a_change_of_the_header_table_is_told_by_h2() -> None:
    pair = Pair({SettingCodes.HEADER_TABLE_SIZE: 100})

    assert not put_message(pair.server, 1, b"data", first=True)
    pair.server.send_headers(1, START)
    assert put_message(pair.server, 1, b"data", first=False)
    pair.heard()


def test_nothing_is_put_on_a_stream_that_is_over() -> None:
    pair = Pair()
    pair.server.reset_stream(1)

    with pytest.raises(ProtocolError):
        put_message(pair.server, 1, b"data", first=True)
