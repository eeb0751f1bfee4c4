"""What is small behaves as what is large: h2's own connection is the judge."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest
from grpclib.protocol import Connection, Stream
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from discovery.transport.frugal import Few, FrugalConnection, FrugalEvent, FrugalH2
from discovery.transport.http2 import GRPC_CONFIG

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "localhost"),
    ("x-name", "value"),
]
Step = Callable[[H2Connection, H2Connection], Any]


def ask(number: int) -> Step:
    return lambda client, _: client.send_headers(number, REQUEST, end_stream=True)


def answer(number: int) -> Step:
    headers = [(":status", "200"), ("x-answer", str(number))]
    return lambda _, server: server.send_headers(number, headers, end_stream=True)


def set_client(code: SettingCodes, value: int) -> Step:
    return lambda client, _: client.update_settings({code: value})


def set_server(code: SettingCodes, value: int) -> Step:
    return lambda _, server: server.update_settings({code: value})


def both(first: Step, second: Step) -> Step:
    return lambda client, server: (first(client, server), second(client, server))


STEPS: dict[str, list[Step]] = {
    "calls": [step for number in (1, 3, 5) for step in (ask(number), answer(number))],
    "settings of the client": [
        set_client(SettingCodes.INITIAL_WINDOW_SIZE, 10),
        ask(1),
        set_client(SettingCodes.INITIAL_WINDOW_SIZE, 70_000),
        set_client(SettingCodes.MAX_CONCURRENT_STREAMS, 7),
        set_client(SettingCodes.MAX_FRAME_SIZE, 20_000),
        lambda _, server: server.send_headers(1, [(":status", "200")]),
        lambda _, server: server.send_data(1, bytes(20_000), end_stream=True),
    ],
    "settings of the server": [
        set_server(SettingCodes.MAX_CONCURRENT_STREAMS, 3),
        set_server(SettingCodes.MAX_CONCURRENT_STREAMS, 2),
        set_server(SettingCodes.MAX_HEADER_LIST_SIZE, 9000),
        set_server(SettingCodes.INITIAL_WINDOW_SIZE, 90_000),
        ask(1),
    ],
    "both settings at once": [
        both(
            set_client(SettingCodes.ENABLE_PUSH, 0),
            set_server(SettingCodes.ENABLE_CONNECT_PROTOCOL, 1),
        ),
    ],
    "a small header table": [
        set_client(SettingCodes.HEADER_TABLE_SIZE, 64),
        ask(1),
        answer(1),
        ask(3),
        answer(3),
        set_client(SettingCodes.HEADER_TABLE_SIZE, 4096),
        ask(5),
        answer(5),
    ],
    "pings, resets and windows": [
        ask(1),
        lambda client, _: client.ping(b"12345678"),
        lambda client, _: client.increment_flow_control_window(1000),
        lambda client, _: client.increment_flow_control_window(1000, 1),
        lambda client, _: client.prioritize(1, weight=20),
        lambda client, _: client.reset_stream(1, ErrorCodes.CANCEL),
        lambda client, _: client.close_connection(),
    ],
}


def transcript(server: H2Connection, steps: list[Step]) -> list[Any]:
    """Return all that a server and its client say and hear in these steps."""
    client = H2Connection(H2Configuration(header_encoding="ascii"))
    client.initiate_connection()
    server.initiate_connection()
    said: list[Any] = []
    for step in (lambda _client, _server: None, *steps):
        step(client, server)
        for _ in range(3):
            to_server, to_client = client.data_to_send(), server.data_to_send()
            heard = [*server.receive_data(to_server), *client.receive_data(to_client)]
            said += [to_server, to_client, [repr(event) for event in heard]]
    sides = server.local_settings, server.remote_settings
    return [*said, *(sorted(dict(side).items()) for side in sides)]


@pytest.mark.parametrize("name", STEPS)
def test_a_frugal_connection_says_and_hears_what_h2s_does(name: str) -> None:
    config = H2Configuration(client_side=False, header_encoding="ascii")

    frugal = transcript(FrugalH2(config), STEPS[name])

    assert frugal == transcript(H2Connection(config), STEPS[name])
    assert len(frugal) > 10


def test_a_setting_that_cannot_be_is_refused() -> None:
    server = FrugalH2(H2Configuration(client_side=False))

    with pytest.raises(ProtocolError):
        server.update_settings({SettingCodes.MAX_FRAME_SIZE: 1})


def test_a_few_items_are_kept_in_order() -> None:
    few, many = Few((2, 3)), deque((2, 3))
    for items in (few, many):
        items.appendleft(1)
        items.append(4)
        assert (items.popleft(), items.pop(), items[0], len(items)) == (1, 4, 2, 2)
    assert list(few) == list(many)


async def test_an_event_wakes_everybody_who_did_not_give_up() -> None:
    event = FrugalEvent()
    waiting = [asyncio.create_task(event.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    event.set()

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [outcome is True for outcome in outcomes] == [True, False, True]
    event.clear()
    assert not event.is_set()


def stream_of_a_client() -> tuple[Connection, Stream]:
    transport = cast("asyncio.Transport", object())
    h2 = FrugalH2(H2Configuration(client_side=False))
    connection = FrugalConnection(h2, transport, config=GRPC_CONFIG)
    return connection, connection.create_stream(stream_id=1)


async def test_a_stream_has_what_is_waited_for_once_that_is_looked_at() -> None:
    connection, stream = stream_of_a_client()

    assert connection.write_ready.is_set()
    assert stream.window_updated is stream.window_updated
    assert not stream.window_updated.is_set()
    stream.buffer.add(b"request", 0)
    assert stream.buffer.unacked_size() == 0
    stream.trailers_received.set()  # a client that sends trailers
