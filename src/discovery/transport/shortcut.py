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
- **A request that comes again is the same request.** Most clients make one call on a connection, over and over: a read
  then has the bytes of the last one but for the stream's number, in both frames. All that was found out about those
  bytes holds until h2 is fed something that changes its table; the number, the places and the window are looked at
  (`repeat`).
- **The answer may be sent.** It fits into both windows and into one frame; a refusal is a frame of headers, for which
  there is no window. The header blocks touch no table, so that the client's decoder stays in step with h2's encoder. If
  the table's size has changed, the next block has to say so, and that is h2's to write.
- **What h2 knows afterwards** is the highest stream; that this one is over, and closed by our END_STREAM, so that late
  frames for it are treated as they must be (5.1); and both of the connection's windows, with the WINDOW_UPDATE when it
  is due. A stream's own windows end with it. The connection's state machine has one state for all of this.
- **The call is the same call**: it goes through the same pipeline. One that does not end at once, or with more than
  fits, is taken over by a stream: h2 makes it, and it is given the state that h2 itself comes to after such a request
  (`stream_states`). Its windows are new, and nothing more can come on it, so that what is left to h2 is the answer.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from grpclib.protocol import Connection, Stream
from h2.connection import AllowedStreamIDs, ConnectionState, H2Connection
from h2.stream import StreamClosedBy
from hyperframe.frame import WindowUpdateFrame

from discovery.transport import codec
from discovery.transport.begun import Begun, Later
from discovery.transport.floods import ClosedStreams, FloodGuard
from discovery.transport.framing import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFIX,
    escaped,
    framed_answer,
    framed_refusal,
    refusal_block,
)
from discovery.transport.pipeline import Read
from discovery.transport.stream_states import REQUESTED

_HEAD = struct.Struct(">HBHI")
"""A frame's length in two parts, its type and flags as one number, and its stream: RFC 9113 section 4.1."""
_HEAD_BYTES = _HEAD.size
_NUMBER_AT = 5
"""Where the stream is, in a head."""
_READ_HEAD = _HEAD.unpack_from
_READ_NUMBER = int.from_bytes
_REQUEST_HEADERS = HEADERS << 8 | END_HEADERS
_LAST_DATA = DATA << 8 | END_STREAM
_LINGERING = 20
_LAST_STREAM = H2Connection.HIGHEST_ALLOWED_STREAM_ID
_OPEN, _ANSWERED = ConnectionState.SERVER_OPEN, StreamClosedBy.SEND_END_STREAM
_BLOCKS = 32
"""How many header blocks of a connection are remembered: clients have a few for each method."""
_LONGEST_BLOCK = 1024
_LONGEST_AGAIN = 2048
"""Bytes of a request that a connection remembers whole, at most."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What to do with requests of one header block."""

    begin: Callable[[Read], Begun | Later]
    """Begins the call that a message asks for."""
    reader: Callable[[bytes], Read]
    """Returns what reads a message."""
    length: int | None
    """How long the request is, if its headers say so."""


