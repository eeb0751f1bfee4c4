"""A short cut for Connect's unary calls over HTTP/1.1.

uvicorn, Starlette and connectrpc take several times as long around a call as the call itself takes. A request in the
shape that clients give it, in one piece and on a connection that is otherwise idle, is answered here with the bytes
that they would answer. Whatever else comes is left to them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import lru_cache

import betterproto
from connectrpc.compression.gzip import GzipCompression
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from discovery.errors import DiscoveryError
from discovery.transport.begun import Begun, Later
from discovery.transport.bounds import Bounds
from discovery.transport.calming import Hush, keep_hearing
from discovery.transport.connect import CODECS, Codec, Unread
from discovery.transport.deadlines import overdue, until
from discovery.transport.http_errors import error_headers, error_object, http_status
from discovery.transport.pipeline import Call, Pipeline, Read
from discovery.transport.proxies import TrustedProxies
from discovery.transport.schema import Rpc, Servable, rpcs

_END = b"\r\n\r\n"
# What this takes for a head is one to any parser, and the same one. RFC 9112 allows more.
_HEAD = re.compile(
    r"POST ([!-~]+) HTTP/1\.1\r\n((?:[\w-]+: [!-~](?:[ -~]*[!-~])?\r\n)+)\r\n", re.ASCII
)
_FIELD = re.compile(r"([\w-]+): ([^\r]+)\r\n", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,9}", re.ASCII)
_MILLISECONDS = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
# What asks for something special, of uvicorn or of connectrpc.
_SPECIAL = frozenset(
    {"content-encoding", "expect", "proxy-connection", "transfer-encoding", "upgrade"}
)
_MAX_HEAD = 4096
_HEADS = 1024
"""How many heads are remembered: clients repeat theirs."""

_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
_CLOSE_CHUNKED = b"connection: close\r\n" + _CHUNKED

_CODECS = {f"application/{codec.subtype}": codec for codec in CODECS}
_GZIP = GzipCompression()


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says before its body."""

    rpc: Rpc
    codec: Codec
    fields: Mapping[str, str]
    size: int
    """Bytes of the body."""
    seconds: float | None
    """How long the client waits."""
    gzip: bool
    """Whether the answer is to be packed."""
    keep_alive: bool
    """Whether more requests may follow."""
    first_lines: bytes
    """What every answer begins with."""


@dataclass(slots=True)
class Asked:
    """A request, and who makes it."""

    data: bytes
    """All of it."""
    head: Head
    read: Read
    address: str | None
    hush: Hush


@dataclass(slots=True)
class Exchange:
    """A request, and its call, which was begun or is to be."""

    head: Head
    begun: Begun | Later

    def answer(self) -> bytes | None:
        """Return the whole answer, if the call is over."""
        if (reply := self.begun.reply) is not None:
            return answer(self.head, reply, self.begun.call.reply_metadata)
        if (error := self.begun.error) is not None:
            return refusal(self.head, error)
        return None

    async def wait(self) -> bytes:
        """Return the whole answer once the call is over, which is in time or not at all; see Begun.outcome."""
        try:
            async with until(self.begun.call.deadline):
                reply = await self.begun.outcome()
        except DiscoveryError as error:
            return refusal(self.head, error)
        except TimeoutError:
            return refusal(self.head, overdue())
        return answer(self.head, reply, self.begun.call.reply_metadata)

    def end_connection(self) -> None:
        """Have the answer say that it is the last one of its connection."""
        self.head = replace(self.head, keep_alive=False)


