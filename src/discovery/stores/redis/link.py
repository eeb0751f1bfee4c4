"""One connection to the server that has the keys of a slot: made when it is needed, and anew after a failure.

redis-py's connection classes do the connecting, the handshake and the protocol. Their own retries and time limits are
off: those apply to single reads and writes, and add up to more than a caller waits. Here one limit holds for making a
connection and one for an exchange on it, and nothing that was sent is ever sent again: whether to repeat a call that
may have been carried out is the caller's decision. Only what a server certainly did not do is sent to another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

from hiredis import pack_command
from redis.exceptions import AskError, MovedError, ResponseError

from discovery.stores.redis.failures import FAILURES, from_wrong_server, unavailable

Command = tuple[bytes | int, ...]
Reply = object
"""What the server answered; a ResponseError if it refused that command."""
Address = tuple[str, int]

# redis-py packs in Python, which takes three times as long.
_pack = cast("Callable[[Command], bytes]", pack_command)

# While a slot moves from one server to another, either may point to the other.
_MOST_REDIRECTIONS = 5


class Wire(Protocol):
    """What we use of redis-py's connections."""

    async def connect(self) -> None:
        """Connect, and shake hands."""

    async def disconnect(self, nowait: bool = False) -> None:  # noqa: FBT001, FBT002 - redis-py's
        """Close; idempotent."""

    async def can_read(self) -> bool:
        """Say whether something came in, if only the news that the server closed the connection."""

    async def send_packed_command(self, command: Iterable[bytes]) -> None:
        """Send commands, as bytes."""

    async def read_response(self) -> Reply:
        """Read one reply; raise it if it is an error."""


class Route(Protocol):
    """Knows which server to ask for the keys of a slot."""

    async def open(self, slot: int) -> Wire:
        """Connect to it. May raise any of FAILURES, and then leaves nothing open."""

    async def open_aside(self, address: Address) -> Wire:
        """Connect to a server that is about to take over a slot. Otherwise as `open`."""

    def moved(self, slot: int, address: Address) -> None:
        """Take note of where a slot is now."""

    def lost(self, slot: int) -> None:
        """Take note that the server of a slot does not answer, or is no longer the one to ask."""


async def converse(wire: Wire, commands: Sequence[Command]) -> list[Reply]:
    """Send `commands` in one go and return the reply to each."""
    await wire.send_packed_command([b"".join(map(_pack, commands))])
    replies: list[Reply] = []
    for _ in commands:
        try:
            replies.append(await wire.read_response())
        except ResponseError as refusal:
            replies.append(refusal)
    return replies


class Link:
    """A connection that comes and goes. For one task at a time."""

    def __init__(self, route: Route, slot: int, timeout: float) -> None:
        """`timeout` is how many seconds an exchange may take; making a connection has the route's own limit."""
        self._route = route
        self._slot = slot
        self._timeout = timeout
        self._wire: Wire | None = None
        self._doubted = False

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Send `commands` in one go and return the reply to each.

        Raises:
            StoreUnavailableError: there is no telling what the server did. The next exchange connects anew.
        """
        try:
            replies = await self._once(commands)
            await self._redirect(commands, replies)
        except FAILURES as error:
            self._route.lost(self._slot)
            raise unavailable(error) from error
        if any(map(from_wrong_server, replies)):
            self._route.lost(self._slot)
            self.doubt()
        return replies

    def doubt(self) -> None:
        """Connect anew before the next exchange: the server may have changed its role."""
        self._doubted = True

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.disconnect(nowait=True)

    async def _once(self, commands: Sequence[Command]) -> list[Reply]:
        wire = await self._connected()
        try:
            async with asyncio.timeout(self._timeout):
                return await converse(wire, commands)
        except BaseException:
            # A reply that was not read must never be taken for that to a later command.
            await self.close()
            raise

    async def _connected(self) -> Wire:
        if self._wire is None or self._doubted or await _is_spoilt(self._wire):
            await self.close()
            self._doubted = False
            self._wire = await self._route.open(self._slot)
        return self._wire

    async def _redirect(self, commands: Sequence[Command], replies: list[Reply]) -> None:
        """Ask again, elsewhere, where the reply was only where to ask."""
        for _ in range(_MOST_REDIRECTIONS):
            moved = [(place, r) for place, r in enumerate(replies) if isinstance(r, MovedError)]
            if not moved:
                break
            self._route.moved(self._slot, (moved[0][1].host, moved[0][1].port))
            await self.close()
            again = await self._once([commands[place] for place, _ in moved])
            for (place, _), reply in zip(moved, again, strict=True):
                replies[place] = reply
        for place, reply in enumerate(replies):
            if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                replies[place] = await self._ask(reply, commands[place])

    async def _ask(self, redirection: AskError, command: Command) -> Reply:
        wire = await self._route.open_aside((redirection.host, redirection.port))
        try:
            async with asyncio.timeout(self._timeout):
                return (await converse(wire, [(b"ASKING",), command]))[1]
        finally:
            await wire.disconnect(nowait=True)


async def _is_spoilt(wire: Wire) -> bool:
    """Say whether something came in that nobody asked for: mostly the end of the connection."""
    try:
        return await wire.can_read()
    except FAILURES:
        return True
