"""A short cut past h2 for the calls that a gRPC client makes again and again.

A client's request repeats: its header block is, byte for byte, that of the call before, and its message is one DATA
frame. To take such a request apart and put its answer together, h2 and hpack run a few hundred function calls, several
times what the call itself takes. Here a request is recognised by its bytes, and h2's connection object is left as if
h2 had seen it all. Whatever is not recognised goes to h2 as ever, so it remains the one authority on the protocol.

Why that is right:

- **The headers are those that h2 would read.** hpack's result is a function of the block, the decoder's table and its
  two limits. A block is learned when h2 decodes it and that leaves all of these as they were, and forgotten as soon as
  they are not: then decoding it again gives the same headers again, and again changes nothing. The table is compared by
  its newest entry (each entry is a new object, and only the newest end grows), its length and its greatest size. What
  h2 checks of a request's headers depends on nothing else.
- **The frames are whole and in turn.** A short cut begins only between frames (`FloodGuard.unfinished`). It takes a
  HEADERS frame that ends its block and has neither priority nor padding, and a DATA frame that ends the same stream and
  has no padding: RFC 9113 sections 6.1 and 6.2. Between the two may stand only such frames of other streams, on which
  nothing here depends. The stream's number is odd and higher than all before (5.1.1), there are fewer streams than may
  be open (5.1.2), the data fits the connection's window, and its length is what the headers announce (8.1.1). Where one
  of these is not so, it is for h2 to say what follows.
- **The answer may be sent.** It fits into both windows and into one frame; a refusal is a frame of headers, for which
  there is no window. The header blocks touch no table, so that the client's decoder stays in step with h2's encoder. If
  the table's size has changed, the next block has to say so, and that is h2's to write.
- **What h2 knows afterwards** is the highest stream; that this one is over, and closed by our END_STREAM, so that late
  frames for it are treated as they must be (5.1); and both of the connection's windows, with the WINDOW_UPDATE when it
  is due. A stream's own windows end with it. The connection's state machine has one state for all of this.
- **The call is the same call**: it goes through the same pipeline. One that does not end at once, or with more than
  fits, is taken over by a stream: h2 makes it, and puts it through the steps of its own state machine. Its windows are
  new, and nothing more can come on it, so that what is left to h2 is the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from grpclib.protocol import Connection, Stream
from h2.connection import AllowedStreamIDs, ConnectionState, H2Connection
from h2.stream import StreamClosedBy, StreamInputs
from hyperframe.frame import WindowUpdateFrame

from discovery.transport import codec
from discovery.transport.begun import Begun, Later
from discovery.transport.floods import ClosedStreams, FloodGuard
from discovery.transport.framing import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    PREFIX,
    framed_answer,
    framed_refusal,
    refusal_block,
)

_HEAD_BYTES = HEAD.size
_STEPS = StreamInputs.RECV_HEADERS, StreamInputs.RECV_DATA, StreamInputs.RECV_END_STREAM
_LINGERING = 20
_LAST_STREAM = 2**31 - 1
_BLOCKS = 32
"""How many header blocks of a connection are remembered: clients have a few for each method."""
_LONGEST_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Recognised:
    """What to do with requests of one header block."""

    begin: Callable[[bytes], Begun | Later]
    """Begins the call that a message asks for."""
    length: int | None
    """How long the request is, if its headers say so."""


def _never(_message: bytes) -> Begun | Later:
    raise NotImplementedError


_VAIN = Recognised(_never, None)
"""Stands for headers that are for h2 in any case."""

Headers = list[tuple[str, str]]


class Calls(Protocol):
    """The calls that can be begun at once."""

    def conclude(
        self, stream: Stream, begun: Begun | Later, release_stream: Callable[..., object]
    ) -> None:
        """Have a new stream conclude a call, and release it afterwards."""
        ...

    def recognise(self, headers: Headers, transport: asyncio.Transport) -> Recognised | None:
        """Return what to do with requests of `headers` on a connection; None if they are for h2 in any case."""
        ...


Request = tuple[int, Recognised, bytes]
"""A stream, what it is for, and the message."""
TakeOver = Callable[[int, Begun | Later], None]


class ShortCut:
    """The short cut of one connection."""

    def __init__(
        self,
        connection: Connection,
        guard: FloodGuard,
        calls: Calls,
        take_over: TakeOver,
        largest: int,
    ) -> None:
        """Begin `calls`, whose messages have up to `largest` bytes.

        `take_over` is given what cannot be answered here, with the number of the stream that h2 now has for it.
        """
        self._connection = connection
        self._h2: H2Connection = connection._connection  # noqa: SLF001 - grpclib keeps it to itself
        self._closed = cast("ClosedStreams", self._h2._closed_streams)  # noqa: SLF001 - see `bound_closed_streams`
        self._guard = guard
        self._calls = calls
        self._take_over = take_over
        self._transport: asyncio.Transport = connection._transport  # noqa: SLF001
        self._largest = largest
        self._blocks: dict[bytes, Recognised | None] = {}
        """Those that were seen; with what to do once it is known, which takes a second look."""
        self._learning: bytes | None = None
        self._newest: object = None
        self._table: tuple[int, ...] = ()
        self._fits = 0
        """How long an answer may be at most, for a stream's window and a frame."""
        self._most_open = 0

    def take(self, data: bytes, at: int, most: int) -> tuple[int, int]:
        """Answer up to `most` requests that `data` begins with from `at` on; it must be the beginning of a frame.

        Return where the first frame stands that is for h2, and how many requests were answered.
        """
        h2, taken = self._h2, 0
        if h2.state_machine.state is not ConnectionState.SERVER_OPEN:
            return at, 0
        while taken < most and at < len(data):
            requests, upto = self._find(data, at, most - taken)
            if not requests:
                break
            self._guard.passed(len(requests), requests[-1][0])
            self._receive(sum([PREFIX + len(message) for _, _, message in requests]))
            self._answer(requests)
            taken += len(requests)
            at = upto
        return at, taken

    def _find(self, data: bytes, at: int, most: int) -> tuple[Sequence[Request], int]:
        """Find requests that are all there, with no other frame between them, and where they end.

        A client that makes several calls at once may send the headers of all before the data of any.
        """
        h2, end = self._h2, len(data)
        if len(h2.streams) > _LINGERING:
            _ = h2.open_inbound_streams  # where h2 forgets those that are over
        opened: dict[int, Recognised] = {}
        found: list[Request] = []
        highest = h2.highest_inbound_stream_id
        room = h2._inbound_flow_control_window_manager.current_window_size  # noqa: SLF001 - h2 asks for an open stream
        most = min(most, self._most_open - len(h2.streams))
        while end - at >= _HEAD_BYTES:
            kind, flags, stream = HEAD.unpack_from(data, at)
            payload_at = at + _HEAD_BYTES
            size = kind >> 8
            upto = payload_at + size
            if upto > end:
                break
            if kind & 0xFF == HEADERS and flags == END_HEADERS:
                known = self._blocks.get(data[payload_at:upto])
                if known is None or known is _VAIN or len(found) + len(opened) >= most:
                    break
                if not (highest < stream <= _LAST_STREAM and stream & 1):
                    break
                highest = stream
                opened[stream] = known
            elif kind & 0xFF == DATA and flags == END_STREAM and stream in opened:
                known = opened.pop(stream)
                room -= size
                message = data[payload_at + PREFIX : upto]
                if (
                    size != PREFIX + len(message)
                    or data[payload_at : payload_at + PREFIX]
                    != len(message).to_bytes(PREFIX, "big")
                    or (known.length or size) != size
                    or len(message) > self._largest
                    or size > h2.max_inbound_frame_size
                    or room < 0
                ):
                    break
                found.append((stream, known, message))
                if not opened:
                    found.sort()
                    return found, upto
            else:
                break
            at = upto
        return (), at

    def _answer(self, requests: Sequence[Request]) -> None:
        """Answer requests, or have h2 do it; they must be in the order of their streams."""
        h2, sent = self._h2, 0
        for stream, known, message in requests:
            begun = known.begin(message)
            frames, size = self._frames_of(stream, begun)
            if frames:
                h2._data_to_send += frames  # noqa: SLF001 - where all its frames wait
                h2.outbound_flow_control_window -= size
                sent += size
                self._closed.add(stream, StreamClosedBy.SEND_END_STREAM)
            else:
                self._open(stream)
                self._take_over(stream, begun)
        self._closed.forget()
        h2.highest_inbound_stream_id = requests[-1][0]
        self._connection.data_sent += sent

    def _frames_of(self, stream: int, begun: Begun | Later) -> tuple[bytes, int]:
        """Return the frames that answer a call, none if that is for h2 to do, and how much they take of the windows."""
        h2 = self._h2
        if h2.encoder.header_table.resized:
            return b"", 0
        if (reply := begun.reply) is not None:
            if begun.call.reply_metadata:
                return b"", 0
            answer = codec.encode(reply)
            sent = PREFIX + len(answer)
            if sent <= self._fits and sent <= h2.outbound_flow_control_window:
                return framed_answer(stream, answer), sent
        elif (error := begun.error) is not None:
            refusal = refusal_block(error)
            if len(refusal) <= h2.max_outbound_frame_size:
                return framed_refusal(stream, refusal), 0
        return b"", 0

    def _open(self, number: int) -> None:
        """Have h2 open a stream on which a whole request has come."""
        stream = self._h2._begin_new_stream(number, AllowedStreamIDs.ODD)  # noqa: SLF001 - only frames lead to it
        for step in _STEPS:
            stream.state_machine.process_input(step)

    def _receive(self, size: int) -> None:
        """Take in `size` bytes, and give the client's window back when h2 would."""
        window = self._h2._inbound_flow_control_window_manager  # noqa: SLF001 - h2's way to it needs an open stream
        window.window_consumed(size)
        if increment := window.process_bytes(size):
            update = WindowUpdateFrame(0)
            update.window_increment = increment
            self._h2._data_to_send += update.serialize()  # noqa: SLF001

    # -- Learning ---------------------------------------------------------------------------------

    def until(self, data: bytes, at: int) -> int:
        """Return up to where h2 is to be fed: from `at`, the beginning of a frame, to the next that is for `take`.

        A request whose block was seen before is fed by itself, so that it can be learned.
        """
        self._learning = None
        start = at
        while len(data) >= at + _HEAD_BYTES:
            kind, flags, _stream = HEAD.unpack_from(data, at)
            end: int = at + _HEAD_BYTES + (kind >> 8)
            if end > len(data):
                break
            if kind & 0xFF == HEADERS and flags == END_HEADERS and end - at <= _LONGEST_BLOCK:
                block = data[at + _HEAD_BYTES : end]
                if block not in self._blocks:
                    self._see(block)
                elif at > start and self._blocks[block] is not _VAIN:
                    return at
                elif self._blocks[block] is None:
                    self._learning = block
                    return end
            at = end
        return len(data)

    def _see(self, block: bytes) -> None:
        if len(self._blocks) >= _BLOCKS:
            self._blocks.clear()
        self._blocks[block] = None

    def fed(self, headers: Headers | None) -> None:
        """Take note that h2 was fed up to where `until` said, and of the `headers` that it read if it read any."""
        block, self._learning = self._learning, None
        h2 = self._h2
        self._most_open = h2.local_settings.max_concurrent_streams
        self._fits = min(h2.remote_settings.initial_window_size, h2.max_outbound_frame_size)
        table = h2.decoder.header_table
        entries = table.dynamic_entries
        newest = entries[0] if entries else None
        limits = h2.decoder.max_header_list_size, h2.decoder.max_allowed_table_size
        rest = len(entries), table.maxsize, *limits
        if newest is not self._newest or rest != self._table:
            self._newest, self._table = newest, rest
            self._blocks.clear()
        elif block is not None and headers is not None:
            self._blocks[block] = self._calls.recognise(headers, self._transport) or _VAIN
