"""Transports that send once a turn of the event loop, for all that was written in it.

A system call that sends costs as much as a whole call does here, and wakes a client for a part of what it is about to
get. So the loop first reads what has come and answers it, then sends: all that is for one connection in one piece, and
one connection after the other. uvloop, too, sends later than it is told, but not in that way; docs/decisions.md has
what this saves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_MOST_CONNECTIONS = 32
"""How many have to wait for each other, at most."""
_MOST_BYTES = 64 * 1024
"""What is kept of one connection's, at most: beyond that it is the protocol that has to be told to wait."""


class Turn:
    """What there is to send in this turn of the loop, over any connection of one listener."""

    def __init__(self) -> None:
        self._waiting: list[GatheringTransport] = []

    def add(self, transport: GatheringTransport) -> None:
        """Have a transport send, soon."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(transport)
        if len(self._waiting) >= _MOST_CONNECTIONS:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport in waiting:
            transport.flush()


class GatheringTransport(asyncio.Transport):
    """A transport that hands on what was written once its turn ends. In all else it is the one that it is given."""

    __slots__ = ("_transport", "_turn", "_unsent")

    def __init__(self, transport: asyncio.Transport, turn: Turn) -> None:
        # The base class would only make a table for each.
        self._transport = transport
        self._turn = turn
        self._unsent = b""

    # -- What waits -------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, soon."""
        if self._unsent:
            self._unsent += data
        else:
            self._unsent = bytes(data)
            self._turn.add(self)  # which may send it at once
        if len(self._unsent) > _MOST_BYTES:
            self.flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces, soon."""
        self.write(b"".join(list_of_data))

    def flush(self) -> None:
        """Send what was written."""
        unsent, self._unsent = self._unsent, b""
        # Its client may be gone by now, and uvloop would raise.
        if unsent and not self._transport.is_closing():
            self._transport.write(unsent)

    def get_write_buffer_size(self) -> int:
        """See asyncio."""
        return len(self._unsent) + self._transport.get_write_buffer_size()

    # -- What comes after it ----------------------------------------------------------------------

    def close(self) -> None:
        """Send what was written, and close."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once, as if what was written had been sent so far as the system took it."""
        self.flush()
        self._transport.abort()

    def write_eof(self) -> None:
        """Send what was written, and nothing more."""
        self.flush()
        self._transport.write_eof()

    # -- What is the transport's ------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as asyncio has it
        """See asyncio."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._transport.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See asyncio."""
        return self._transport.get_protocol()

    def is_reading(self) -> bool:
        """See asyncio."""
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        """See asyncio."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio."""
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """See asyncio."""
        return self._transport.get_write_buffer_limits()

    def can_write_eof(self) -> bool:
        """See asyncio."""
        return self._transport.can_write_eof()