class ConnectShortCut:
    """Reads requests, and begins their calls."""

    def __init__(
        self,
        pipeline: Pipeline,
        proxies: TrustedProxies,
        bounds: Bounds,
        service: type[Servable],
        *,
        at_once: bool,
    ) -> None:
        """Begin the calls of `service`; `at_once` says that most of them need not wait for anything."""
        self._start = pipeline.begin if at_once else pipeline.later
        self._proxies = proxies
        self._max_head = min(_MAX_HEAD, bounds.header_bytes)
        self._max_body = bounds.request_bytes
        self._rpcs = {path: rpc for path, rpc in rpcs(service).items() if not rpc.streaming}
        self._remembered = lru_cache(maxsize=_HEADS)(self._read_head)

    def read(self, data: bytes) -> Head | None:
        """Return the head of the request that `data` is, from its first byte to its last; None if it may be another."""
        end = data.find(_END, 0, self._max_head)
        if end < 0:
            return None
        head = self._remembered(data[: end + len(_END)])
        if head is None or len(data) != end + len(_END) + head.size:
            return None
        return head

    def recognise(self, data: bytes, peer: str | None, hush: Hush) -> Asked | None:
        """Return the request that `data` is, by whoever is at `peer`: see `read`."""
        head = self.read(data)
        if head is None:
            return None
        address = self._proxies.client(peer, head.fields)
        unread = Unread(data[len(data) - head.size :], head.rpc.request, head.codec.decode_now)
        return Asked(data, head, unread.read, address, hush if address == peer else keep_hearing)

    def begin(self, asked: Asked) -> Exchange:
        """Begin the call of a request, which may have been made before."""
        head = asked.head
        deadline = None if head.seconds is None else time.monotonic() + head.seconds
        call = Call(head.rpc.path, "connect", asked.address, head.fields, deadline, asked.hush)
        return Exchange(head, self._start(call, asked.read))

    def _read_head(self, data: bytes) -> Head | None:
        match = _HEAD.fullmatch(data.decode("latin-1"))
        rpc = self._rpcs.get(match[1]) if match else None
        if match is None or rpc is None:
            return None
        pairs = _FIELD.findall(match[2])
        fields = {name.lower(): value for name, value in pairs}
        codec = _CODECS.get(fields.get("content-type", ""))
        connection = fields.get("connection", "keep-alive").lower()
        size, timeout = fields.get("content-length", ""), fields.get("connect-timeout-ms")
        usual = (
            len(fields) == len(pairs)
            and _SPECIAL.isdisjoint(fields)
            and connection in {"keep-alive", "close"}
            and fields.get("connect-protocol-version", "1") == "1"
            and (timeout is None or _MILLISECONDS.fullmatch(timeout))
            and _SIZE.fullmatch(size)
            and int(size) <= self._max_body
        )
        if codec is None or not usual:
            return None
        gzip = _wants_gzip(fields.get("accept-encoding", ""))
        return Head(
            rpc,
            codec,
            fields,
            size=int(size),
            seconds=None if timeout is None else int(timeout) / 1000,
            gzip=gzip,
            keep_alive=connection == "keep-alive",
            first_lines=_first_lines(codec, "gzip" if gzip else "identity"),
        )


def answer(head: Head, reply: betterproto.Message, metadata: Mapping[str, str]) -> bytes:
    """Return the whole answer: the bytes of connectrpc's, in the chunk that uvicorn makes of them."""
    body = head.codec.encode(reply)
    if head.gzip:
        body = _GZIP.compress(body)
    return _whole(head, head.first_lines, metadata, body)


def refusal(head: Head, error: DiscoveryError) -> bytes:
    """Return the whole answer to a call that was refused, in the same way."""
    body = json.dumps(error_object(error), ensure_ascii=False).encode()
    first_lines = STATUS_LINE[http_status(error)] + b"content-type: application/json\r\n"
    return _whole(head, first_lines, error_headers(error), body)


def _whole(head: Head, first_lines: bytes, metadata: Mapping[str, str], body: bytes) -> bytes:
    if metadata:
        first_lines += "".join(
            [f"{name}: {value}\r\n" for name, value in metadata.items()]
        ).encode()
    manners = _manners(int(time.time()), keep_alive=head.keep_alive)
    if not body:
        return b"%b%b0\r\n\r\n" % (first_lines, manners)
    return b"%b%b%x\r\n%b\r\n0\r\n\r\n" % (first_lines, manners, len(body), body)


def _wants_gzip(accepted: str) -> bool:
    """Return what connectrpc makes of Accept-Encoding: the first that it knows."""
    known = (name for item in accepted.split(",") if (name := item.strip()) in {"gzip", "identity"})
    return next(known, "identity") == "gzip"


def _first_lines(codec: Codec, encoding: str) -> bytes:
    return (
        "HTTP/1.1 200 OK\r\n"
        f"content-type: application/{codec.subtype}\r\n"
        f"content-encoding: {encoding}\r\n"
        "vary: Accept-Encoding\r\n"
    ).encode()


@lru_cache(maxsize=2)
def _manners(now: int, *, keep_alive: bool) -> bytes:
    """Return what comes last of the headers, the same of every answer: see `http_app`."""
    headers = f"date: {formatdate(now, usegmt=True)}\r\ncache-control: no-store\r\n".encode()
    return headers + (_CHUNKED if keep_alive else _CLOSE_CHUNKED)
