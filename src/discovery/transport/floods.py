"""HTTP/2 clients that keep a server busy without asking it for anything, and how much of that is too much.

What is guarded against: rapid reset (CVE-2023-44487) and the resets that a client makes us send (CVE-2025-8671); floods
of PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty and tiny DATA, unknown frames (CVE-2019-9511 to 9518) and
CONTINUATION (CVE-2024-27316). `h2` itself limits concurrent streams, a header list once it is decoded, a frame's size
and the CONTINUATIONs of one block to 64; it acts on everything else, at 6 to 45 microseconds for a frame of 9 bytes and
100 for a reset request. One read of 256 KiB full of those would take the whole loop for 0.1 to 1.4 seconds, before any
event says so: so frames are counted before `h2` sees them, and it is fed in small pieces.

The allowance is for work, not for time: an honest client sends a handful of frames for each request that it makes and
for each answer that it gets, however fast. grpc-go follows each answer on a quick network by a PING, to measure it, and
every client ends a watch by a reset. So requests and answers earn what such frames spend, a reset of a stream that was
answered is free, and only what is spent beyond that is bounded by time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import DenialOfServiceError, FrameTooLargeError
from h2.stream import StreamClosedBy

from discovery.clock import MICROSECONDS, Clock

PIECE = 4096
"""Bytes that `h2` is fed at once: room for some 180 reset requests, the dearest thing there is."""

# RFC 7541 section 4.2 and RFC 9113 section 6.5.2: a client may allow us more than 4096 bytes, which we need not take.
_HEADER_TABLE = 4096
# Frames for streams that are over come from the last moments before the client knew: of those it had open then.
_CLOSED_STREAMS = 200

_PREFACE = 24
_HEAD = 9
_MAX_FRAME = 16_384
"""RFC 9113 section 6.5.2: what is agreed on unless a server says otherwise, which this one does not."""
_DATA, _HEADERS, _CONTINUATION = 0x0, 0x1, 0x9
_END_HEADERS = 0x4


class FloodError(DenialOfServiceError):
    """A client made too much work. Its connection is to end with GOAWAY and the `error_code`, ENHANCE_YOUR_CALM."""


class Allowance(NamedTuple):
    """How much may be spent at once, and how fast it comes back."""

    burst: float
    per_second: float


class FloodLimits(NamedTuple):
    """How much work a connection may make. By the defaults, several times what any client was seen to need.

    Seen for each unary call, besides its HEADERS and DATA: a PING and a WINDOW_UPDATE by grpc-go 1.84, two
    WINDOW_UPDATEs by grpcio 1.85, a RST_STREAM by Node 20, nothing by h2load 1.52. A flood of the cheap frames costs us
    15 ms once and 1.5 ms a second, one of resets 50 ms once and 50 ms a second.
    """

    frames: Allowance = Allowance(1000, 100)
    """For every frame but DATA that carries something."""
    frames_per_request: float = 10
    """What a new stream earns of it."""
    bytes_per_frame: int = 32
    """How many bytes of DATA, sent by us, earn one frame more."""
    resets: Allowance = Allowance(200, 200)
    """For resets of streams that had no answer yet: twice what can be open at once, and as many each second."""
    resets_per_request: float = 0.5
    """What a new stream earns of it: hedged calls, of which one is always cancelled, stay free."""
    tiny_data: int = 256
    """Bytes below which DATA counts as a frame: a whole request comes in at most that many larger ones."""
    header_block: int = 64 * 1024
    """Bytes of one request's compressed headers. `h2` would keep a megabyte of them before it decodes any."""


DEFAULT_LIMITS = FloodLimits()


def _never(_stream: int) -> bool:
    return False


def _is_refusal(reset: StreamReset) -> bool:
    """Tell whether we reset a stream that was one too many, which nothing has answered: see `refusals`."""
    return not reset.remote_reset and reset.error_code is ErrorCodes.REFUSED_STREAM


class _Bucket:
    """A token bucket: full at first."""

    __slots__ = ("_allowance", "tokens")

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self.tokens = allowance.burst

    def earn(self, tokens: float) -> None:
        self.tokens = min(self._allowance.burst, self.tokens + tokens)

    def wait(self, seconds: float) -> None:
        self.earn(seconds * self._allowance.per_second)

    def spend(self, tokens: float, what: str) -> None:
        self.tokens -= tokens
        if self.tokens < 0:
            raise FloodError(f"too many {what}")


