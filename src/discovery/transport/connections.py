"""The connections that are open, whatever they speak, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal, Protocol, get_args, runtime_checkable

Spoken = Literal["http/1.1", "http/2", "websocket", "undecided"]

_CAN_BE_ASKED: frozenset[Spoken] = frozenset({"http/1.1", "http/2"})


class Connection(Protocol):
    """What every protocol's connection can do."""

    speaks: Spoken

    def shutdown(self) -> None:
        """Ask the client to leave; answer what it still asks."""
        ...

    def shut(self) -> None:
        """Close at once."""
        ...


@runtime_checkable
class Insistent(Protocol):
    """What a connection can do whose client may have many calls under way."""

    def insist(self) -> None:
        """Ask the client to leave at once, if it was not asked yet because it is busy."""
        ...


class Connections:
    """Counts connections, and closes them when the server stops."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._counts: dict[str, int] = dict.fromkeys(get_args(Spoken), 0)
        self._none = asyncio.Event()
        self._none.set()
        self._dismissed = False

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
        if self._dismissed:
            self._ask_to_leave(connection)

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

    def dismiss(self) -> None:
        """Ask every client to leave, and whoever comes from now on. A client that is busy is told once it is not."""
        self._dismissed = True
        for connection in tuple(self._open):
            self._ask_to_leave(connection)

    def insist(self) -> None:
        """Tell the clients that were too busy to be asked."""
        for connection in tuple(self._open):
            if isinstance(connection, Insistent):
                connection.insist()

    def _ask_to_leave(self, connection: Connection) -> None:
        # One that says nothing yet is about to: it would take its end for a server that is broken.
        if connection.speaks in _CAN_BE_ASKED:
            connection.shutdown()

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
