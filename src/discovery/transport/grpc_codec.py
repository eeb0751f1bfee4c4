"""Our messages and our status details for grpclib. Shared by servers and clients."""

from __future__ import annotations

from typing import Any

import betterproto
from grpclib.const import Status
from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase

from discovery._gen.google.rpc import Status as StatusMessage
from discovery.transport import codec


class MessageCodec(CodecBase):
    """Our messages in the binary format."""

    __content_subtype__ = "proto"

    def encode(
        self, message: betterproto.Message, message_type: type[betterproto.Message]
    ) -> bytes:
        """Return the wire form of `message`."""
        del message_type
        return codec.encode(message)

    def decode(self, data: bytes, message_type: type[Any]) -> Any:  # noqa: ANN401 - see below
        """Read a message; raises MalformedMessageError."""
        if message_type is bytes:
            return data  # reflection reads its requests itself
        return codec.decode(data, message_type)


class StatusDetailsCodec(StatusDetailsCodecBase):
    """The `grpc-status-details-bin` trailer, whose value is google.rpc.Status."""

    def encode(self, status: Status, message: str | None, details: StatusMessage) -> bytes:
        """Return the trailer for the Status in `details`, which repeats `status` and `message`."""
        del status, message
        return codec.encode(details)

    def decode(self, status: Status, message: str | None, data: bytes) -> StatusMessage:
        """Read the trailer; raises MalformedMessageError."""
        del status, message
        return codec.decode(data, StatusMessage)
