"""The Connect protocol: connectrpc's application, with our messages, into the pipeline.

connectrpc reads the bytes of a request, and would also decode them before anything of ours runs. Its codec here only
holds on to them, so that a message that cannot be read takes the same path, and the same log line, as any other call.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import betterproto
from connectrpc.code import Code as ConnectCode
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from protobuf.wkt import Any as ConnectAny

from discovery._gen.coral.discovery.v1 import DiscoveryServiceBase
from discovery.errors import (
    Code,
    DiscoveryError,
    InvalidMessageError,
    MalformedMessageError,
    OtherError,
    TooLargeError,
)
from discovery.models import plain_address
from discovery.transport import codec, json_codec
from discovery.transport.calming import HUSH
from discovery.transport.deadlines import overdue
from discovery.transport.http_errors import code_name, error_headers
from discovery.transport.pipeline import Call, Pipeline
from discovery.transport.repeats import read_again
from discovery.transport.schema import Rpc, Servable, rpcs
from discovery.transport.status import status_of

Context = RequestContext[Any, Any]

_OUR_CODE = {ConnectCode(code_name(code)): code for code in Code if code is not Code.OK}


@dataclass(slots=True)
class Unread:
    """A request's bytes, and how to read them. Not frozen: to make one would take three times as long."""

    data: bytes
    message_type: type[betterproto.Message]
    decode: Callable[[bytes, type[betterproto.Message]], betterproto.Message]

    async def receive(self) -> betterproto.Message:
        """Return the message: see pipeline.Receive."""
        return self.read()

    def read(self) -> betterproto.Message:
        """Return the message: see pipeline.Read."""
        try:
            return read_again(self.data, self.message_type, self.decode)
        except MalformedMessageError as error:
            raise InvalidMessageError(error.message) from error


@dataclass(frozen=True, slots=True)
class Codec:
    """A connectrpc Codec that leaves the reading for later."""

    subtype: str
    decode_now: Callable[[bytes, type[betterproto.Message]], betterproto.Message]
    encode: Callable[[betterproto.Message], bytes]

    def name(self) -> str:
        """See connectrpc."""
        return self.subtype

    def decode(self, data: bytes | bytearray, message_class: type[betterproto.Message]) -> Unread:
        """See connectrpc."""
        return Unread(bytes(data), message_class, self.decode_now)


CODECS = (
    Codec("proto", codec.decode, codec.encode),
    Codec("json", json_codec.decode, json_codec.encode),
)


class ConnectApplication(ConnectASGIApplication[Pipeline]):
    """An ASGI application that answers the Connect protocol, unary and server streaming."""

    def __init__(
        self,
        pipeline: Pipeline,
        max_bytes: int,
        service: type[Servable] = DiscoveryServiceBase,
    ) -> None:
        self._rpcs = rpcs(service)
        rpc_set = _Endpoints(pipeline, max_bytes, self._rpcs)
        super().__init__(
            service=pipeline,
            endpoints=lambda _service: rpc_set.by_path(),
            codecs=CODECS,
            interceptors=(rpc_set,),
            read_max_bytes=max_bytes,
        )

    @property
    def path(self) -> str:
        """Where it is mounted: the service's name."""
        return f"/{next(iter(self._rpcs.values())).service}"


class _AnswerError(ConnectError):
    """An error that the pipeline has accounted for, in connectrpc's words."""

    def __init__(self, error: DiscoveryError) -> None:
        details = [
            ErrorDetail(ConnectAny(type_url=detail.type_url, value=detail.value))
            for detail in status_of(error).details
        ]
        super().__init__(ConnectCode(code_name(error.code)), status_of(error).message, details)


class _Endpoints:
    """The RPCs as connectrpc calls them, and its interceptor: it accounts for what connectrpc refuses by itself."""

    def __init__(self, pipeline: Pipeline, max_bytes: int, served: Mapping[str, Rpc]) -> None:
        self._pipeline = pipeline
        self._max_bytes = max_bytes
        self._served = served
        self._passed_on: WeakSet[Context] = WeakSet()

    def by_path(self) -> dict[str, Any]:
        return {path: self._endpoint(rpc) for path, rpc in self._served.items()}

    async def on_start(self, _context: Context) -> None:
        """See connectrpc's MetadataInterceptor."""

    async def on_end(self, _token: None, context: Context, error: Exception | None) -> None:
        """See connectrpc's MetadataInterceptor. What is raised here takes the place of `error`."""
        if not isinstance(error, ConnectError):
            return
        if context not in self._passed_on:
            refusal = self._refusal(error)
            self._pipeline.refuse(_call(context), refusal)
            raise _AnswerError(refusal) from error
        if error.code is ConnectCode.DEADLINE_EXCEEDED and not isinstance(error, _AnswerError):
            raise _AnswerError(overdue()) from error

    def _refusal(self, error: ConnectError) -> DiscoveryError:
        match error.code:
            case ConnectCode.RESOURCE_EXHAUSTED:
                return TooLargeError(f"the request is too large; at most {self._max_bytes} bytes")
            case ConnectCode.INVALID_ARGUMENT:
                return InvalidMessageError(error.message)
        return OtherError(_OUR_CODE[error.code], "", error.message)

    def _endpoint(self, rpc: Rpc) -> Any:  # noqa: ANN401 - connectrpc does not export its endpoint types
        safe = IdempotencyLevel.NO_SIDE_EFFECTS if rpc.safe else IdempotencyLevel.UNKNOWN
        method: MethodInfo[Any, Any] = MethodInfo(
            name=rpc.name,
            service_name=rpc.service,
            input=rpc.request,
            output=rpc.reply,
            idempotency_level=safe,
            stream_type=StreamType.SERVER_STREAM if rpc.streaming else StreamType.UNARY,
        )
        if rpc.streaming:
            return Endpoint.server_stream(method, self._stream)
        return Endpoint.unary(method, self._unary)

    async def _unary(self, request: Unread, context: Context) -> betterproto.Message:
        self._passed_on.add(context)
        call = _call(context)
        try:
            reply = await self._pipeline.unary(call, request.receive)
        except DiscoveryError as error:
            context.response_headers.update(error_headers(error))
            raise _AnswerError(error) from error
        context.response_headers.update(call.reply_metadata)
        return reply

    async def _stream(
        self, request: Unread, context: Context
    ) -> AsyncGenerator[betterproto.Message]:
        self._passed_on.add(context)
        try:
            async with aclosing(self._pipeline.stream(_call(context), request.receive)) as replies:
                async for reply in replies:
                    yield reply
        except DiscoveryError as error:
            raise _AnswerError(error) from error


def _call(context: Context) -> Call:
    host = (context.client_address or "").rpartition(":")[0]
    # In this order, lest it be later than what connectrpc goes by: a call that it ends would not count as overdue.
    now, left = time.monotonic(), context.timeout_ms
    return Call(
        f"/{context.method.service_name}/{context.method.name}",
        "connect",
        peer=plain_address(host),
        metadata=dict(context.request_headers.allitems()),
        deadline=None if left is None else now + left / 1000,
        hush=HUSH.get(),
    )
