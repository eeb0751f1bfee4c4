"""An HTTP/2 stream that is not gRPC, as an ASGI request: grpclib's stream on one side, the application on the other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any, cast
from urllib.parse import unquote

from grpclib.protocol import Stream
from h2.exceptions import StreamClosedError

from discovery.transport.calming import SCOPE_KEY, hush

_log = logging.getLogger(__name__)

# What HTTP/1.1 says of a connection has no place in HTTP/2 (RFC 9113 section 8.2.2).
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"})

# How much of a request that was answered early is still taken in, before the stream is reset.
_DISCARDED_BYTES = 4 * 1024 * 1024

Message = MutableMapping[str, Any]
Application = Callable[[Message, Callable[[], Any], Callable[[Message], Any]], Any]
Headers = Iterable[tuple[str, str]]


class BodyBuffer:
    """What a stream's request sends, in the pieces it comes in; stands where grpclib has its own buffer."""

    def __init__(self, acknowledge: Callable[[int], None], patience: float) -> None:
        """`acknowledge` opens the window again by a number of bytes; all must come in `patience` seconds."""
        self._acknowledge = acknowledge
        self._deadline = asyncio.get_running_loop().time() + patience
        self._pieces: deque[tuple[bytes, int]] = deque()
        self._arrived = asyncio.Event()
        self._ended = False

    def add(self, data: bytes, ack_size: int) -> None:
        """Take in a DATA frame; `ack_size` counts its padding too."""
        self._pieces.append((data, ack_size))
        self._arrived.set()

    def eof(self) -> None:
        """Take in the end of the request."""
        self._ended = True
        self._arrived.set()

    def unacked_size(self) -> int:
        """Return how many bytes nobody read, so that the connection's window gets them back."""
        return sum(size for _, size in self._pieces)

    async def read(self) -> tuple[bytes, bool]:
        """Return the next piece, and whether more may come.

        Raises:
            TimeoutError: the time for the whole is over.
        """
        async with asyncio.timeout_at(self._deadline):
            while not (self._pieces or self._ended):
                self._arrived.clear()
                await self._arrived.wait()
        if not self._pieces:
            return b"", False
        data, size = self._pieces.popleft()
        self._acknowledge(size)
        return data, bool(self._pieces) or not self._ended


class Http2Exchange:
    """One request and its response, over one stream."""

    def __init__(self, stream: Stream, headers: Headers, body: BodyBuffer) -> None:
        self._stream = stream
        self._headers = tuple(headers)
        self._body = body
        self._more = True
        self._started = False

    async def run(self, application: Application) -> None:
        """Have `application` answer; whatever it does, the stream is over afterwards."""
        try:
            await application(self._scope(), self._receive, self._send)
        except StreamClosedError:
            pass  # the client went away
        except Exception:  # noqa: BLE001 - as every ASGI server does: one request's defect is its own
            _log.exception("the HTTP application failed")
            await self._fail()
        finally:
            await self._discard_rest()
            if self._stream.closable:
                self._stream.reset_nowait()

    async def _discard_rest(self) -> None:
        """Read what the application did not: several clients lose an answer that they are given while they send."""
        left = _DISCARDED_BYTES
        with suppress(TimeoutError):
            while self._more and left > 0 and self._stream.closable:
                data, self._more = await self._body.read()
                left -= len(data)

    def _scope(self) -> Message:
        pseudo = {name: value for name, value in self._headers if name.startswith(":")}
        raw_path, _, query = pseudo.get(":path", "/").partition("?")
        name = self._stream.connection.get_peer().addr()
        host = [("host", pseudo[":authority"])] if ":authority" in pseudo else []
        headers = [*host, *(field for field in self._headers if not field[0].startswith(":"))]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": pseudo.get(":method", "GET"),
            "scheme": pseudo.get(":scheme", "http"),
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(key.encode(), value.encode()) for key, value in headers],
            "client": name[:2] if isinstance(name, tuple) else None,
            "server": None,
            SCOPE_KEY: partial(hush, self._stream._transport),  # noqa: SLF001 - grpclib has no other way to it
        }

    async def _receive(self) -> Message:
        if not self._more:
            await asyncio.Event().wait()  # a client that leaves has this task cancelled
        try:
            data, self._more = await self._body.read()
        except TimeoutError:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": data, "more_body": self._more}

    async def _send(self, message: Message) -> None:
        if self._stream.connection.is_closing():
            return
        if message["type"] == "http.response.start":
            self._started = True
            fields = [
                (name.decode("latin-1").lower(), value.decode("latin-1"))
                for name, value in message.get("headers", ())
                if name.lower() not in _HOP_BY_HOP
            ]
            await self._stream.send_headers([(":status", str(message["status"])), *fields])
            return
        more = message.get("more_body", False)
        if body := message.get("body", b""):
            await self._stream.send_data(body, end_stream=not more)
        elif not more:
            await self._stream.end()

    async def _fail(self) -> None:
        if not self._started and self._stream.closable:
            await self._stream.send_headers([(":status", "500")], end_stream=True)


def substitute_body(
    stream: Stream, acknowledge: Callable[[int], None], patience: float
) -> BodyBuffer:
    """Have `stream` collect its request in a BodyBuffer, and return it."""
    body = BodyBuffer(acknowledge, patience)
    stream.buffer = cast("Any", body)
    return body
