"""HTTP/2 connections that all send the same bytes, so that a small program can hold thousands of them."""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection

from benchmarks.builds import BrokenError
from benchmarks.calls import framed
from benchmarks.probing import HOST

DATA, RST_STREAM, PING, GOAWAY = 0x0, 0x3, 0x6, 0x7
ACK = 0x1

_HEAD = 9
"""Bytes before a frame's payload."""
_LARGE_WINDOW = 1 << 30
_CHUNK = 1 << 18


def opening(path: str, messages: Sequence[bytes]) -> bytes:
    """Return all that a client sends: its preface, and a call of `path` with each message, on streams 1, 3, 5 ..."""
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    connection.increment_flow_control_window(_LARGE_WINDOW)  # so that nothing need be sent later
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    for message in messages:
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, headers)
        connection.send_data(stream, framed(message), end_stream=True)
    return connection.data_to_send()


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a server."""

    kind: int
    payload: bytes


@dataclass(slots=True)
class Wire:
    """One connection, and what has come of a frame that is not complete yet."""

    connection: socket.socket
    _rest: bytearray = field(default_factory=bytearray)

    def fileno(self) -> int:
        """Return the socket's number, for selectors."""
        return self.connection.fileno()

    def frames(self) -> Iterator[Frame]:
        """Read once, answer pings, and yield each frame that is complete.

        Raises:
            BrokenError: the server ended the connection, or reset a call.
        """
        data = self.connection.recv(_CHUNK)
        if not data:
            raise BrokenError("the server closed a connection")
        self._rest += data
        at = 0
        while len(self._rest) - at >= _HEAD:
            end = at + _HEAD + int.from_bytes(self._rest[at : at + 3])
            if end > len(self._rest):
                break
            yield self._frame(at, end)
            at = end
        del self._rest[:at]

    def _frame(self, at: int, end: int) -> Frame:
        kind, flags = self._rest[at + 3], self._rest[at + 4]
        if kind in {RST_STREAM, GOAWAY}:
            raise BrokenError(f"the server sent a frame of type {kind} and not an answer")
        if kind == PING and not flags & ACK:
            self._answer(self._rest[at:end])
        return Frame(kind, bytes(self._rest[at + _HEAD : end]))

    def _answer(self, ping: bytearray) -> None:
        ping[4] |= ACK
        self.connection.sendall(ping)


PATIENCE = 120.0
"""Seconds until what is waited for must have come."""


class Crowd:
    """Many connections. As long as something is waited for, each answers the server's pings."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wires: list[Wire] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._selector.close()
        for wire in self._wires:
            wire.connection.close()

    def join(self, port: int, sent: Iterable[bytes], answers: int) -> None:
        """Open a connection for each of the byte strings, send it, and wait until so many messages have come.

        One after the other: it is not to be measured how a server takes a crowd at its door.
        """
        for data in sent:
            wire = Wire(socket.create_connection((HOST, port)))
            self._wires.append(wire)
            self._selector.register(wire, selectors.EVENT_READ, wire)
            wire.connection.sendall(data)
            self.messages(answers)

    def messages(self, count: int) -> list[bytes]:
        """Read until `count` DATA frames have come over all connections, and return what they hold.

        Raises:
            BrokenError: they did not come in time, or a connection ended instead.
        """
        deadline = time.monotonic() + PATIENCE
        found: list[bytes] = []
        while len(found) < count:
            if time.monotonic() > deadline:
                raise BrokenError(f"{len(found)} of {count} messages after {PATIENCE:g} s")
            for key, _ in self._selector.select(timeout=1):
                found += (one.payload for one in key.data.frames() if one.kind == DATA)
        return found


def allow_many_files() -> None:
    """Let this process, and the servers that it starts, open as many connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
