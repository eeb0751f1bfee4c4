"""The connections that are open, whatever they speak, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal, Protocol, get_args

Spoken = Literal["http/1.1", "http/2", "websocket", "undecided"]


class Connection(Protocol):
    """What every protocol's connection can do."""

    speaks: Spoken

    def shutdown(self) -> None:
        """Ask the client to leave; answer what it still asks."""
        ...

    def shut(self) -> None:
        """Close at once."""
        ...


class Connections:
    """Counts connections, and closes them when the server stops."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._counts: dict[str, int] = dict.fromkeys(get_args(Spoken), 0)
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many connections there are of each protocol: a live view, with every protocol in it."""
        return self._counts

    def add(self, connection: Connection) -> None:
        """Count a connection that was made."""
        self._open.add(connection)
        self._counts[connection.speaks] += 1
        self._none.clear()

    def remove(self, connection: Connection) -> None:
        """Do as `discard`; uvicorn's WebSocket protocol calls it so."""
        self.discard(connection)

    def discard(self, connection: Connection) -> None:
        """Stop counting a connection that was lost, or took on another protocol."""
        if connection in self._open:
            self._open.remove(connection)
            self._counts[connection.speaks] -= 1
        if not self._open:
            self._none.set()

    async def close(self, linger: float) -> None:
        """Ask every client to leave, and close what is still open after `linger` seconds.

        A connection that is closed while its client is sending is reset by TCP, and answers on their way are lost with
        it: so clients are given the time to close first.
        """
        for connection in tuple(self._open):
            connection.shutdown()
        try:
            async with asyncio.timeout(linger):
                await self._none.wait()
        except TimeoutError:
            for connection in tuple(self._open):
                connection.shut()
