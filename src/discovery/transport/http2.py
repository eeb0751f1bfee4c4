"""One HTTP/2 connection: grpclib's protocol, and what a public server owes its clients beyond it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import cast

from grpclib.config import Configuration
from grpclib.protocol import (
    AckedData,
    Buffer,
    H2Protocol,
    UnackedData,
)
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, RequestReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from discovery.clock import Clock
from discovery.errors import DeadlineExceededError, TooLargeError
from discovery.transport.begun import Begun, Later
from discovery.transport.bounds import Bounds
from discovery.transport.connections import Connections, Spoken
from discovery.transport.floods import FloodGuard, bound_closed_streams, bound_header_table
from discovery.transport.frugal import FrugalConnection, FrugalH2, FrugalProcessor, StreamHandler
from discovery.transport.limits import Deadline
from discovery.transport.shortcut import Calls, Headers, ShortCut

_log = logging.getLogger(__name__)

# RFC 9113 section 6.8: a server that is about to stop names the highest stream id first, and the real one last.
_NO_LIMIT = H2Connection.HIGHEST_ALLOWED_STREAM_ID

# Of most clients. Some begin with 3: they have a short cut one request earlier.
_FIRST_STREAM = 1

GRPC_CONFIG = Configuration(
    # Room for a request of the largest size and the start of the next; more would be a hostile client's memory.
    http2_stream_window_size=128 * 1024,
    http2_connection_window_size=1024 * 1024,
    # In seconds: while a stream is open, a peer that is gone is noticed within 30.
    _keepalive_time=15,
    _keepalive_timeout=10,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=10,
).__for_server__()

# Unlike grpclib's own server, check inbound headers as RFC 9113 prescribes: without a :method it would answer nothing.
H2_CONFIG = H2Configuration(
    client_side=False,
    header_encoding="ascii",
    validate_inbound_headers=True,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class RequestBuffer(Buffer):
    """What a stream's request sends, read in pieces whose size is known.

    grpclib's own would read as much as a message's prefix says, up to 4 GiB, wait for it for ever, and take an empty
    DATA frame for the end.
    """

    def __init__(
        self, acknowledge: Callable[[int], None], bounds: Bounds, deadline: float | None
    ) -> None:
        """`acknowledge` opens the window again by a number of bytes; `deadline` is on `time.monotonic()`."""
        self._ack_callback = acknowledge
        self._eof = False
        self._acked_size = 0
        self._bounds = bounds
        self.deadline = deadline

    @cached_property
    def _unacked(self) -> asyncio.Queue[UnackedData]:  # type: ignore[override]
        return asyncio.Queue()

    @cached_property
    def _acked(self) -> deque[AckedData]:  # type: ignore[override]
        return deque()

    def add(self, data: bytes, ack_size: int) -> None:
        """Take in a DATA frame: see grpclib."""
        if ack_size:
            super().add(data, ack_size)

    async def read(self, size: int) -> bytes:
        """Return the next `size` bytes; see grpclib.

        Raises:
            TooLargeError: no request is that large.
            DeadlineExceededError: they did not come in the time that a client may pause.
        """
        most = self._bounds.request_bytes
        if size > most:
            raise TooLargeError(f"the request is {size} bytes long; at most {most}")
        try:
            async with asyncio.timeout(self._bounds.request_seconds):
                data: bytes = await super().read(size)
        except TimeoutError as error:
            raise DeadlineExceededError("the request took too long to arrive") from error
        return data


class Http2Connection(H2Protocol):
    """A client's connection, from its preface to its end."""

    speaks: Spoken = "http/2"

    handler: StreamHandler

    def __init__(
        self,
        handler: StreamHandler,
        connections: Connections,
        bounds: Bounds,
        clock: Clock,
        calls: Calls | None = None,
    ) -> None:
        """Take the short cut for `calls`, if there are any to take it for."""
        super().__init__(handler, GRPC_CONFIG, H2_CONFIG)
        self._calls = calls
        self._short_cut: ShortCut | None = None
        self._connections = connections
        self._bounds = bounds
        self._guard = FloodGuard(clock, self._is_answered, bounds.floods())
        self._stalled = Deadline(self._end_stalled)
        self._leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: see asyncio.Protocol. grpclib does the same, with connections and streams that are larger."""
        self._transport = cast("asyncio.Transport", transport)
        h2 = FrugalH2(H2_CONFIG)
        bound_closed_streams(h2)
        self.connection = FrugalConnection(h2, self._transport, config=GRPC_CONFIG)
        self.processor = FrugalProcessor(self.handler, self.connection, self._go_away_if_leaving)
        h2.initiate_connection()
        h2.increment_flow_control_window(
            GRPC_CONFIG.http2_connection_window_size - h2.local_settings.initial_window_size
        )
        h2.update_settings(
            {
                SettingCodes.INITIAL_WINDOW_SIZE: GRPC_CONFIG.http2_stream_window_size,
                SettingCodes.MAX_CONCURRENT_STREAMS: self._bounds.streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: self._bounds.header_bytes,
            }
        )
        self.connection.flush()
        self.connection.initialize()
        self._connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End: see asyncio.Protocol."""
        self._connections.discard(self)
        self._stalled.close()
        self._short_cut = None  # it holds on to the transport, which holds on to this
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes. A client that breaks the protocol, or floods it, is told so (GOAWAY) and disconnected."""
        try:
            if (short_cut := self._short_cut or self._open_short_cut()) is None:
                self._feed(data)
            elif (
                not self._guard.unfinished
                and self.connection.write_ready.is_set()
                and short_cut.repeat(data)
            ):
                return
            else:
                self._feed_the_rest(data, short_cut)
        except ProtocolError as error:
            self._end(error.error_code, str(error))
        except UnicodeDecodeError:
            self._end(ErrorCodes.PROTOCOL_ERROR, "a header beyond ASCII")
        self._watch_for_stall()

    def _open_short_cut(self) -> ShortCut | None:
        """Have a short cut if that may be, once a second request has come: many a connection has but one."""
        if self._calls is not None and self._h2.highest_inbound_stream_id > _FIRST_STREAM:
            self._short_cut = ShortCut(
                self.connection,
                self._guard,
                self._calls,
                self._take_over,
                self._bounds.request_bytes,
            )
        return self._short_cut

    def _feed_the_rest(self, data: bytes, short_cut: ShortCut) -> None:
        """Feed h2 with what the short cut leaves.

        The short cut takes as many requests of one read as may be open at once: a client that has sent more before it
        had any answer has broken that limit, and others are waiting.
        """
        at, left, closing = 0, self._bounds.streams, self._transport.is_closing
        while at < len(data) and not closing():
            if self._guard.unfinished:
                upto = at + (self._guard.awaited or len(data))
            elif not self.connection.write_ready.is_set():
                upto = len(data)
            else:
                at, taken = short_cut.take(data, at, left)
                left -= taken
                if taken:
                    continue
                upto = short_cut.until(data, at)
            short_cut.fed(self._feed(data[at:upto]))
            at = upto
        if not closing():
            self.connection.flush()

    def _take_over(self, number: int, begun: Begun | Later) -> None:
        """Have a stream that h2 has opened take over a call."""
        stream = self.connection.create_stream(stream_id=number)
        cast("Calls", self._calls).conclude(stream, begun, self.processor.register(stream))

    def _feed(self, data: bytes) -> Headers | None:
        """Feed h2, and act on what comes of it. Return the headers of the last request that has begun with it."""
        headers = None
        for piece in self._guard.pieces(data, self.connection.data_sent):
            for event in self._events(piece):
                self._guard.saw(event)
                self.processor.process(event)
                if isinstance(event, RequestReceived):
                    headers = cast("Headers", event.headers)
            if not self.connection.is_closing():
                self.connection.flush()
        return headers

    def _events(self, piece: bytes) -> Sequence[Event]:
        if self.connection.is_closing():
            return ()
        events = self.connection.feed(piece)
        bound_header_table(self._h2)
        self.connection.flush()
        return events

    def _is_answered(self, stream_id: int) -> bool:
        """Tell whether some of a stream's answer was sent; one that is gone from here has a handler that finished."""
        stream = self.processor.streams.get(stream_id)
        return stream is None or stream.data_sent > 0

    def _watch_for_stall(self) -> None:
        """Give a client that stopped within a frame or a header block some time to go on."""
        if not self._guard.unfinished:
            self._stalled.disarm()
        elif not self._stalled.armed:
            self._stalled.arm(self._bounds.request_seconds)

    def _end_stalled(self) -> None:
        self._end(ErrorCodes.PROTOCOL_ERROR, "a frame that does not end")

    def _end(self, code: ErrorCodes, why: str) -> None:
        _log.info("closing an HTTP/2 connection: %s", why)
        if self.connection.is_closing():
            return
        if self._h2.state_machine.state is not ConnectionState.CLOSED:
            self._h2.close_connection(code)
        self.connection.flush()
        self.processor.close(why)

    @property
    def _h2(self) -> H2Connection:
        return self.connection._connection  # noqa: SLF001 - grpclib keeps it to itself

    def shutdown(self) -> None:
        """Tell the client to open no more streams here, once those it has are over.

        Not before, because many clients take the connection for closed when they are told. Streams that are opened
        meanwhile are still answered.
        """
        self._leaving = True
        if not self.processor.streams:
            self._go_away_if_leaving()

    def insist(self) -> None:
        """Tell the client now, whatever streams it has. Those of grpclib give up on them, others finish them."""
        self._go_away_if_leaving()

    def shut(self) -> None:
        """Say which streams were seen, and close."""
        self._end(ErrorCodes.NO_ERROR, "the server stopped")

    def _go_away_if_leaving(self) -> None:
        if self._leaving and not self.connection.is_closing():
            self._leaving = False
            self._transport.write(GoAwayFrame(0, last_stream_id=_NO_LIMIT).serialize())
