"""The short cut past h2 is held to h2: the same bytes to two connections, one with it and one without.

Both have a server behind them that is the same. What they answer must mean the same to their clients, their h2 must
know the same afterwards, and their pipelines must have seen the same calls.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import betterproto
import pytest
import structlog
from hpack import Decoder, Encoder
from hyperframe.frame import (
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
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery._gen.coral.discovery import v1 as pb
from discovery.clock import Instant
from discovery.errors import Code, NotRegisteredError
from discovery.transport.bounds import Bounds
from discovery.transport.connections import Connections
from discovery.transport.drain import DrainGate
from discovery.transport.grpc import GrpcServing
from discovery.transport.http2 import Http2Connection
from discovery.transport.pipeline import Account, Call, Pipeline
from discovery.transport.proxies import TrustedProxies
from discovery.transport.shortcut import ShortCut

SERVICE = "/coral.discovery.v1.DiscoveryService"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
BOUNDS = Bounds(streams=100, header_bytes=4096, request_bytes=2000, request_seconds=60)


SILENT = structlog.wrap_logger(
    None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
)


class StoppedClock:
    def now(self) -> Instant:
        return Instant(0, 0)


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("203.0.113.9", 1)})
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed or not data
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return not self.closed


@dataclass
class Side:
    """A connection, and what became of it."""

    fast: bool
    bounds: Bounds = BOUNDS
    at_once: bool = True
    pipe: Pipe = field(default_factory=Pipe)
    accounts: list[Account] = field(default_factory=list)
    begun: int = 0
    repeated: int = 0
    """How many were known by one comparison."""

    def __post_init__(self) -> None:
        handlers: Mapping[str, Any] = {
            f"{SERVICE}/LookupColony": self._look_up,
            f"{SERVICE}/Health": self._health,
        }
        pipeline = Pipeline(
            handlers,
            DrainGate(),
            SILENT,
            witnesses=[self.accounts.append],
        )
        begin = pipeline.begin

        def count(*arguments: Any) -> Any:
            self.begun += 1
            return begin(*arguments)

        pipeline.begin = count  # type: ignore[assignment]
        proxies = TrustedProxies()
        handler = GrpcServing(
            pipeline, _no_application, proxies, self.bounds, {}, at_once=self.at_once
        ).handler()
        self.connection = Http2Connection(
            handler, Connections(), self.bounds, StoppedClock(), handler if self.fast else None
        )
        self.connection.connection_made(self.pipe)
        self.pieces: list[bytes | None] = []
        """What h2 was fed, or was spared, piece by piece; None is where answers were sent."""
        self._taking = False
        if self.fast:
            self._note_pieces(self.connection)

    async def _look_up(
        self, message: pb.LookupColonyRequest, call: Call
    ) -> pb.LookupColonyResponse:
        match message.mesh_id[:1]:
            case "n":
                raise NotRegisteredError(message.mesh_id)
            case "d":
                raise RuntimeError("a defect")
            case "w":
                await asyncio.sleep(0)
            case "m":
                call.reply_metadata["coral-staleness"] = "7"
            case "l":
                return pb.LookupColonyResponse(message.mesh_id, metadata={"k": "v" * 20_000})
        return pb.LookupColonyResponse(message.mesh_id, revision=int(call.peer == "203.0.113.9"))

    async def _health(self, message: betterproto.Message, call: Call) -> pb.HealthResponse:
        del message, call
        return pb.HealthResponse(status="ok")

    def _note_pieces(self, connection: Any) -> None:
        feed, open_short_cut = connection._feed, connection._open_short_cut

        def noting_feed(data: bytes) -> Any:
            if not self._taking:
                self.pieces.append(data)
            return feed(data)

        def noting_open() -> Any:
            short_cut = open_short_cut()
            if short_cut is not None:
                self._note_what_is_spared(short_cut)
            return short_cut

        connection._feed, connection._open_short_cut = noting_feed, noting_open

    def _note_what_is_spared(self, short_cut: Any) -> None:
        take, repeat = short_cut.take, short_cut.repeat

        def noting_take(data: bytes, at: int, most: int) -> tuple[int, int]:
            self._taking = True
            end, taken = len(data), 1
            try:
                end, taken = take(data, at, most)
            finally:
                self._taking = False
                self.pieces.extend([data[at:end], None] * bool(taken))
            return end, taken

        def noting_repeat(data: bytes) -> bool:
            repeats: bool = True
            self._taking = True
            try:
                repeats = repeat(data)
            finally:
                self._taking = False
                self.pieces.extend([data, None] * repeats)
            self.repeated += repeats
            return repeats

        short_cut.take, short_cut.repeat = noting_take, noting_repeat

    async def feed(self, pieces: Sequence[bytes | None]) -> None:
        for piece in pieces:
            if piece is not None and not self.pipe.closed:
                self.connection.data_received(piece)
            if piece is None:
                for _ in range(20):
                    await asyncio.sleep(0)

    @property
    def _h2(self) -> Any:
        return self.connection._h2

    def knows(self) -> Mapping[str, object]:
        """What h2 must know whichever way the bytes went. It looks after streams that are over when it opens others."""
        h2 = self._h2
        _open = h2.open_inbound_streams
        window = h2._inbound_flow_control_window_manager
        return {
            "highest": h2.highest_inbound_stream_id,
            "open": sorted(h2.streams),
            "closed": {stream: by for stream, by in h2._closed_streams.items() if by is not None},
            "inbound": (window.current_window_size, window._bytes_processed),
            "outbound": h2.outbound_flow_control_window,
            "state": h2.state_machine.state,
            "decoder": list(h2.decoder.header_table.dynamic_entries),
            "sent": self.connection.connection.data_sent,
            "guard": self.connection._guard._highest_stream,
        }

    def said(self) -> Mapping[str, object]:
        """What a client understands: of each stream its headers, data and end; of the connection the rest."""
        streams: dict[int, list[object]] = {}
        connection: list[object] = []
        window = 0
        decoder = Decoder()
        for frame in _frames(self.pipe.written):
            of_stream = streams.setdefault(frame.stream_id, [])
            end = "END_STREAM" in frame.flags
            match frame:
                case HeadersFrame():
                    of_stream.append((sorted(decoder.decode(frame.data)), end))
                case DataFrame():
                    if of_stream and isinstance(of_stream[-1], bytes):
                        of_stream[-1] += frame.data
                    else:
                        of_stream.append(frame.data)
                    of_stream.extend(["end"] * end)
                case RstStreamFrame():
                    of_stream.append(("reset", frame.error_code))
                case WindowUpdateFrame(stream_id=0):
                    window += frame.window_increment
                case WindowUpdateFrame():
                    pass  # for a stream that may be over by then
                case GoAwayFrame():
                    connection.append(("goaway", frame.error_code, frame.last_stream_id))
                case SettingsFrame() | PingFrame():
                    connection.append((type(frame), sorted(frame.flags)))
        closed = self.pipe.closed
        return {"streams": streams, "connection": connection, "window": window, "closed": closed}

    def saw(self) -> Sequence[object]:
        """Return the calls that the pipeline saw. Those that were begun together may end in another order."""
        seen = [
            (account.call.path, account.call.peer, account.code, bytes(account.message or b""))
            for account in self.accounts
        ]
        return sorted(seen, key=repr)


async def _no_application(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _frames(data: bytes) -> Iterator[Frame]:
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        yield frame
        data = data[9 + length :]


# -- What a client may send -----------------------------------------------------------------------


def frames_of(sent: bytes) -> list[bytes]:
    """Return what was sent in pieces of one frame, and what is left of a last one."""
    pieces = []
    while sent:
        size = 9 + int.from_bytes(sent[:3], "big")
        pieces.append(sent[:size])
        sent = sent[size:]
    return pieces


def renumbered(frame: bytes, stream: int) -> bytes:
    """Return a frame as it would be of another stream."""
    return frame[:5] + stream.to_bytes(4, "big") + frame[9:]


def one_by_one(script: Script) -> list[bytes]:
    """Return what a script sends in a piece for each request, of which the client saw the answer before the next."""
    pieces = [PREFACE]
    for frame in frames_of(script.sent[len(PREFACE) :]):
        if frame[3] == DataFrame.type:
            pieces[-1] += frame
        else:
            pieces.append(frame)
    return pieces


@dataclass
class Script:
    """Builds what one client sends. Its encoder goes on whatever the server makes of it."""

    encoder: Encoder = field(default_factory=Encoder)
    stream: int = -1
    sent: bytes = PREFACE
    pauses: set[int] = field(default_factory=set)
    """Where the client waits for the answers."""

    def add(self, *frames: Frame | bytes) -> None:
        for frame in frames:
            self.sent += frame if isinstance(frame, bytes) else frame.serialize()

    def next_stream(self) -> int:
        self.stream += 2
        return self.stream

    def headers(self, more: Sequence[tuple[str, str]] = (), path: str = "LookupColony") -> bytes:
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"{SERVICE}/{path}"),
            (":authority", "h"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *more,
        ]
        return bytes(self.encoder.encode(fields))

    def request(
        self,
        mesh_id: str = "a",
        more: Sequence[tuple[str, str]] = (),
        *,
        path: str = "LookupColony",
        stream: int | None = None,
    ) -> tuple[HeadersFrame, DataFrame]:
        number = self.next_stream() if stream is None else stream
        head = HeadersFrame(number, self.headers(more, path), flags=["END_HEADERS"])
        data = framed(bytes(pb.LookupColonyRequest(mesh_id)))
        return head, DataFrame(number, data, flags=["END_STREAM"])

    def pause(self) -> None:
        self.pauses.add(len(self.sent))


def framed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def plain(script: Script, times: int = 6) -> None:
    for _ in range(times):
        script.add(*script.request())


async def compare(chunks: Sequence[bytes], *, at_once: bool = True) -> tuple[Side, Side]:
    """Compare what becomes of `chunks` with what h2 makes of the same pieces.

    When h2 is fed several frames of which one is broken, it forgets what came before that: so it is fed piece by piece
    what the other was, and what the other was spared.
    """
    fast, general = Side(fast=True, at_once=at_once), Side(fast=False)
    for chunk in chunks:
        await fast.feed([chunk])
        fast.pieces.append(None)
        await fast.feed([None])
    await general.feed(fast.pieces)
    assert b"".join(filter(None, fast.pieces)) == b"".join(chunks) or fast.pipe.closed
    assert general.begun == 0
    if fast.pipe.closed:
        compare_ends(fast.said(), general.said())
    else:
        assert fast.said() == general.said()
        assert fast.saw() == general.saw()
        assert fast.knows() == general.knows()
    for side in (fast, general):
        side.connection.connection_lost(None)
        await side.feed([None])
    return fast, general


async def both_after(pieces: Sequence[bytes]) -> tuple[Side, Side]:
    """Return a connection with the short cut and one without, which were fed `pieces` and have answered."""
    fast, general = Side(fast=True), Side(fast=False)
    for side in (fast, general):
        for piece in pieces:
            await side.feed([piece, None])
    return fast, general


def compare_ends(fast: Mapping[str, Any], general: Mapping[str, Any]) -> None:
    """Compare the ends of two connections. Calls that were under way go with them, and which these are may differ."""
    assert fast["connection"] == general["connection"]
    assert fast["closed"] == general["closed"]
    for stream in fast["streams"].keys() & general["streams"].keys():
        said, also_said = fast["streams"][stream], general["streams"][stream]
        assert said == also_said or not (said and also_said)


async def test_requests_that_repeat_take_the_short_cut() -> None:
    script = Script()
    plain(script, 8)
    fast, _ = await compare(one_by_one(script))
    # The first fills the table, there is a short cut after the second, the third is seen, the fourth is learned.
    assert fast.begun == 4
    # The fifth is taken apart, the sixth is the same, and after that so is all of it.
    assert fast.repeated == 2
    assert [account.code for account in fast.accounts] == [Code.OK] * 8


async def test_requests_of_which_all_headers_come_first_take_it_too() -> None:
    script = Script()
    plain(script, 4)
    before = one_by_one(script)
    script.sent = b""
    pairs = [script.request(f"a{number}") for number in range(6)]
    for head, _ in pairs:
        script.add(head)
    for _, data in reversed(pairs):
        script.add(data)
    fast, _ = await compare([*before, script.sent])
    assert fast.begun == 6


NEXT = 17
"""The stream after eight requests."""


@pytest.mark.parametrize(
    "streams, taken",
    [
        ((NEXT, NEXT), 2),
        ((NEXT, NEXT + 2), 0),
        ((NEXT + 2, NEXT), 0),
        ((0, 0), 0),
        ((1, 1), 0),
        ((NEXT - 2, NEXT - 2), 0),
        ((NEXT + 1, NEXT + 1), 0),
        ((2**31 - 1, 2**31 - 1), 1),
        ((2**31 + NEXT, 2**31 + NEXT), 1),  # the first bit is to be ignored: h2 does
    ],
)
async def test_a_request_that_comes_again_is_known_but_for_its_stream(
    streams: tuple[int, int], taken: int
) -> None:
    script = Script()
    plain(script, 9)
    *before, again = one_by_one(script)
    head, data = (
        renumbered(frame, stream) for frame, stream in zip(frames_of(again), streams, strict=True)
    )
    script.sent = b""
    plain(script, 1)
    fast, _ = await compare([*before, head + data, script.sent])
    assert fast.begun == 4 + taken


async def test_what_looks_like_that_request_may_be_the_rest_of_a_frame() -> None:
    script = Script()
    plain(script, 9)
    *before, again = one_by_one(script)
    head = renumbered(frames_of(again)[0], NEXT)
    looks_like_it = b"".join(renumbered(frame, NEXT + 2) for frame in frames_of(again))
    begins = DataFrame(NEXT, bytes(len(looks_like_it)), flags=["END_STREAM"]).serialize()[:9]
    fast, _ = await compare([*before, head + begins, looks_like_it])
    assert fast.begun == 4


async def test_a_request_that_comes_again_is_one_too_many_while_as_many_as_may_be_are_open() -> (
    None
):
    script = Script()
    script.add(SettingsFrame(0, flags=["ACK"]))  # the limit is in force once it is known
    plain(script, 9)
    *before, again = one_by_one(script)
    script.sent, script.stream = b"", NEXT - 2
    few = 3
    for _ in range(few):
        script.add(HeadersFrame(script.next_stream(), script.headers(), flags=["END_HEADERS"]))
    later = [renumbered(frame, script.next_stream()) for frame in frames_of(again)]
    later[1] = renumbered(later[1], script.stream - 2)
    fast, general = (Side(fast=fast, bounds=replace(BOUNDS, streams=few)) for fast in (True, False))
    for side in (fast, general):
        for piece in (*before, script.sent, b"".join(later)):
            await side.feed([piece, None])
    assert fast.begun == 4
    assert fast.said() == general.said()


async def test_a_request_that_comes_again_after_the_end_is_not_answered() -> None:
    script = Script()
    plain(script, 9)
    *before, again = one_by_one(script)
    fast, _ = await both_after(before)
    fast.connection._h2.close_connection()
    await fast.feed([again, None])
    assert fast.begun == 4


@pytest.mark.parametrize("size, repeated", [(1800, 2), (2048, 0)])
async def test_a_long_request_is_not_kept_for_when_it_comes_again(size: int, repeated: int) -> None:
    script = Script()
    for _ in range(8):
        script.add(*script.request("a" * size))
    fast = Side(fast=True, bounds=replace(BOUNDS, request_bytes=4000))
    for piece in one_by_one(script):
        await fast.feed([piece, None])
    assert fast.begun == 4
    assert fast.repeated == repeated


async def test_what_waits_to_be_sent_goes_before_the_answer() -> None:
    script = Script()
    plain(script, 9)
    *before, again = one_by_one(script)
    fast, general = await both_after(before)
    for side in (fast, general):
        side.connection._h2.ping(b"12345678")
        await side.feed([again, None])
    assert fast.begun == 5
    assert (PingFrame, []) in fast.said()["connection"]  # type: ignore[operator]
    assert fast.said() == general.said()


@pytest.mark.parametrize("requests", [6, 9])
async def test_the_connections_window_is_given_back_when_h2_would(requests: int) -> None:
    script = Script()
    plain(script, requests)
    *before, last = one_by_one(script)
    fast, general = await both_after(before)
    for side in (fast, general):
        window: Any = side.connection._h2._inbound_flow_control_window_manager
        window._bytes_processed = window.max_window_size // 2 - 1
        window.current_window_size = window.max_window_size - window._bytes_processed
        await side.feed([last, None])
        assert window._bytes_processed == 0
    assert fast.begun == requests - 4
    assert fast.said() == general.said()
    assert fast.knows() == general.knows()


async def test_a_request_that_comes_again_has_a_deadline_and_an_answer_of_its_own() -> None:
    script = Script()
    for _ in range(8):
        script.add(*script.request(more=[("grpc-timeout", "60S")]))
    fast, _ = await both_after(one_by_one(script))
    assert fast.repeated == 2
    *_, one, other = [account.call for account in fast.accounts]
    assert one.deadline is not None
    assert other.deadline is not None
    assert one.deadline < other.deadline
    assert one.reply_metadata is not other.reply_metadata


async def test_streams_of_requests_that_come_again_are_not_remembered_for_ever() -> None:
    script = Script()
    plain(script, 500)
    fast, _ = await both_after(one_by_one(script))
    assert fast.repeated > 400
    assert 200 <= len(fast.connection._h2._closed_streams) < 400


@pytest.mark.parametrize("more", [0, 1])
async def test_a_request_that_comes_again_has_to_fit_into_the_window(more: int) -> None:
    script = Script()
    plain(script, 9)
    *before, again = one_by_one(script)
    fast, general = await both_after(before)
    for side in (fast, general):
        window: Any = side.connection._h2._inbound_flow_control_window_manager
        window.current_window_size = len(frames_of(again)[1]) - 9 - 1 + more
        await side.feed([again, None])
    assert fast.begun == 4 + more
    assert fast.said() == general.said()
    assert fast.pipe.closed == (not more)


async def test_a_request_that_comes_again_after_the_table_changed_may_mean_something_else() -> None:
    script = Script()
    plain(script, 9)
    *before, again = one_by_one(script)
    script.sent = b""
    script.add(*script.request(more=[("user-agent", "new")], stream=NEXT))
    later = [renumbered(frame, NEXT + 2) for frame in frames_of(again)]
    fast, _ = await compare([*before, script.sent, b"".join(later)])
    assert fast.begun == 4


async def test_however_the_bytes_are_split_the_same_is_answered() -> None:
    script = Script()
    plain(script, 4)
    before, script.sent = one_by_one(script), b""
    plain(script, 1)
    script.add(PingFrame(0, b"12345678"), *script.request("n1"), *script.request("w"))
    plain(script, 2)
    begun = [
        (await compare([*before, script.sent[:at], script.sent[at:]]))[0].begun
        for at in range(len(script.sent))
    ]
    assert {5} < set(begun) <= {3, 4, 5}  # but for what is cut in two
    everything = b"".join((*before, script.sent))
    await compare([everything[at : at + 1] for at in range(len(everything))])


@pytest.mark.parametrize("mesh_id", ["n", "n" + "é" * 200, "d"])
async def test_a_refusal_takes_it_too(mesh_id: str) -> None:
    script = Script()
    plain(script, 5)
    script.add(*script.request(mesh_id))
    pieces = one_by_one(script)
    await compare(pieces)

    side = Side(fast=True)
    for piece in pieces[:-1]:
        await side.feed([piece, None])
    side.connection.data_received(pieces[-1])
    said: Any = side.said()["streams"]  # before any task had a turn
    [(headers, is_end)] = said[script.stream]
    assert is_end
    assert "grpc-status-details-bin" in dict(headers)


@pytest.mark.parametrize("mesh_id", ["w", "m", "l"])
async def test_a_call_that_is_not_over_at_once_is_taken_over_and_not_made_twice(
    mesh_id: str,
) -> None:
    script = Script()
    plain(script)
    script.add(*script.request(mesh_id), *script.request())
    fast, _ = await compare(one_by_one(script))
    assert fast.begun == 4
    assert len(fast.accounts) == 8


async def test_no_more_is_taken_at_once_than_may_be_open_at_once() -> None:
    script = Script()
    plain(script, 5)
    before = one_by_one(script)
    script.sent = b""
    few = 10
    plain(script, 2 * few)
    fast = Side(fast=True, bounds=replace(BOUNDS, streams=few))
    for piece in (*before, script.sent):
        await fast.feed([piece, None])
    assert fast.begun == 1 + few
    assert [account.code for account in fast.accounts] == [Code.OK] * (5 + 2 * few)


@pytest.mark.parametrize("requests", [6, 9])
async def test_a_client_that_does_not_read_is_answered_by_h2(requests: int) -> None:
    script = Script()
    plain(script, requests)
    *before, last = one_by_one(script)
    fast, general = await both_after(before)
    for side in (fast, general):
        begun = side.begun
        side.connection.pause_writing()
        await side.feed([last, None])
        assert side.begun == begun
        side.connection.resume_writing()
        await side.feed([None])
    assert fast.begun == requests - 5
    assert fast.said() == general.said()


@pytest.mark.parametrize("fast, mesh_ids", [(True, "a"), (True, "an"), (False, "an")])
async def test_calls_leave_nothing_behind(fast: bool, mesh_ids: str) -> None:
    """A million take minutes: what grows by a byte for each call has grown by kilobytes after thousands."""
    script, side = Script(), Side(fast=fast)

    async def call(times: int) -> int:
        for _ in range(times):
            script.sent = b""
            for mesh_id in mesh_ids:
                script.add(*script.request(mesh_id))
            await side.feed([script.sent, None])
            side.pipe.written = b""
            side.pieces.clear()
            side.accounts.clear()
        gc.collect()
        return sys.getallocatedblocks()

    await side.feed([PREFACE, None])
    await call(500)  # until tables and caches are full
    before = await call(1)
    assert await call(1000) < before + 500
    assert (side.repeated > 1000) == (mesh_ids == "a")


@pytest.mark.parametrize("room", [0, 9, 10, 11, 19, 20])
async def test_an_answer_that_exceeds_the_connections_window_waits(room: int) -> None:
    script = Script()
    plain(script, 7)
    *before, last_but_one, last = one_by_one(script)
    fast, general = await both_after(before)
    for side in (fast, general):
        side.connection._h2.outbound_flow_control_window = room
        await side.feed([last_but_one, None])
        await side.feed([WindowUpdateFrame(0, 3).serialize() + last, None])
        await side.feed([WindowUpdateFrame(0, 100).serialize(), None])
    assert fast.begun == 3
    assert fast.said() == general.said()
    assert fast.knows() == general.knows()


async def test_a_connection_that_remembers_many_blocks_forgets_the_oldest() -> None:
    script = Script()
    script.encoder.header_table_size = 0
    for _ in range(3):
        for number in range(40):
            script.add(*script.request(more=[("user-agent", str(number))]))
    pieces = [script.sent[at : at + 500] for at in range(0, len(script.sent), 500)]
    await compare(pieces)
    fast = Side(fast=True)
    await fast.feed(pieces)
    short_cut = fast.connection._short_cut
    assert isinstance(short_cut, ShortCut)
    assert 0 < len(short_cut._blocks) <= 32


MESHES = st.sampled_from(["a", "b" * 60, "n", "d", "w", "m", "l", "a" * 1990])
MORE = st.sampled_from(
    [
        (),
        (("content-length", "8"),),
        (("content-length", "9"),),
        (("content-length", "8"), ("content-length", "8")),
        (("grpc-timeout", "60S"),),
        (("grpc-timeout", "0n"),),
        (("grpc-timeout", "soon"),),
        (("user-agent", "x"),),
        (("x-bin", "!"),),
        (("X-Upper", "1"),),
        (("x-long", "y" * 1100),),
    ]
)


@st.composite
def scripts(draw: st.DrawFn) -> Sequence[bytes]:
    """What a client sends that mostly repeats itself, in pieces."""
    script = Script()
    if draw(st.booleans()):
        script.encoder.header_table_size = 0
    # With less, whose answer has to wait depends on whose turn comes first.
    script.add(WindowUpdateFrame(0, 2**30))
    usual = draw(MORE)
    for _ in range(draw(st.sampled_from([0, 3, 6, 7, 8]))):  # the sixth is known by one comparison
        script.add(*script.request(more=usual))
    before, script.sent = one_by_one(script), b""
    for _ in range(draw(st.integers(1, 12))):
        draw(st.sampled_from(ACTS))(script, draw, usual)
        if draw(st.booleans()):
            script.pause()
    anywhere = st.integers(0, len(script.sent))
    cuts = sorted(draw(st.sets(anywhere, max_size=4)) | script.pauses)
    ends = zip([0, *cuts], [*cuts, len(script.sent)], strict=True)
    return [*before, *(script.sent[start:end] for start, end in ends)]


def _usual(script: Script, draw: st.DrawFn, usual: Any) -> None:
    script.add(*script.request(draw(MESHES), usual))


def _again(script: Script, _draw: st.DrawFn, usual: Any) -> None:
    for _ in range(3):
        script.add(*script.request("a", usual))
        script.pause()


def _group(script: Script, draw: st.DrawFn, usual: Any) -> None:
    pairs = [script.request(draw(MESHES), usual) for _ in range(draw(st.integers(2, 6)))]
    data = draw(st.permutations([data for _, data in pairs]))
    script.add(*[head for head, _ in pairs], *data)


def _other(script: Script, draw: st.DrawFn, _usual_headers: Any) -> None:
    path = draw(st.sampled_from(["LookupColony", "Health", "Nothing", "WatchColony"]))
    script.add(*script.request(draw(MESHES), draw(MORE), path=path))


def _bent(script: Script, draw: st.DrawFn, usual: Any) -> None:
    """A request with something of its frames changed."""
    script.pause()
    stream = draw(
        st.sampled_from([None, None, 1, 2, 3, 2**31 - 2, max(script.stream, 1), 2**31 - 1])
    )
    head, data = script.request(draw(MESHES), usual, stream=stream)
    match draw(st.integers(0, 8)):
        case 0:
            data.flags.discard("END_STREAM")
            script.add(head, data, DataFrame(data.stream_id, b"", flags=["END_STREAM"]))
        case 1:
            data.data = data.data[:-1]
            script.add(head, data)
        case 2:
            data.data = b"\1" + data.data[1:]
            script.add(head, data)
        case 3:
            data.data += b"more"
            script.add(head, data)
        case 4:
            data.flags.add("PADDED")
            data.pad_length = 3
            script.add(head, data)
        case 5:
            head.flags.add("PRIORITY")
            head.depends_on, head.stream_weight, head.exclusive = 0, 5, False
            script.add(head, data)
        case 6:
            script.add(head, RstStreamFrame(head.stream_id, 8))
        case 7:
            half = len(data.data) // 2
            first = DataFrame(data.stream_id, data.data[:half])
            data.data = data.data[half:]
            script.add(head, first, data)
        case 8:
            data.data = framed(b"\xff" * 8)
            script.add(head, data)


def _late(script: Script, draw: st.DrawFn, _usual_headers: Any) -> None:
    """A frame for a stream that is over."""
    script.pause()
    stream = max(1, script.stream - 2 * draw(st.integers(0, 3)))
    frames = [
        RstStreamFrame(stream, 8),
        DataFrame(stream, b"late"),
        WindowUpdateFrame(stream, 100),
        PriorityFrame(stream, 0, 5, exclusive=False),
    ]
    script.add(draw(st.sampled_from(frames)))


def _connection(script: Script, draw: st.DrawFn, _usual_headers: Any) -> None:
    """A frame about the connection."""
    script.pause()
    changed: dict[int, int] = draw(
        st.sampled_from([{}, {1: 0}, {1: 4096}, {1: 100}, {4: 0}, {4: 40}, {4: 65535}, {5: 16384}])
    )
    frames: list[Frame | bytes] = [
        PingFrame(0, b"12345678"),
        SettingsFrame(0, settings=changed),
        SettingsFrame(0, flags=["ACK"]),
        WindowUpdateFrame(0, 1000),
        b"\0\0\1\xee\0\0\0\0\0x",
        GoAwayFrame(0),
        b"\0\0",
    ]
    script.add(draw(st.sampled_from(frames)))


def _table(script: Script, draw: st.DrawFn, _usual_headers: Any) -> None:
    """A change of the size of the client's table, which its next block begins with."""
    script.encoder.header_table_size = draw(st.sampled_from([0, 60, 4096]))


ACTS = (_usual, _usual, _usual, _again, _group, _other, _bent, _late, _connection, _table)


@given(scripts(), st.booleans())
@settings(deadline=None, max_examples=100)
def test_whatever_a_client_sends_both_ways_mean_the_same(
    chunks: Sequence[bytes], at_once: bool
) -> None:
    asyncio.run(_compare(chunks, at_once=at_once))


async def _compare(chunks: Sequence[bytes], *, at_once: bool) -> None:
    await compare(chunks, at_once=at_once)


async def test_calls_that_wait_anyway_are_left_to_their_tasks_but_not_to_h2() -> None:
    script = Script()
    plain(script, 8)
    pieces = one_by_one(script)
    fast, _ = await compare(pieces, at_once=False)
    assert fast.begun == 0
    assert len(fast.accounts) == 8
    assert fast.pieces.count(None) > len(pieces)  # it was spared some
