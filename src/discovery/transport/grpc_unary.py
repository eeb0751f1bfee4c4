"""A gRPC call of one request and one reply, over one stream of grpclib's.

grpclib writes headers, message and trailers one by one, each with a system call of its own, and takes what it read
apart into several objects first. Here an answer that fits leaves whole, and a request that came whole is taken whole;
whatever else may happen goes the way that grpclib has for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import cast

import betterproto
from grpclib.encoding.base import GRPC_CONTENT_TYPE
from grpclib.metadata import encode_metadata
from grpclib.protocol import Peer, Stream
from grpclib.stream import recv_message
from h2.connection import ConnectionInputs, H2Connection
from h2.exceptions import ProtocolError
from h2.stream import StreamState

from discovery.errors import (
    DiscoveryError,
    MalformedMessageError,
    UnimplementedError,
)
from discovery.models import plain_address
from discovery.transport import codec
from discovery.transport.bounds import Bounds
from discovery.transport.deadlines import overdue, until
from discovery.transport.framing import END, PREFIX, START, framed_answer, refusal_of
from discovery.transport.grpc_codec import MessageCodec
from discovery.transport.grpc_request import MessageBuffer
from discovery.transport.pipeline import Call
from discovery.transport.repeats import read_again
from discovery.transport.stream_states import ANSWER, ANSWERED

_CODEC = MessageCodec()


def is_grpc_request(fields: Mapping[str, str]) -> bool:
    """Return whether grpclib would take a request's headers for a call in the binary format."""
    content_type, _, subtype = fields.get("content-type", "").partition("+")
    return (
        fields.get(":method") == "POST"
        and content_type == GRPC_CONTENT_TYPE
        and subtype in {"", _CODEC.__content_subtype__}
        and fields.get("te") == "trailers"
    )


def peer_address(peer: Peer) -> str | None:
    """Return the caller's IP address; a unix socket's peer name is a string, and no address."""
    name = peer.addr()
    return _plain_address(name[0]) if isinstance(name, tuple) else None


@lru_cache(maxsize=4096)
def _plain_address(address: str) -> str | None:
    """Return `plain_address`: every call of a connection asks for the same."""
    return plain_address(address)


class UnaryExchange:
    """One request and its answer."""

    __slots__ = ("_bounds", "_message_type", "_started", "_stream")

    def __init__(
        self, stream: Stream, message_type: type[betterproto.Message], bounds: Bounds
    ) -> None:
        self._stream = stream
        self._message_type = message_type
        self._bounds = bounds
        self._started = False

    async def run(
        self, carry_out: Callable[[], Awaitable[betterproto.Message | None]], call: Call
    ) -> None:
        """Have `call` carried out until its deadline; send what that returns, if anything, or tell what goes wrong."""
        try:
            async with until(call.deadline):
                if (message := await carry_out()) is not None:
                    data = codec.encode(message)
                    if call.reply_metadata or not self._send_at_once(data):
                        await self._send(data, call.reply_metadata)
        except DiscoveryError as error:
            await self._refuse(error)
        except TimeoutError:
            await self._refuse(overdue())
        except ProtocolError:
            pass  # the client went away

    async def receive(self) -> betterproto.Message:
        """Return the one message of the request; see `received`."""
        data = cast("MessageBuffer", self._stream.buffer).take()
        if data is not None:
            return read_again(data, self._message_type, codec.decode)
        return await received(recv_message(self._stream, _CODEC, self._message_type))

    async def _send(self, data: bytes, metadata: Mapping[str, str]) -> None:
        data = len(data).to_bytes(PREFIX, "big") + data
        async with asyncio.timeout(self._bounds.request_seconds):  # a client may take nothing
            await self._stream.send_headers([*START, *encode_metadata(metadata)])
            self._started = True
            await self._stream.send_data(data)
            await self._stream.send_headers(list(END), end_stream=True)

    def _send_at_once(self, data: bytes) -> bool:
        """Send the answer if nothing has to be waited for; return whether it was."""
        stream, connection = self._stream, self._stream.connection
        if not connection.write_ready.is_set():
            return False
        h2, number = stream._h2_connection, cast("int", stream.id)  # noqa: SLF001 - grpclib cannot send a whole answer
        if not put_answer(h2, number, data):
            return False
        connection._transport.write(h2.data_to_send())  # noqa: SLF001
        stream.data_sent += PREFIX + len(data)
        connection.data_sent += PREFIX + len(data)
        connection.data_send_process()
        return True

    async def _refuse(self, error: DiscoveryError) -> None:
        stream = self._stream
        if stream._transport.is_closing():  # noqa: SLF001 - grpclib has no other way to it
            return
        start = () if self._started else START
        try:
            await stream.send_headers([*start, *refusal_of(error)], end_stream=True)
            if stream.closable:
                stream.reset_nowait()
        except ProtocolError:
            pass  # the client went away


async def received(coming: Awaitable[betterproto.Message | None]) -> betterproto.Message:
    """Return the one message of a request, which grpclib is about to return.

    Raises:
        MalformedMessageError: there is none, it ends early, or it does not follow its schema.
        TooLargeError, DeadlineExceededError: see RequestBuffer.
        UnimplementedError: it is compressed.
    """
    try:
        message = await coming
    except NotImplementedError as error:
        raise UnimplementedError("compressed requests are not supported over gRPC") from error
    except AssertionError as error:  # how grpclib says that the stream ended early
        raise MalformedMessageError("the request ended before its message did") from error
    if message is None:
        raise MalformedMessageError("the request has no message")
    return message


def put_answer(h2: H2Connection, number: int, message: bytes) -> bool:
    """Have `h2` send a whole answer on the stream `number`, if it can right now; return whether it can.

    It does what `send_headers`, `send_data` and `send_headers` once more do to the states and windows of the connection
    and the stream. The header blocks are always the same, and need no table: only a change of its size, which the next
    block has to begin with, is left to `h2`.

    Raises:
        ProtocolError: the connection or the stream is over, or its answer has begun.
    """
    size = PREFIX + len(message)
    stream = h2._get_stream_by_id(number)  # noqa: SLF001 - h2 has no other way to it that says why there is none
    room = min(h2.outbound_flow_control_window, stream.outbound_flow_control_window)
    if size > min(room, h2.max_outbound_frame_size) or h2.encoder.header_table.resized:
        return False
    h2.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
    machine = stream.state_machine
    if machine.state is StreamState.HALF_CLOSED_REMOTE and not machine.headers_sent:
        vars(machine).update(ANSWERED)
    else:
        for step in ANSWER:
            machine.process_input(step)
    stream.outbound_flow_control_window -= size
    h2.outbound_flow_control_window -= size
    h2._data_to_send += framed_answer(number, message)  # noqa: SLF001 - where all its frames wait
    return True
