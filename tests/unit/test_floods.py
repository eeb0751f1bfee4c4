from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, ResponseReceived
from h2.exceptions import FrameTooLargeError
from h2.settings import SettingCodes, Settings
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from discovery.transport.floods import (
    PIECE,
    FloodError,
    FloodGuard,
    bound_closed_streams,
    bound_header_table,
)
from tests.support import ManualClock, examples

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
READ = 256 * 1024
"""What asyncio reads at once."""
WIDE = 2**30
"""Windows wide enough that none of this has to do with flow control."""
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/coral.discovery.v1.DiscoveryService/Health"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
]


class Server:
    """A server's side of HTTP/2 behind the guard, and what reached it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.answered: set[int] = set()
        self.guard = FloodGuard(self.clock, self.answered.__contains__)
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="ascii"))
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(WIDE)
        self.sent = 0
        self.events = 0
        self._encoder = Encoder()
        self.receive(PREFACE, SettingsFrame(0), WindowUpdateFrame(0, window_increment=WIDE))

    def receive(self, *frames: Frame | bytes) -> None:
        """Take in frames, all in one read."""
        data = b"".join(
            frame if isinstance(frame, bytes) else frame.serialize() for frame in frames
        )
        for piece in self.guard.pieces(data, self.sent):
            for event in self.h2.receive_data(piece):
                self.events += 1
                self.guard.saw(event)
        self.h2.data_to_send()

    def receive_all(self, reads: Iterable[Sequence[Frame | bytes]]) -> None:
        for frames in reads:
            self.receive(*frames)

    def request(self, stream: int, *flags: str) -> HeadersFrame:
        return HeadersFrame(
            stream, self._encoder.encode(HEADERS), flags=flags or ("END_HEADERS", "END_STREAM")
        )

    def answer(self, stream: int, size: int = 64, *, end: bool = True) -> None:
        self.h2.send_headers(stream, [(":status", "200")])
        self.h2.send_data(stream, bytes(size), end_stream=end)
        self.h2.data_to_send()
        self.sent += size
        self.answered.add(stream)

    def over_after(self, *frames: Frame | bytes, most: int) -> int:
        """Return how many times `frames` may be sent at once before the connection is over."""
        for count in range(most):
            try:
                self.receive(*frames)
            except FloodError:
                return count
        raise AssertionError(f"not over after {most} times")


def streams(count: int, start: int = 1) -> Iterator[int]:
    return iter(range(start, start + 2 * count, 2))


PING = PingFrame(0, b"12345678")
UPDATE = WindowUpdateFrame(0, window_increment=1)
EXTENSION = b"\0\0\0\xbb\0\0\0\0\0"
ALTSVC = b"\0\0\2\x0a\0\0\0\0\0\0\0"

# -- Floods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(PING, id="PING"),
        pytest.param(PingFrame(0, b"12345678", flags=("ACK",)), id="PING answers"),
        pytest.param(SettingsFrame(0), id="SETTINGS"),
        pytest.param(SettingsFrame(0, flags=("ACK",)), id="SETTINGS answers"),
        pytest.param(PriorityFrame(1, depends_on=0), id="PRIORITY"),
        pytest.param(UPDATE, id="WINDOW_UPDATE"),
        pytest.param(WindowUpdateFrame(1, window_increment=1), id="WINDOW_UPDATE of a stream"),
        pytest.param(DataFrame(1, b""), id="empty DATA"),
        pytest.param(DataFrame(1, b"x"), id="tiny DATA"),
        pytest.param(EXTENSION, id="unknown frames"),
        pytest.param(ALTSVC, id="ALTSVC"),
    ],
)
def test_frames_that_ask_for_nothing_are_bounded(frame: Frame | bytes) -> None:
    server = Server()
    server.receive(server.request(1, "END_HEADERS"))
    assert 900 <= server.over_after(frame, most=1100) <= 1000


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(DataFrame(1, b""), id="DATA"),
        pytest.param(RstStreamFrame(1), id="RST_STREAM"),
        pytest.param(WindowUpdateFrame(1, window_increment=1), id="WINDOW_UPDATE"),
    ],
)
def test_frames_for_a_stream_that_is_over_are_bounded_though_they_have_no_event(
    frame: Frame,
) -> None:
    server = Server()
    server.receive(server.request(1, "END_HEADERS"), RstStreamFrame(1), server.request(3))
    events = server.events
    assert server.over_after(frame, most=1100) <= 1000
    assert server.events == events


def test_headers_for_a_stream_that_is_over_earn_nothing() -> None:
    server = Server()
    server.receive(server.request(1, "END_HEADERS"), RstStreamFrame(1), server.request(3))
    assert server.over_after(server.request(1), most=1100) <= 1000


def test_requests_that_h2_is_not_fed_earn_frames_once() -> None:
    server = Server()
    server.over_after(PING, most=1100)
    server.guard.passed(10, 19)
    assert server.over_after(PING, most=200) == 10 * 9 - 1  # less that which was one too many
    assert server.over_after(PING, most=200) == 0


def test_requests_that_h2_is_not_fed_earn_resets_once() -> None:
    server = Server()
    numbers = streams(1000)

    def over_after() -> int:
        for count, stream in enumerate(numbers):
            try:
                server.receive(server.request(stream), RstStreamFrame(stream))
            except FloodError:
                return count
        raise AssertionError("it never ends")

    assert over_after() > 200
    server.guard.passed(20, 0)
    assert over_after() == 2 * 10 - 1  # each pair earns half of what it spends; one was too many
    assert over_after() == 0


def test_rapid_reset_is_bounded() -> None:
    server = Server()
    with pytest.raises(FloodError, match="streams reset"):
        server.receive_all((server.request(i), RstStreamFrame(i)) for i in streams(500))
    assert server.h2.highest_inbound_stream_id < 2 * 420


def test_making_the_server_reset_streams_is_bounded() -> None:
    server = Server()
    with pytest.raises(FloodError, match="streams reset"):
        server.receive_all((server.request(i), DataFrame(i, b"")) for i in streams(500))
    assert server.h2.highest_inbound_stream_id < 2 * 420


def test_a_flood_in_one_read_is_stopped_before_most_of_it_is_looked_at() -> None:
    server = Server()
    flood = b"".join(
        server.request(stream).serialize() + RstStreamFrame(stream).serialize()
        for stream in streams(9000)
    )
    assert len(flood) > 200_000
    with pytest.raises(FloodError):
        server.receive(flood[:READ])
    assert server.events < 3 * 420 + PIECE / 20


def test_a_flood_of_cheap_frames_in_one_read_hardly_reaches_h2() -> None:
    server = Server()
    with pytest.raises(FloodError):
        server.receive(SettingsFrame(0).serialize() * (READ // 9))
    assert server.events <= 1001


def test_headers_that_never_end_are_bounded_before_they_fill_memory() -> None:
    server = Server()
    server.receive(HeadersFrame(1, bytes(16_000)))
    more = ContinuationFrame(1, bytes(16_000))
    server.receive(more, more, more)
    with pytest.raises(FloodError, match="headers of more than 65536 bytes"):
        server.receive(more)


def test_empty_continuations_are_bounded_over_all_requests() -> None:
    server = Server()

    def chopped(stream: int) -> Sequence[Frame]:
        whole = server.request(stream).data
        return [
            HeadersFrame(stream, b"", flags=("END_STREAM",)),
            *(ContinuationFrame(stream, b"") for _ in range(60)),
            ContinuationFrame(stream, whole, flags=("END_HEADERS",)),
        ]

    with pytest.raises(FloodError, match="frames that ask for nothing"):
        server.receive_all(map(chopped, streams(100)))
    assert server.h2.highest_inbound_stream_id < 2 * 30


def test_the_client_is_told_to_calm_down() -> None:
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    server = Server()
    with pytest.raises(FloodError) as caught:
        server.receive(PING.serialize() * 2000)
    server.h2.close_connection(caught.value.error_code)
    terminated = client.receive_data(SettingsFrame(0).serialize() + server.h2.data_to_send())[-1]
    assert isinstance(terminated, ConnectionTerminated)
    assert terminated.error_code == ErrorCodes.ENHANCE_YOUR_CALM


# -- Honest clients, as fast as they can: the clock stands still ----------------------------------


def unary(server: Server, stream: int, *after: Frame | bytes) -> None:
    body = DataFrame(stream, b"\0\0\0\0\x0a0123456789", flags=("END_STREAM",))
    server.receive(server.request(stream, "END_HEADERS"), body)
    server.answer(stream)
    server.receive(*after)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param([], id="nghttp2"),
        pytest.param([PING, UPDATE, WindowUpdateFrame(1, window_increment=1)], id="grpc-go"),
        pytest.param([PING, UPDATE, SettingsFrame(0), PriorityFrame(1, depends_on=0)], id="chatty"),
    ],
)
def test_a_client_that_asks_may_do_so_at_any_speed(after: Sequence[Frame]) -> None:
    server = Server()
    for stream in streams(700):
        unary(server, stream, *after)


def test_a_client_that_measures_the_network_by_each_answer_of_a_watch_is_honest() -> None:
    server = Server()
    server.receive(server.request(1, "END_HEADERS"))
    for _ in range(1_500):
        server.sent += 64
        server.receive(PING, UPDATE)


def test_a_client_may_reset_each_stream_that_was_answered_after_its_end() -> None:
    server = Server()
    for stream in streams(700):
        unary(server, stream, RstStreamFrame(stream))


def test_a_client_may_end_each_watch_after_its_first_answer() -> None:
    server = Server()
    for stream in streams(700):
        server.receive(server.request(stream))
        server.answer(stream, end=False)
        server.receive(RstStreamFrame(stream))


def test_a_client_may_cancel_every_second_call() -> None:
    server = Server()
    for stream in streams(700):
        unary(server, 2 * stream - 1)
        server.receive(server.request(2 * stream + 1), RstStreamFrame(2 * stream + 1))


def test_a_client_may_give_up_all_that_it_has_open_and_do_so_again_later() -> None:
    server = Server()
    for start in range(1, 6_000, 200):
        server.receive(*map(server.request, streams(100, start)))
        server.receive(*map(RstStreamFrame, streams(100, start)))
        server.clock.advance(0.25)


def test_an_idle_client_may_keep_its_connection_alive() -> None:
    server = Server()
    for _ in range(1_500):
        server.clock.advance(0.02)
        server.receive(PING)


def test_a_request_may_come_in_pieces_as_small_as_one_byte_of_tcp() -> None:
    server = Server()
    request = server.request(1, "END_HEADERS").serialize()
    body = DataFrame(1, bytes(16_000), flags=("END_STREAM",)).serialize()
    for index in range(len(request + body)):
        server.receive((request + body)[index : index + 1])
    server.answer(1)


def test_a_request_of_the_largest_size_is_no_flood() -> None:
    server = Server()
    for stream in streams(50):
        server.receive(server.request(stream, "END_HEADERS"))
        server.receive_all([DataFrame(stream, bytes(256))] for _ in range(255))
        server.receive(DataFrame(stream, b"", flags=("END_STREAM",)))
        server.answer(stream)


# -- The frames' heads, wherever they are cut -----------------------------------------------------

TRAFFIC: list[Frame] = [
    SettingsFrame(0),
    HeadersFrame(1, Encoder().encode(HEADERS), flags=("END_HEADERS",)),
    DataFrame(1, bytes(700)),
    PING,
    WindowUpdateFrame(1, window_increment=9),
    DataFrame(1, b"", flags=("END_STREAM",)),
    GoAwayFrame(0),
]


def in_pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    return [data[one:other] for one, other in pairwise(edges)]


@given(st.lists(st.integers(0, 10_000), max_size=20))
@examples(200)
def test_what_is_counted_does_not_depend_on_how_tcp_cuts_it(cuts: list[int]) -> None:
    data = PREFACE + b"".join(frame.serialize() for frame in TRAFFIC)
    guard = FloodGuard(ManualClock())
    whole = b"".join(b"".join(guard.pieces(cut, 0)) for cut in in_pieces(data, cuts))
    assert whole == data
    assert guard._frames.tokens == 1000 - 4
    assert not guard.unfinished


@given(st.lists(st.binary(max_size=PIECE * 3), max_size=5))
@examples(100)
def test_whatever_comes_it_is_passed_on_or_refused(chunks: list[bytes]) -> None:
    guard = FloodGuard(ManualClock())
    for chunk in chunks:
        try:
            passed = list(guard.pieces(chunk, 0))
        except (FloodError, FrameTooLargeError):
            break
        assert b"".join(passed) == chunk
        assert all(len(piece) <= PIECE for piece in passed)


def test_a_client_that_stops_in_the_middle_is_known() -> None:
    guard = FloodGuard(ManualClock())
    assert guard.unfinished, "not even the preface"
    headers = HeadersFrame(1, b"abc").serialize()
    rest = ContinuationFrame(1, b"", flags=("END_HEADERS",)).serialize()
    for data, unfinished in (
        (PREFACE[:10], True),
        (PREFACE[10:], False),
        (headers[:5], True),
        (headers[5:-1], True),
        (headers[-1:], True),
        (rest, False),
    ):
        list(guard.pieces(data, 0))
        assert guard.unfinished == unfinished


# -- What h2 keeps --------------------------------------------------------------------------------


def test_a_long_lived_connection_does_not_remember_all_of_its_streams() -> None:
    server = Server()
    bound_closed_streams(server.h2)
    for stream in streams(1000):
        unary(server, stream)
    assert 200 <= len(server.h2._closed_streams) < 400


@pytest.mark.parametrize(
    "frame",
    [DataFrame(1, b"x"), RstStreamFrame(1), WindowUpdateFrame(1, window_increment=1)],
    ids=["DATA", "RST_STREAM", "WINDOW_UPDATE"],
)
def test_a_late_frame_for_a_stream_that_is_forgotten_is_no_harm(frame: Frame) -> None:
    server = Server()
    bound_closed_streams(server.h2)
    server.receive(server.request(1, "END_HEADERS"))
    server.answer(1)
    server.h2.reset_stream(1)
    for stream in streams(450, start=3):
        unary(server, stream)
    assert 1 not in server.h2._closed_streams
    server.receive(frame)
    unary(server, 1001)


def answer_with_errors(server: Server, count: int) -> bytes:
    sent = b""
    for stream in streams(count):
        server.receive(server.request(stream))
        server.h2.send_headers(stream, [(":status", "200"), ("grpc-message", f"no {stream:0>99}")])
        server.h2.end_stream(stream)
        sent += server.h2.data_to_send()
    return sent


def test_a_client_cannot_make_the_table_of_response_headers_grow() -> None:
    server = Server()
    for size in (2**31 - 1, 2**32 - 1):
        server.receive(SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: size}))
        bound_header_table(server.h2)
        bound_header_table(server.h2)
    answer_with_errors(server, 300)
    assert len(server.h2.encoder.header_table.dynamic_entries) < 4096 / 32


@pytest.mark.parametrize("size", [0, 100, 4096, 2**31 - 1])
def test_a_client_reads_the_headers_whatever_table_it_allowed(size: int) -> None:
    client = H2Connection(H2Configuration(client_side=True))
    client.local_settings = Settings(initial_values={SettingCodes.HEADER_TABLE_SIZE: size})
    client.decoder.max_allowed_table_size = size
    client.initiate_connection()
    server = Server()
    server.receive(SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: size}))
    bound_header_table(server.h2)
    for stream in streams(5):
        client.send_headers(stream, HEADERS, end_stream=True)
    events = client.receive_data(SettingsFrame(0).serialize() + answer_with_errors(server, 5))
    messages = [
        dict(event.headers)[b"grpc-message"]
        for event in events
        if isinstance(event, ResponseReceived)
    ]
    assert messages == [b"no %099d" % stream for stream in streams(5)]
