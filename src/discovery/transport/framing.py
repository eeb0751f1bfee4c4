"""HTTP/2 frames of a unary gRPC answer, written at once: RFC 9113 section 4.1, and gRPC's protocol over HTTP/2."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache

from grpclib.const import Status
from grpclib.encoding.base import GRPC_CONTENT_TYPE
from grpclib.metadata import encode_bin_value, encode_grpc_message
from hpack.hpack import encode_integer

from discovery.errors import DiscoveryError
from discovery.transport import codec
from discovery.transport.grpc_codec import MessageCodec
from discovery.transport.status import message_of, status_of

DATA, HEADERS = 0x0, 0x1
END_STREAM, END_HEADERS = 0x1, 0x4
HEAD = struct.Struct(">IBI")
"""A frame's length (24 bits) and type, its flags, and its stream: RFC 9113 section 4.1."""

Field = tuple[str, str]

START: Sequence[Field] = (
    (":status", "200"),
    ("content-type", f"{GRPC_CONTENT_TYPE}+{MessageCodec.__content_subtype__}"),
)
END: Sequence[Field] = (("grpc-status", str(Status.OK.value)),)


def _block(fields: Iterable[Field]) -> bytes:
    """Return fields as HPACK writes them without touching its table: RFC 7541 section 6.2.2, with new names."""
    return b"".join([b"\0" + _literal(name) + _literal(value) for name, value in fields])


def _literal(text: str) -> bytes:
    encoded = text.encode()
    return bytes(encode_integer(len(encoded), 7)) + encoded


# START has names that HPACK knows: RFC 7541 sections 6.1 and 6.2.2, appendix A.
START_BLOCK = b"\x88\x0f\x10\x16application/grpc+proto"
END_BLOCK = _block(END)

_LAST = END_HEADERS | END_STREAM

_NUMBER_BYTES = 4
PREFIX = 5
"""Bytes before each message: whether it is compressed, and its length."""


def frame_head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """Return what comes before `size` bytes of a frame."""
    return HEAD.pack(size << 8 | kind, flags, stream)


def framed_answer(stream: int, message: bytes) -> bytes:
    """Return the frames that answer a call with one message and the status OK."""
    number = stream.to_bytes(_NUMBER_BYTES, "big")
    return _frames_around(len(message)) % (number, number, message, number)


@lru_cache(maxsize=1024)  # answers to the same method hardly differ in size
def _frames_around(size: int) -> bytes:
    """Return the frames of an answer of `size` bytes, with places for the stream's number and the message."""
    return b"".join(
        (
            _head(len(START_BLOCK), HEADERS, END_HEADERS) + escaped(START_BLOCK),
            _head(PREFIX + size, DATA, 0) + escaped(size.to_bytes(PREFIX, "big")) + b"%b",
            _head(len(END_BLOCK), HEADERS, _LAST) + escaped(END_BLOCK),
        )
    )


def _head(size: int, kind: int, flags: int) -> bytes:
    return escaped(frame_head(size, kind, flags, 0)[:-_NUMBER_BYTES]) + b"%b"


def escaped(content: bytes) -> bytes:
    """Return what stands for `content` in a template for `%`."""
    return content.replace(b"%", b"%%")


def refusal_of(error: DiscoveryError) -> Sequence[Field]:
    """Return the trailers that tell a client of `error`."""
    details = encode_bin_value(codec.encode(status_of(error))).decode()
    return (
        ("grpc-status", str(error.code.value)),
        ("grpc-message", encode_grpc_message(message_of(error))),
        ("grpc-status-details-bin", details),
    )


def refusal_block(error: DiscoveryError) -> bytes:
    """Return the headers of a call that ends with `error` and no message."""
    return START_BLOCK + _block(refusal_of(error))


def framed_refusal(stream: int, block: bytes) -> bytes:
    """Return the frame that ends a call with such a block."""
    return frame_head(len(block), HEADERS, _LAST, stream) + block
