from __future__ import annotations

from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, RemoteSettingsChanged, StreamEnded
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hpack import Decoder

from discovery.transport import framing
from discovery.transport.grpc_unary import is_grpc_request, put_answer

START = [(":status", "200"), ("content-type", "application/grpc+proto")]
END = [("grpc-status", "0")]
CALL = {
    ":method": "POST",
    "content-type": "application/grpc",
    "te": "trailers",
}


class Pair:
    """A client and a server of h2 with one open request between them."""

    def __init__(self, settings: dict[int, int] | None = None) -> None:
        self.client = H2Connection(H2Configuration(header_encoding="ascii"))
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding="ascii"))
        self.client.initiate_connection()
        self.server.initiate_connection()
        if settings:
            self.client.update_settings(settings)
        self.ask(1)

    def ask(self, number: int) -> None:
        request = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
        self.client.send_headers(number, request, end_stream=True)
        self.server.receive_data(self.client.data_to_send())

    def heard(self) -> list[Event]:
        return self.client.receive_data(self.server.data_to_send())


def stepwise(server: H2Connection, number: int, data: bytes) -> None:
    server.send_headers(number, START)
    server.send_data(number, data)
    server.send_headers(number, END, end_stream=True)


def meaning(events: list[Event]) -> list[str]:
    return [repr(event) for event in events if not isinstance(event, RemoteSettingsChanged)]


@pytest.mark.parametrize("size", [0, 1, 5, 300, 16_379])
def test_a_whole_answer_means_what_one_in_steps_does(size: int) -> None:
    whole, steps = Pair(), Pair()
    message = bytes(size)

    assert put_answer(whole.server, 1, message)
    stepwise(steps.server, 1, b"\0" + size.to_bytes(4, "big") + message)

    assert meaning(whole.heard()) == meaning(steps.heard())
    assert whole.server.outbound_flow_control_window == steps.server.outbound_flow_control_window
    assert whole.server.open_inbound_streams == steps.server.open_inbound_streams == 0
    assert whole.server.streams == steps.server.streams == {}


def test_answers_of_both_kinds_share_one_connection() -> None:
    pair = Pair()

    for number in range(1, 12, 2):
        if number > 1:
            pair.ask(number)
        if number % 4 == 1:
            assert put_answer(pair.server, number, b"data")
        else:
            stepwise(pair.server, number, b"data")
        assert isinstance(pair.heard()[-1], StreamEnded)


@pytest.mark.parametrize("block", ["START_BLOCK", "END_BLOCK"])
def test_a_constant_block_says_the_same_and_leaves_the_table_alone(block: str) -> None:
    decoder = Decoder()

    headers: list[Any] = list(decoder.decode(getattr(framing, block)))

    assert headers == (START if block == "START_BLOCK" else END)
    assert not decoder.header_table.dynamic_entries


def test_an_answer_beyond_the_window_is_not_put() -> None:
    pair = Pair({SettingCodes.INITIAL_WINDOW_SIZE: 10})

    assert not put_answer(pair.server, 1, bytes(6))
    assert put_answer(pair.server, 1, bytes(5))


def test_an_answer_beyond_a_frame_is_not_put() -> None:
    pair = Pair({SettingCodes.INITIAL_WINDOW_SIZE: 100_000})

    assert not put_answer(pair.server, 1, bytes(16_380))


def test_a_change_of_the_header_table_is_told_by_h2() -> None:
    pair = Pair({SettingCodes.HEADER_TABLE_SIZE: 100})

    assert not put_answer(pair.server, 1, b"data")
    stepwise(pair.server, 1, b"data")
    assert isinstance(pair.heard()[-1], StreamEnded)

    pair.ask(3)
    assert put_answer(pair.server, 3, b"data")


def test_a_stream_is_answered_once() -> None:
    pair = Pair()
    stepwise(pair.server, 1, b"data")

    with pytest.raises(ProtocolError):
        put_answer(pair.server, 1, b"data")


def test_nothing_is_put_on_a_connection_that_is_over() -> None:
    pair = Pair()
    pair.server.close_connection()

    with pytest.raises(ProtocolError):
        put_answer(pair.server, 1, b"data")


def test_grpc_is_asked_for_by_method_type_and_trailers() -> None:
    assert is_grpc_request(CALL)
    assert is_grpc_request({**CALL, "content-type": "application/grpc+proto"})


@pytest.mark.parametrize(
    "change",
    [
        {":method": "GET"},
        {"te": "gzip"},
        {"te": ""},
        {"content-type": "application/grpc+json"},
        {"content-type": "application/grpc;charset=utf-8"},
        {"content-type": ""},
    ],
)
def test_what_only_resembles_grpc_is_left_to_grpclib(change: dict[str, str]) -> None:
    assert not is_grpc_request({**CALL, **change})
