"""Where to connect to: a server that stays where it is, the primary that Sentinels name, or the nodes of a cluster.

redis-py's connections are used, and not its clients: there is one connection in a lane, and no pool. Its client for
clusters also closes the connections to all nodes when one of them says CLUSTERDOWN, so that losing some shards slows
down the others: with one node of three gone for good, their calls took 32 ms at the median, and 1 ms this way.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, cast

from redis.exceptions import ClusterDownError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from discovery.stores.redis.failures import FAILURES
from discovery.stores.redis.link import Address, Reply, Wire, converse

Check = Callable[[Wire], Awaitable[None]]


class Dialer:
    """Connects to servers of one kind: all have the same credentials, the same TLS and the same time to answer."""

    def __init__(self, make: Callable[[Address], Wire], timeout: float) -> None:
        """`make` returns a connection that is yet to be connected."""
        self._make = make
        self._timeout = timeout

    async def open(self, address: Address, check: Check | None = None) -> Wire:
        """Return a connection that is connected and passes `check`.

        May raise any of FAILURES, and then leaves nothing open.
        """
        wire = self._make(address)
        try:
            async with asyncio.timeout(self._timeout):
                await wire.connect()
                if check is not None:
                    await check(wire)
        except BaseException:
            await wire.disconnect(nowait=True)
            raise
        return wire

    async def ask(self, address: Address, *command: bytes) -> Reply:
        """Return the reply to one command. May raise any of FAILURES."""
        wire = await self.open(address)
        try:
            async with asyncio.timeout(self._timeout):
                [reply] = await converse(wire, [command])
        finally:
            await wire.disconnect(nowait=True)
        if isinstance(reply, ResponseError):
            raise reply
        return reply


async def is_primary(wire: Wire) -> None:
    """Raise ReadOnlyError unless the server is a primary.

    A replica would answer a GET, and while it starts to copy its primary it would say that there is nothing.
    """
    [role] = await converse(wire, [(b"ROLE",)])
    if isinstance(role, list) and role[0] != b"master":
        raise ReadOnlyError(f"READONLY the server is a {role[0]!r}")
    # Otherwise it refused: not every user may ask, and not every proxy knows the command.


class Fixed:
    """One server, which has every slot."""

    def __init__(self, dialer: Dialer, address: Address = ("", 0)) -> None:
        self._dialer = dialer
        self._address = address

    async def open(self, slot: int) -> Wire:  # noqa: ARG002
        """See Route."""
        return await self._dialer.open(self._address, is_primary)

    async def open_aside(self, address: Address) -> Wire:
        """See Route."""
        return await self._dialer.open(address)

    def moved(self, slot: int, address: Address) -> None:
        """See Route. Only a cluster says so: then the next command says so again, until it is an error."""

    def lost(self, slot: int) -> None:
        """See Route."""


class Sentinels(Fixed):
    """The primary of a service, wherever it is at the time, as the guide for Sentinel clients has it."""

    def __init__(
        self, dialer: Dialer, guides: Dialer, sentinels: Iterable[Address], service: str
    ) -> None:
        """`guides` connects to `sentinels`."""
        super().__init__(dialer)
        self._guides = guides
        self._sentinels = deque(sentinels)
        self._service = service.encode()

    async def open(self, slot: int) -> Wire:  # noqa: ARG002
        """See Route."""
        failures: list[BaseException] = []
        for _ in range(len(self._sentinels)):
            try:
                return await self._dialer.open(await self._primary(self._sentinels[0]), is_primary)
            except FAILURES as failure:
                failures.append(failure)
                # Who does not answer, or sends us to a wrong place, is the last to be asked again.
                self._sentinels.rotate(-1)
        raise failures[-1]

    async def _primary(self, sentinel: Address) -> Address:
        reply = await self._guides.ask(
            sentinel, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._service
        )
        if reply is None:
            raise RedisConnectionError("the Sentinel knows no such service")
        host, port = cast("Sequence[bytes]", reply)
        return host.decode(), int(port)


class Cluster:
    """The nodes of a cluster: for each slot the one that has it."""

    def __init__(
        self, dialer: Dialer, guides: Dialer, seeds: Iterable[Address], slots: Collection[int]
    ) -> None:
        """`guides` connects to any node, as `dialer` does, but is less patient; `slots` are the ones that matter."""
        self._dialer = dialer
        self._guides = guides
        self._nodes = set(seeds)
        self._slots = slots
        self._owners: dict[int, Address] = {}
        self._learning = asyncio.Lock()

    async def open(self, slot: int) -> Wire:
        """See Route."""
        async with self._learning:
            if slot not in self._owners:
                await self._learn()
        if slot not in self._owners:
            raise ClusterDownError(f"CLUSTERDOWN no node has slot {slot}")
        return await self._dialer.open(self._owners[slot])

    async def open_aside(self, address: Address) -> Wire:
        """See Route."""
        return await self._dialer.open(address)

    def moved(self, slot: int, address: Address) -> None:
        """See Route."""
        if address[0]:
            self._owners[slot] = address
        else:
            self.lost(slot)

    def lost(self, slot: int) -> None:
        """See Route."""
        self._owners.pop(slot, None)

    async def _learn(self) -> None:
        """Ask the nodes, in any order, until one answers."""
        failure: BaseException = ClusterDownError("CLUSTERDOWN no node is known")
        for node in random.sample(sorted(self._nodes), len(self._nodes)):
            try:
                reply = await self._guides.ask(node, b"CLUSTER", b"SLOTS")
            except FAILURES as error:
                failure = error
                continue
            self._take_in(cast("list[Any]", reply), node)
            return
        raise failure

    def _take_in(self, ranges: list[Any], told_by: Address) -> None:
        self._owners.clear()
        for first, last, *nodes in ranges:
            addresses = [_address(node, told_by) for node in nodes]
            self._nodes.update(addresses)
            owned = (slot for slot in self._slots if first <= slot <= last)
            self._owners.update(dict.fromkeys(owned, addresses[0]))


def _address(node: Sequence[Any], told_by: Address) -> Address:
    """Return where a node is; one that does not know its own name is where we found the one that told us."""
    host = (node[0] or b"").decode()
    return (told_by[0] if host in {"", "?"} else host), int(node[1])
