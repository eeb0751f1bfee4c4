"""An HTTP/2 client that may break every rule: the `h2` library on a socket, frame by frame."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import h2.events
from google.rpc import error_details_pb2, status_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import Frame, GoAwayFrame

from tests.integration.support import LOOPBACK, PATIENCE

Header = tuple[str, str] | tuple[bytes, bytes]

PATH = "/coral.discovery.v1.DiscoveryService/"


def request_headers(method: str = "Health", *more: Header) -> list[Header]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", PATH + method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]


def framed(message: bytes, *, compressed: int = 0, size: int | None = None) -> bytes:
    """Return `message` with gRPC's length prefix, or with another than its own."""
    return struct.pack(">BI", compressed, len(message) if size is None else size) + message


@dataclass(slots=True)
class Answer:
    """What came back on one stream so far."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None
    """The code of the reset that came instead of an end."""

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    @property
    def status(self) -> int | None:
        """The gRPC status, if there was one."""
        value = self.headers.get("grpc-status")
        return None if value is None else int(value)

    @property
    def details(self) -> status_pb2.Status:
        encoded = self.headers.get("grpc-status-details-bin", "")
        padding = "=" * (-len(encoded) % 4)
        return status_pb2.Status.FromString(base64.b64decode(encoded + padding))

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo, or nothing."""
        info = error_details_pb2.ErrorInfo()
        for detail in self.details.details:
            detail.Unpack(info)
        return str(info.reason)


class RawConnection:
    """One connection. Whatever it waits for must come within PATIENCE."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answers: defaultdict[int, Answer] = defaultdict(Answer)
        self._pongs: set[bytes] = set()
        self._pings = 0
        self.goaways: list[GoAwayFrame] = []
        self.lost = False
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        # h2 takes the connection for over at a GOAWAY, but a graceful one comes before the last answers.
        self.h2._frame_dispatch_table[GoAwayFrame] = self._note_goaway

    def begin(self, headers: Sequence[Header], *, end: bool = False) -> int:
        """Open a stream, and return its id. Nothing is sent before `send`."""
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, headers, end_stream=end)
        return stream_id

    def data(self, stream_id: int, data: bytes, *, end: bool = True) -> None:
        self.h2.send_data(stream_id, data, end_stream=end)

    def request(self, method: str, message: bytes, *more: Header) -> int:
        """Make a whole request, and return the id of its stream."""
        stream_id = self.begin(request_headers(method, *more))
        self.data(stream_id, framed(message))
        return stream_id

    async def send(self, raw: bytes = b"") -> None:
        """Send in one piece whatever was begun, and then `raw`."""
        self._writer.write(self.h2.data_to_send() + raw)
        await self._writer.drain()

    async def answer(self, stream_id: int) -> Answer:
        """Return the answer once it is over."""
        answer = self._answers[stream_id]
        await self._receive_until(lambda: answer.over)
        assert answer.over, "the connection was closed without an answer"
        return answer

    async def answer_or_end(self, stream_id: int) -> None:
        """Return once the answer is over, or the connection, which must not end without a GOAWAY."""
        answer = self._answers[stream_id]
        await self._receive_until(lambda: answer.over)
        assert answer.over or self.goaways

    async def seen(self) -> None:
        """Return once the server has taken in what was sent: it answers a PING that came after."""
        self._pings += 1
        ping = self._pings.to_bytes(8, "big")
        self.h2.ping(ping)
        await self.send()
        await self._receive_until(lambda: ping in self._pongs)
        assert ping in self._pongs, "the connection was closed"

    async def closed_by_server(self) -> None:
        await self._receive_until(lambda: False)

    async def sent_away(self) -> None:
        await self._receive_until(lambda: bool(self.goaways))
        assert self.goaways, "the connection was closed without a GOAWAY"

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):  # the server was first
            await self._writer.wait_closed()

    async def _receive_until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done() and not self.lost:
                await self._receive()

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(65536)
        except ConnectionError:
            data = b""
        self.lost = not data
        for event in self.h2.receive_data(data) if data else ():
            self._take(event)
        with suppress(ConnectionError):  # what is acknowledged came with the connection's end
            await self.send()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._answers[event.stream_id].headers.update(dict(event.headers))  # type: ignore[arg-type]
            case h2.events.DataReceived():
                self._answers[event.stream_id].body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self._answers[event.stream_id].ended = True
            case h2.events.StreamReset():
                self._answers[event.stream_id].reset = int(event.error_code)
            case h2.events.PingAckReceived():
                self._pongs.add(event.ping_data)

    def _note_goaway(self, frame: Frame) -> tuple[list[Frame], list[Any]]:
        assert isinstance(frame, GoAwayFrame)
        self.goaways.append(frame)
        return [], []


@asynccontextmanager
async def raw_connection(port: int) -> AsyncIterator[RawConnection]:
    connection = RawConnection(*await asyncio.open_connection(LOOPBACK, port))
    connection.h2.initiate_connection()
    await connection.send()
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def raw_socket(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that says nothing by itself."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):  # the server was first
            await writer.wait_closed()