@dataclass(frozen=True, slots=True)
class _Again:
    """The request that last came twice running. Most clients make one call, again and again."""

    length: int
    """Bytes of its two frames."""
    pattern: bytes
    """The frames, with places for the stream's number."""
    begin: Callable[[Read], Begun | Later]
    read: Read
    size: int
    """What it takes of the windows."""


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
Found = tuple[Sequence[Request], int, int]
"""Requests, where they end, and what they take of the windows."""
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
        self._window = self._h2._inbound_flow_control_window_manager  # noqa: SLF001 - h2's way to it needs an open stream
        self._closed = cast("ClosedStreams", self._h2._closed_streams)  # noqa: SLF001 - see `bound_closed_streams`
        self._guard = guard
        self._calls = calls
        self._take_over = take_over
        self._transport: asyncio.Transport = connection._transport  # noqa: SLF001
        self._largest = largest
        self._blocks: dict[bytes, Recognised | Literal[False] | None] = {}
        """Those that were seen; with what to do once it is known, which takes a second look. False is for h2 alone."""
        self._again: _Again | None = None
        self._latest = b""
        """The message of the last request that was all of a read."""
        self._learning: bytes | None = None
        self._newest: object = None
        self._table: tuple[int, ...] = ()
        self._longest = 0
        """How long a request's DATA frame may be at most."""
        self._fits = 0
        """How long an answer may be at most, for a stream's window and a frame."""
        self._most_open = 0
        self._places = 0
        """How many streams there may be, for one more to be opened without a look at each."""
        self.fed(None)

    def repeat(self, data: bytes) -> bool:
        """Answer the request that last came twice running, if `data` is that one and nothing else; else return False.

        As with `take`, `data` must be the beginning of a frame.
        """
        again, h2 = self._again, self._h2
        if again is None or len(data) != again.length:
            return False
        number = data[_NUMBER_AT:_HEAD_BYTES]
        stream = _READ_NUMBER(number)
        if not (
            again.pattern % (number, number) == data
            and h2.highest_inbound_stream_id < stream <= _LAST_STREAM
            and stream & 1
            and len(h2.streams) < self._places
            and again.size <= self._window.current_window_size
            and h2.state_machine.state is _OPEN
            and not h2._data_to_send  # noqa: SLF001 - what waits there goes first
        ):
            return False
        self._guard.passed(1, stream)
        self._receive(again.size)
        if (frames := self._answer(stream, again.begin(again.read))) is not None:
            self._transport.write(frames)
        self._closed.forget()
        return True

    def take(self, data: bytes, at: int, most: int) -> tuple[int, int]:
        """Answer up to `most` requests that `data` begins with from `at` on; it must be the beginning of a frame.

        Return where the first frame stands that is for h2, and how many requests were answered.
        """
        h2, taken = self._h2, 0
        if h2.state_machine.state is not _OPEN:
            return at, 0
        while taken < most and at < len(data):
            if len(h2.streams) > _LINGERING:
                _ = h2.open_inbound_streams  # where h2 forgets those that are over
            places = min(most - taken, self._most_open - len(h2.streams))
            if places <= 0:
                break
            requests, upto, size = self._find(data, at, places)
            if not requests:
                break
            self._guard.passed(len(requests), requests[-1][0])
            self._receive(size)
            for stream, known, message in requests:
                frames = self._answer(stream, known.begin(known.reader(message)))
                h2._data_to_send += frames or b""  # noqa: SLF001 - where all its frames wait
            self._closed.forget()
            taken += len(requests)
            at = upto
        return at, taken

    def _find(self, data: bytes, at: int, most: int) -> Found:
        """Find up to `most` requests that are all there, with no other frame between them.

        They are in the order of their streams. A client that makes several calls at once may send the headers of all
        before the data of any.
        """
        blocks, start, end = self._blocks, at, len(data)
        room = self._window.current_window_size
        highest = self._h2.highest_inbound_stream_id
        opened: dict[int, Recognised] = {}
        found: list[Request] = []
        whole, whole_at, whole_size, used = 0, at, 0, 0
        while end - at >= _HEAD_BYTES:
            high, low, kind, stream = _READ_HEAD(data, at)
            begins = at + _HEAD_BYTES
            at = begins + (high << 8 | low)
            if at > end:
                break
            if kind == _REQUEST_HEADERS:
                known = blocks.get(data[begins:at])
                if not known or most <= 0:
                    break
                if not (highest < stream <= _LAST_STREAM and stream & 1):
                    break
                most -= 1
                highest = stream
                opened[stream] = known
            elif kind == _LAST_DATA and (known := opened.pop(stream, None)):
                size = at - begins
                used += size
                message = data[begins + PREFIX : at]
                if (
                    not PREFIX <= size <= self._longest
                    or used > room
                    or data[begins : begins + PREFIX] != len(message).to_bytes(PREFIX, "big")
                    or (known.length is not None and known.length != size)
                ):
                    break
                found.append((stream, known, message))
                if not opened:
                    whole, whole_at, whole_size = len(found), at, used
            else:
                break
        if whole == 1 and not start and whole_at == end:
            self._note(data, *found[0][1:])
        del found[whole:]
        found.sort()
        return found, whole_at, whole_size

    def _note(self, frames: bytes, known: Recognised, message: bytes) -> None:
        """Take note of the request that `frames` are, so that it is known when all but its stream comes again."""
        if len(frames) > _LONGEST_AGAIN:
            return
        if message != self._latest:
            self._latest = message
            return
        size = PREFIX + len(message)
        data_at = len(frames) - size - _HEAD_BYTES
        between = frames[_HEAD_BYTES : data_at + _NUMBER_AT]
        parts = frames[:_NUMBER_AT], between, frames[data_at + _HEAD_BYTES :]
        pattern = b"%b".join(map(escaped, parts))
        self._again = _Again(len(frames), pattern, known.begin, known.reader(message), size)

    def _answer(self, stream: int, begun: Begun | Later) -> bytes | None:
        """Return the frames that answer a call; None if h2 does it. Streams must come in their order."""
        h2 = self._h2
        frames = None if h2.encoder.header_table.resized else self._framed(stream, begun)
        if frames is None:
            self._open(stream)
            self._take_over(stream, begun)
        else:
            self._closed.add(stream, _ANSWERED)
        h2.highest_inbound_stream_id = stream
        return frames

    def _framed(self, stream: int, begun: Begun | Later) -> bytes | None:
        """Return the answer to a call; None if it is for h2 to write."""
        h2 = self._h2
        if (reply := begun.reply) is not None:
            answer = codec.encode(reply)
            size = PREFIX + len(answer)
            if (
                size > self._fits
                or size > h2.outbound_flow_control_window
                or begun.call.reply_metadata
            ):
                return None
            h2.outbound_flow_control_window -= size
            self._connection.data_sent += size
            return framed_answer(stream, answer)
        if begun.error is None:
            return None
        refusal = refusal_block(begun.error)
        if len(refusal) > h2.max_outbound_frame_size:
            return None
        return framed_refusal(stream, refusal)

    def _open(self, number: int) -> None:
        """Have h2 open a stream on which a whole request has come."""
        stream = self._h2._begin_new_stream(number, AllowedStreamIDs.ODD)  # noqa: SLF001 - only frames lead to it
        vars(stream.state_machine).update(REQUESTED)

    def _receive(self, size: int) -> None:
        """Take in `size` bytes, for which there is room, and give the client's window back when h2 would."""
        window = self._window
        window.current_window_size -= size
        window._bytes_processed += size  # noqa: SLF001
        # h2 looks each time, but finds nothing to give back before this.
        if window._bytes_processed < window.max_window_size // 2 and window.current_window_size:  # noqa: SLF001
            return
        if increment := window.process_bytes(0):
            update = WindowUpdateFrame(0)
            update.window_increment = increment
            self._transport.write(update.serialize())

    # -- Learning ---------------------------------------------------------------------------------

    def until(self, data: bytes, at: int) -> int:
        """Return up to where h2 is to be fed: from `at`, the beginning of a frame, to the next that is for `take`.

        A request whose block was seen before is fed by itself, so that it can be learned.
        """
        self._learning = None
        start = at
        while len(data) >= at + _HEAD_BYTES:
            high, low, kind, _stream = _READ_HEAD(data, at)
            end: int = at + _HEAD_BYTES + (high << 8 | low)
            if end > len(data):
                break
            if kind == _REQUEST_HEADERS and end - at <= _LONGEST_BLOCK:
                block = data[at + _HEAD_BYTES : end]
                if block not in self._blocks:
                    self._see(block)
                elif at > start and self._blocks[block] is not False:
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
        self._places = min(self._most_open, _LINGERING + 1)
        self._longest = min(PREFIX + self._largest, h2.max_inbound_frame_size)
        self._fits = min(h2.remote_settings.initial_window_size, h2.max_outbound_frame_size)
        table = h2.decoder.header_table
        entries = table.dynamic_entries
        newest = entries[0] if entries else None
        limits = h2.decoder.max_header_list_size, h2.decoder.max_allowed_table_size
        rest = len(entries), table.maxsize, *limits
        if newest is not self._newest or rest != self._table:
            self._newest, self._table, self._again = newest, rest, None
            self._blocks.clear()
        elif block is not None and headers is not None:
            self._blocks[block] = self._calls.recognise(headers, self._transport) or False
