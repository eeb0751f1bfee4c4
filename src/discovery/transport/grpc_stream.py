"""A gRPC call of one request and many replies, over one stream of grpclib's: what `grpc_unary` is for one reply.

A reply that has to wait, for its window or because the client reads too slowly, goes the way that grpclib has for it.
"""

from __future__ import annotations

from typing import cast

import betterproto
from grpclib.protocol import Stream
from h2.connection import ConnectionInputs, H2Connection
from h2.exceptions import StreamClosedError
from h2.stream import StreamInputs

from discovery.transport import codec
from discovery.transport.bounds import Bounds
from discovery.transport.framing import (
    DATA,
    END,
    END_HEADERS,
    HEADERS,
    PREFIX,
    START,
    START_BLOCK,
    frame_head,
)
from discovery.transport.grpc_request import SPENT, MessageBuffer
from discovery.transport.grpc_unary import UnaryExchange
from discovery.transport.once import Once
from discovery.transport.pipeline import Call, Pipeline


class StreamExchange(UnaryExchange):
    """One request and the replies to it."""

    __slots__ = ("_call", "_pipeline")

    def __init__(
        self,
        stream: Stream,
        message_type: type[betterproto.Message],
        bounds: Bounds,
        *,
        pipeline: Pipeline,
        call: Call,
    ) -> None:
        super().__init__(stream, message_type, bounds)
        self._pipeline = pipeline
        self._call = call

    async def receive(self) -> betterproto.Message:
        """Return the one message of the request, and give back what it took to wait for it; see `received`."""
        message = await super().receive()
        stream, buffer = self._stream, cast("MessageBuffer", self._stream.buffer)
        if buffer.ended:
            stream.connection.ack(cast("int", stream.id), buffer.unacked_size())
            stream.buffer = SPENT
        return message

    async def answer(self) -> None:
        """Have the pipeline answer, send each of its replies, then say that all went well."""
        replies = self._pipeline.stream(self._call, self.receive)
        try:
            async for reply in replies:
                data = framed(reply)
                if not self._put(data):
                    await self._start()
                    await self._stream.send_data(data)
                del reply, data  # the next ones may be long in coming
        finally:
            await replies.aclose()
        await self._start()
        await self._stream.send_headers(list(END), end_stream=True)

    def _put(self, data: bytes) -> bool:
        """Send a message if nothing has to be waited for; return whether it was."""
        stream, connection = self._stream, self._stream.connection
        if not connection.write_ready.is_set():
            return False
        h2, number = stream._h2_connection, cast("int", stream.id)  # noqa: SLF001 - grpclib cannot send without waiting
        if number not in h2.streams:
            raise StreamClosedError(number)
        if not put_message(h2, number, data, first=not self._started):
            return False
        self._started = True
        stream.data_sent += len(data)
        connection.data_sent += len(data)
        connection.data_send_process()
        connection.flush()
        return True

    async def _start(self) -> None:
        if not self._started:
            await self._stream.send_headers(list(START))
            self._started = True


def _framed(message: betterproto.Message) -> bytes:
    data = codec.encode(message)
    return len(data).to_bytes(PREFIX, "big") + data


framed = Once(_framed)
"""Return a message as gRPC sends it."""


def put_message(h2: H2Connection, number: int, data: bytes, *, first: bool) -> bool:
    """Have `h2` send a message on the stream `number`, if it can right now; return whether it can.

    It does what `send_data` does to the states and windows of the connection and the stream, and before the `first`
    message what `send_headers` does: see `put_answer`.

    Raises:
        ProtocolError: the connection or the stream is over, or its answer has begun.
    """
    size = len(data)
    if size > min(h2.local_flow_control_window(number), h2.max_outbound_frame_size):
        return False
    if first and h2.encoder.header_table.resized:
        return False
    stream, unsent = h2.streams[number], h2._data_to_send  # noqa: SLF001 - where all its frames wait
    if first:
        h2.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        stream.state_machine.process_input(StreamInputs.SEND_HEADERS)
        unsent += frame_head(len(START_BLOCK), HEADERS, END_HEADERS, number)
        unsent += START_BLOCK
    h2.state_machine.process_input(ConnectionInputs.SEND_DATA)
    stream.state_machine.process_input(StreamInputs.SEND_DATA)
    stream.outbound_flow_control_window -= size
    h2.outbound_flow_control_window -= size
    unsent += frame_head(size, DATA, 0, number)
    unsent += data
    return True
