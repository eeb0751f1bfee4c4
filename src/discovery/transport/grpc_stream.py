"""A gRPC call of one request and many replies, over one stream of grpclib's: what `grpc_unary` is for one reply.

A reply that has to wait, for its window or because the client reads too slowly, goes the way that grpclib has for it.
A call that waits for its next reply has no task meanwhile, where the replies allow that: see Vigil.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
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
from discovery.transport.streamed import StreamedCall


class StreamExchange(UnaryExchange):
    """One request and the replies to it."""

    __slots__ = ("_call", "_pipeline", "replies")

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
        self.replies: StreamedCall | None = None
        """Those of the call, once it has begun."""

    async def receive(self) -> betterproto.Message:
        """Return the one message of the request, and give back what it took to wait for it; see `received`."""
        message = await super().receive()
        stream, buffer = self._stream, cast("MessageBuffer", self._stream.buffer)
        if buffer.ended:
            stream.connection.ack(cast("int", stream.id), buffer.unacked_size())
            stream.buffer = SPENT
        return message

    async def carry_out(self, vigil: Vigil) -> None:
        """Send replies until the next one has to be waited for, or there are no more; see `run`."""
        await self.run(partial(self._answer, vigil), self._call)

    async def _answer(self, vigil: Vigil) -> None:
        """Have the pipeline answer, send each of its replies, then say that all went well."""
        if self.replies is None:
            self.replies = self._pipeline.stream(self._call, self.receive, vigil)
        try:
            if vigil.cancelled:
                await self.replies.cancel()
            await self.replies.begin()
            while self._call.deadline is not None or not self.replies.wait(vigil):
                data = framed(await anext(self.replies))
                if not self._put(data):
                    await self._start()
                    await self._stream.send_data(data)
                del data  # the next one may be long in coming
        except StopAsyncIteration:
            await self._start()
            await self._stream.send_headers(list(END), end_stream=True)
        except BaseException:
            await self.replies.aclose()
            raise

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


class Vigil:
    """What carries a call of many replies out: a task, and none while it waits for the next reply.

    A task and the frames of what it waits in take more than all else that a watch needs, and nearly all of its life is
    waiting. To whoever may cancel the call, this is its task (Cancellable). It is called to go on.
    """

    __slots__ = ("_again", "_cancels", "_exchange", "_over", "_task")

    def __init__(self, exchange: StreamExchange, over: Callable[[], object]) -> None:
        """Begin `exchange`; call `over` when all is done."""
        self._exchange = exchange
        self._over: Callable[[], object] | None = over
        self._cancels = 0
        self._again = False
        self._task: asyncio.Task[None] | None = None
        self()

    def __call__(self) -> None:
        """Go on: there may be another reply."""
        if self._task is not None:
            self._again = True
        elif not self.done():
            self._again = False
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._exchange.carry_out(self))
            self._task.add_done_callback(self._rest)

    @property
    def cancelled(self) -> bool:
        """Whether the call is to end now."""
        return self._cancels > 0

    def done(self) -> bool:
        """Return whether the call is over."""
        return self._over is None

    def cancel(self) -> None:
        """End the call."""
        self._cancels += 1
        if self._task is not None:
            self._task.cancel()
        else:
            self()

    def uncancel(self) -> int:
        """Take one `cancel` back; return how many are left."""
        self._cancels -= 1
        if self._task is not None:
            self._task.uncancel()
        return self._cancels

    def _rest(self, _task: asyncio.Task[None]) -> None:
        self._task = None
        replies = self._exchange.replies
        if replies is None or replies.over:
            over, self._over = self._over, None
            del self._exchange  # which leads back to this
            if over is not None:
                over()
        elif self._again or self._cancels:  # meanwhile, or before the task had begun
            self()


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