class FloodGuard:
    """Watches one connection, from its preface on. It has no I/O: it is handed bytes, and the events they led to."""

    def __init__(
        self,
        clock: Clock,
        answered: Callable[[int], bool] = _never,
        limits: FloodLimits = DEFAULT_LIMITS,
    ) -> None:
        """`answered` tells of the number of an open stream whether any of its answer was sent."""
        self._clock = clock
        self._answered = answered
        self._limits = limits
        self._frames = _Bucket(limits.frames)
        self._resets = _Bucket(limits.resets)
        self._looked_us = clock.now().monotonic_us
        self._sent = 0
        self._skip = _PREFACE
        self._head = b""
        self._highest_stream = 0
        self._unaccounted = 0
        """Requests that have not earned anything yet: nothing is spent before they have."""
        self._block = 0
        self._in_block = False
        self.unfinished = True
        """Whether the client stopped in the middle of a frame, or of a request's headers."""

    @property
    def awaited(self) -> int:
        """How many bytes of what the client stopped in are known to come: of a frame, or of its head."""
        return self._skip or (_HEAD - len(self._head) if self._head else 0)

    def pieces(self, data: bytes, sent: int) -> Iterator[bytes]:
        """Yield `data` in pieces to feed to `h2`, each accounted for.

        `sent` is how many bytes of DATA have been sent on this connection so far.

        Raises:
            FloodError: the client may not send the next piece.
        """
        self._refill(sent)
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            self._account_for(piece)
            yield piece

    def passed(self, requests: int, stream: int) -> None:
        """Note as many requests, up to `stream`, of one HEADERS and one DATA frame, which `h2` is not fed."""
        self._highest_stream = stream
        self._unaccounted += requests

    def saw(self, event: Event) -> None:
        """Account for an event of `h2`, before it is acted on: a stream's reset, by the client or for what it sent.

        A reset after some of the answer is free: that work was asked for. Streams that are over already have no such
        event when they are reset, and cost a frame only.

        Raises:
            FloodError: there were too many without an answer.
        """
        if isinstance(event, StreamReset) and (
            _is_refusal(event) or not self._answered(event.stream_id)
        ):
            self._resets.spend(1, "streams reset before they were answered")

    def _refill(self, sent: int) -> None:
        now_us = self._clock.now().monotonic_us
        seconds = (now_us - self._looked_us) / MICROSECONDS
        self._frames.wait(seconds)
        self._resets.wait(seconds)
        limits, requests = self._limits, self._unaccounted
        # As if all of the requests' DATA were tiny: that is still less than they earn.
        self._frames.earn(requests * (limits.frames_per_request - 1))
        self._frames.earn((sent - self._sent) / limits.bytes_per_frame)
        self._resets.earn(requests * limits.resets_per_request)
        self._unaccounted = 0
        self._looked_us, self._sent = now_us, sent

    def _account_for(self, piece: bytes) -> None:
        """Find the frames' heads in `piece`, which may begin and end anywhere, and account for each."""
        position = self._skip
        while len(self._head) + len(piece) - position >= _HEAD:
            head = (self._head + piece[position : position + _HEAD])[:_HEAD]
            position += _HEAD - len(self._head)
            self._head = b""
            length = int.from_bytes(head[:3], "big")
            # The first bit is to be ignored: RFC 9113 section 4.1.
            stream = int.from_bytes(head[5:], "big") & H2Connection.HIGHEST_ALLOWED_STREAM_ID
            self._charge(head[3], head[4], stream, length)
            position += length
        if position < len(piece):
            self._head += piece[position:]
        self._skip = max(0, position - len(piece))
        self.unfinished = bool(self._skip or self._head or self._in_block)

    def _charge(self, kind: int, flags: int, stream: int, length: int) -> None:
        if length > _MAX_FRAME:  # h2 says so too, but once it has all of it
            raise FrameTooLargeError(f"a frame of {length} bytes; at most {_MAX_FRAME}")
        if kind in {_HEADERS, _CONTINUATION}:
            self._measure_block(kind, flags, length)
        if kind == _HEADERS and stream > self._highest_stream:
            self._highest_stream = stream
            self._frames.earn(self._limits.frames_per_request)
            self._resets.earn(self._limits.resets_per_request)
        elif kind != _DATA or length < self._limits.tiny_data:
            self._frames.spend(1, "frames that ask for nothing")

    def _measure_block(self, kind: int, flags: int, length: int) -> None:
        self._block = length if kind == _HEADERS else self._block + length
        self._in_block = not flags & _END_HEADERS
        if self._block > self._limits.header_block:
            raise FloodError(f"headers of more than {self._limits.header_block} bytes")


# -- What h2 keeps for as long as a connection lives ----------------------------------------------


def bound_closed_streams(connection: H2Connection) -> None:
    """Have a new `connection` remember its latest closed streams only, at least 200 of them.

    `h2` remembers 65,536, at 176 bytes each: a colony that renews its lease each minute would take 250 KB more each
    day.
    """
    connection._closed_streams = ClosedStreams()  # noqa: SLF001 - h2 has no setting for it


class ClosedStreams(dict[int, StreamClosedBy | None]):
    """What h2 has a SizeLimitDict for, which takes three times as long to add a stream."""

    __slots__ = ()

    add = dict.__setitem__
    """Adds a stream, for who will `forget`."""

    def __setitem__(self, stream: int, by: StreamClosedBy | None) -> None:
        self.add(stream, by)
        self.forget()

    def forget(self) -> None:
        """Forget the earliest, if there are too many."""
        if len(self) >= 2 * _CLOSED_STREAMS:
            for old in tuple(islice(self, len(self) - _CLOSED_STREAMS)):
                del self[old]


def bound_header_table(connection: H2Connection) -> None:
    """Take back what a client's SETTINGS did to the table of response headers: call it after each.

    A client may let that table grow to 4 GiB, and `hpack` searches it from end to end for each header: after 3000
    answers with error messages, one took 9 ms instead of 1.4, and it was to become ever more. Calling it twice does not
    hurt.
    """
    # Not `min`: `hpack` forgets to tell the client of a change when the size is then set to what it is.
    if connection.encoder.header_table_size > _HEADER_TABLE:  # noqa: PLR1730
        connection.encoder.header_table_size = _HEADER_TABLE
