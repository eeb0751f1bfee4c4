"""HTTP/2 frames of a unary gRPC answer, written at once: RFC 9113 section 4.1, and gRPC's protocol over HTTP/2."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from grpclib.const import Status
from grpclib.encoding.base import GRPC_CONTENT_TYPE
from hpack.hpack import encode_integer

from discovery.transport.grpc_codec import MessageCodec

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

_START = struct.Struct(f">IBI{len(START_BLOCK)}sIBIBI")
_END = struct.Struct(f">IBI{len(END_BLOCK)}s")
_START_KIND = len(START_BLOCK) << 8 | HEADERS
_END_KIND = len(END_BLOCK) << 8 | HEADERS
_LAST = END_HEADERS | END_STREAM

PREFIX = 5
"""Bytes before each message: whether it is compressed, and its length."""


def frame_head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """Return what comes before `size` bytes of a frame."""
    return HEAD.pack(size << 8 | kind, flags, stream)


def framed_answer(stream: int, message: bytes) -> bytes:
    """Return the frames that answer a call with one message and the status OK."""
    size = len(message)
    kind = size + PREFIX << 8 | DATA
    start = _START.pack(_START_KIND, END_HEADERS, stream, START_BLOCK, kind, 0, stream, 0, size)
    return b"%b%b%b" % (start, message, _END.pack(_END_KIND, _LAST, stream, END_BLOCK))


def refusal_block(fields: Iterable[Field]) -> bytes:
    """Return the headers of a call that ends with these `fields` and no message."""
    return START_BLOCK + _block(fields)


def framed_refusal(stream: int, block: bytes) -> bytes:
    """Return the frame that ends a call with such a block."""
    return frame_head(len(block), HEADERS, _LAST, stream) + block
