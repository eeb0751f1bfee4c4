"""gRPC over grpclib: its streams to the pipeline, its words for our errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import betterproto
from grpclib.const import Handler as Route
from grpclib.const import Status
from grpclib.encoding.base import GRPC_CONTENT_TYPE
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.metadata import decode_metadata, encode_grpc_message
from grpclib.protocol import Peer
from grpclib.protocol import Stream as Http2Stream
from grpclib.server import Handler, Stream, request_handler

from discovery._gen.coral.discovery.v1 import DiscoveryServiceBase
from discovery.errors import (
    DiscoveryError,
    InvalidMessageError,
    UnimplementedError,
)
from discovery.transport.begun import Begun, Later
from discovery.transport.bounds import Bounds
from discovery.transport.calming import ConnectionHush, Hush, keep_hearing
from discovery.transport.deadlines import overdue, read_deadline, until
from discovery.transport.frugal import StreamHandler
from discovery.transport.grpc_begun import Beginner
from discovery.transport.grpc_codec import MessageCodec, StatusDetailsCodec
from discovery.transport.grpc_request import SPENT, MessageBuffer
from discovery.transport.grpc_stream import StreamExchange, Vigil
from discovery.transport.grpc_unary import (
    UnaryExchange,
    is_grpc_request,
    peer_address,
    received,
)
from discovery.transport.http2 import RequestBuffer
from discovery.transport.http2_asgi import Application, Http2Exchange, substitute_body
from discovery.transport.pipeline import Call, Pipeline
from discovery.transport.proxies import TrustedProxies
from discovery.transport.schema import Servable
from discovery.transport.shortcut import Recognised
from discovery.transport.status import message_of, status_of

GrpcStream = Stream[Any, Any]
Routes = Mapping[str, Route]
HeaderList = list[tuple[str, str]]
Metadata = Mapping[str, str | bytes]
Answer = Callable[[Http2Stream, Metadata], Coroutine[Any, Any, None] | StreamExchange]

_CODEC, _STATUS_DETAILS = MessageCodec(), StatusDetailsCodec()
_GRPC = re.compile(re.escape(GRPC_CONTENT_TYPE) + r"(?![\w-])", re.ASCII)  # gRPC-Web is not gRPC


class GrpcServing:
    """Makes the handler of each connection: a route into the pipeline for every RPC of the protocol."""

    def __init__(
        self,
        pipeline: Pipeline,
        application: Application,
        proxies: TrustedProxies,
        bounds: Bounds,
        more_routes: Routes,
        service: type[Servable] = DiscoveryServiceBase,
        *,
        at_once: bool = True,
    ) -> None:
        """Answer gRPC of `service` by `pipeline`, and `more_routes`; give every other stream to `application`.

        `at_once` says that most calls need not wait for anything.
        """
        self._pipeline = pipeline
        self._application = application
        self._proxies = proxies
        self._bounds = bounds
        ours = service().__mapping__()
        self._routes = {**more_routes, **ours}
        self._answers = {
            path: partial(
                self._stream if route.cardinality.server_streaming else self._answer,
                path,
                route.request_type,
            )
            for path, route in ours.items()
        }
        self._beginners = {
            path: Beginner(pipeline, path, route.request_type, self._who, at_once)
            for path, route in ours.items()
            if not route.cardinality.server_streaming
        }
        self._events = _DispatchServerEvents()

    def handler(self) -> Http2Handler:
        """Return the handler for one new connection."""
        return Http2Handler(
            self._routes,
            self._events,
            self._application,
            self._bounds,
            self._refuse,
            self._answers,
            self._beginners,
        )

    def _answer(
        self,
        path: str,
        message_type: type[betterproto.Message],
        stream: Http2Stream,
        metadata: Metadata,
    ) -> Coroutine[Any, Any, None]:
        deadline = cast("RequestBuffer", stream.buffer).deadline
        call = self._call(path, stream, metadata, deadline)
        exchange = UnaryExchange(stream, message_type, self._bounds)
        return exchange.run(partial(self._pipeline.unary, call, exchange.receive), call)

    def _stream(
        self,
        path: str,
        message_type: type[betterproto.Message],
        stream: Http2Stream,
        metadata: Metadata,
    ) -> StreamExchange:
        deadline = cast("RequestBuffer", stream.buffer).deadline
        call = self._call(path, stream, metadata, deadline)
        return StreamExchange(
            stream, message_type, self._bounds, pipeline=self._pipeline, call=call
        )

    def _call(
        self, path: str, stream: Http2Stream, metadata: Metadata, deadline: float | None
    ) -> Call:
        transport = stream._transport  # noqa: SLF001 - grpclib has no other way to it
        address, stop_hearing = self._who(transport, metadata)
        return Call(path, "grpc", address, metadata, deadline, hush=stop_hearing)

    def _who(self, transport: asyncio.Transport, metadata: Metadata) -> tuple[str | None, Hush]:
        peer = peer_address(Peer(transport))
        address = self._proxies.client(peer, cast("Mapping[str, str]", metadata))
        return address, ConnectionHush(transport) if address == peer else keep_hearing

    def _refuse(self, headers: Mapping[str, str], error: DiscoveryError) -> None:
        self._pipeline.refuse(Call(headers.get(":path", ""), "grpc"), error)


class Http2Handler(Handler, StreamHandler):
    """One connection's streams: gRPC by its content type, and everything else to the HTTP application."""

    def __init__(
        self,
        routes: Routes,
        events: _DispatchServerEvents,
        application: Application,
        bounds: Bounds,
        refuse: Callable[[Mapping[str, str], DiscoveryError], None],
        answers: Mapping[str, Answer],
        beginners: Mapping[str, Beginner],
    ) -> None:
        """What is in `answers` answers its path, and some can be begun; the other `routes` are grpclib's to answer."""
        super().__init__(cast("dict[str, Route]", routes), _CODEC, _STATUS_DETAILS, events)
        self._answers = answers
        self._beginners = beginners
        self._application = application
        self._bounds = bounds
        self._refuse = refuse

    def accept(
        self, stream: Http2Stream, headers: HeaderList, release_stream: Callable[..., Any]
    ) -> None:
        """Take in a new stream: see grpclib.

        The stream is released when its task is over, even if that was cancelled before it began: grpclib would keep
        it then, and with it its share of the connection's window.
        """
        self.__gc_step__()
        acknowledge = partial(stream.connection.ack, cast("int", stream.id))
        fields = dict(headers)
        if _GRPC.match(fields.get("content-type", "")):
            answer = self._answer_grpc(stream, headers, fields, acknowledge)
        else:
            body = substitute_body(stream, acknowledge, self._bounds.request_seconds)
            answer = Http2Exchange(stream, headers, body).run(self._application)
        if isinstance(answer, StreamExchange):
            self._tasks[stream] = cast("Any", Vigil(answer, release_stream))
            return
        task = self.loop.create_task(answer)
        task.add_done_callback(release_stream)
        self._tasks[stream] = task

    def forget(self, stream: Http2Stream) -> None:
        """Drop a stream that is over: grpclib would keep it until the next ten calls."""
        self._tasks.pop(stream, None)

    # -- What shortcut.Calls asks for -------------------------------------------------------------

    def recognise(self, headers: HeaderList, transport: asyncio.Transport) -> Recognised | None:
        """See Calls."""
        fields = dict(headers)
        beginner = self._beginners.get(fields.get(":path", ""))
        if beginner is None or not is_grpc_request(fields):
            return None
        return beginner.recognise(headers, transport)

    def conclude(
        self, stream: Http2Stream, begun: Begun | Later, release_stream: Callable[..., Any]
    ) -> None:
        """See Calls."""
        stream.buffer = SPENT
        exchange = UnaryExchange(stream, betterproto.Message, self._bounds)  # which came already
        task = self.loop.create_task(exchange.run(begun.outcome, begun.call))

        def over(_task: object) -> None:
            release_stream()
            begun.abandon()

        task.add_done_callback(over)
        self._tasks[stream] = task

    # -- Streams ----------------------------------------------------------------------------------

    def _answer_grpc(
        self,
        stream: Http2Stream,
        headers: HeaderList,
        fields: Mapping[str, str],
        acknowledge: Callable[[int], None],
    ) -> Coroutine[Any, Any, None] | StreamExchange:
        if fields.get(":path", "") not in self.mapping:
            unknown = UnimplementedError("there is no such method")
            return self._send_refusal(stream, fields, unknown)
        try:
            deadline = read_deadline(fields)
            metadata = cast("Metadata", decode_metadata(headers))
        except DiscoveryError as error:
            return self._send_refusal(stream, fields, error)
        except ValueError as error:
            unreadable = InvalidMessageError(f"a header cannot be read: {error}")
            return self._send_refusal(stream, fields, unreadable)
        answer = self._answers.get(fields[":path"])
        if answer is not None and is_grpc_request(fields):
            stream.buffer = MessageBuffer(acknowledge, self._bounds, deadline)
            return answer(stream, metadata)
        stream.buffer = RequestBuffer(acknowledge, self._bounds, deadline)
        # The pipeline keeps the deadline, for every protocol alike; grpclib has no answer to one that is over already.
        rest = [field for field in headers if field[0] != "grpc-timeout"]
        codecs = (self.codec, self.status_details_codec)
        return request_handler(
            self.mapping, stream, rest, *codecs, self.dispatch, release_stream=_nothing
        )

    async def _send_refusal(
        self, stream: Http2Stream, asked: Mapping[str, str], error: DiscoveryError
    ) -> None:
        self._refuse(asked, error)
        answer = {
            ":status": "200",
            "content-type": GRPC_CONTENT_TYPE,
            "grpc-status": str(error.code.value),
            "grpc-message": encode_grpc_message(message_of(error)),
        }
        await stream.send_headers(list(answer.items()), end_stream=True)
        if stream.closable:
            stream.reset_nowait()


@asynccontextmanager
async def answering(deadline: float | None) -> AsyncIterator[None]:
    """Keep a call's deadline, on `time.monotonic()`, and translate what goes wrong."""
    try:
        async with until(deadline):
            yield
    except DiscoveryError as error:
        raise grpc_error(error) from error
    except TimeoutError as error:
        raise grpc_error(overdue()) from error


def request_buffer(stream: GrpcStream) -> RequestBuffer:
    """Return where a stream's request is collected; it knows the call's deadline too."""
    buffer = stream._stream.buffer  # noqa: SLF001 - grpclib has no place for what belongs to a stream
    return cast("RequestBuffer", buffer)


async def receive_message(stream: GrpcStream) -> betterproto.Message:
    """Return the one message of a request; see `received`."""
    return await received(stream.recv_message())


def grpc_error(error: DiscoveryError) -> GRPCError:
    """Return `error` as grpclib sends it: status, message and details."""
    return GRPCError(Status(error.code), message_of(error), status_of(error))


def _nothing() -> None:
    """Stand in for a release that is done elsewhere."""
