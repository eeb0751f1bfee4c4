"""The connections that are open, whatever they speak, and their end."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Connection(Protocol):
    """What every protocol's connection can do."""

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
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> None:
        """Count a connection that was made."""
        self._open.add(connection)
        self._none.clear()

    def remove(self, connection: Connection) -> None:
        """Do as `discard`; uvicorn's WebSocket protocol calls it so."""
        self.discard(connection)

    def discard(self, connection: Connection) -> None:
        """Stop counting a connection that was lost, or took on another protocol."""
        self._open.discard(connection)
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
