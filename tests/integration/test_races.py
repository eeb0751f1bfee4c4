"""A mesh_id never has two owners, whoever calls at the same instant (promise 2)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from itertools import chain

from discovery.client import DiscoveryClient
from tests.integration.grpcio_client import Schema
from tests.integration.raw import RawConnection, framed, raw_connection, request_headers
from tests.integration.support import PATIENCE, ServerProcess
from tests.support import MESH, key

CONNECTIONS = 20
CLIENTS_EACH = 50


async def test_of_a_thousand_clients_that_register_at_once_exactly_one_wins(
    child: ServerProcess, schema: Schema
) -> None:
    async with AsyncExitStack() as stack:
        crowds = [
            Crowd(await stack.enter_async_context(raw_connection(child.port)), number)
            for number in range(CONNECTIONS)
        ]
        await asyncio.gather(*(crowd.gather() for crowd in crowds))
        await asyncio.gather(*(crowd.rush(schema) for crowd in crowds))
        outcomes = dict(chain.from_iterable([await crowd.outcomes() for crowd in crowds]))
    assert Counter(outcomes.values()) == {"OK": 1, "MESH_ID_TAKEN": CONNECTIONS * CLIENTS_EACH - 1}
    [winner] = [pubkey for pubkey, outcome in outcomes.items() if outcome == "OK"]
    async with DiscoveryClient(child.url, timeout=PATIENCE) as client:
        assert (await client.lookup_colony(MESH)).registration.pubkey == winner


class Crowd:
    """Clients with different keys on one connection, who want the same mesh."""

    def __init__(self, connection: RawConnection, number: int) -> None:
        self._connection = connection
        first = number * CLIENTS_EACH + 1
        self._streams: Mapping[str, int] = {
            key(one): connection.begin(request_headers("RegisterColony"))
            for one in range(first, first + CLIENTS_EACH)
        }

    async def gather(self) -> None:
        """Let every call reach the server, and wait there for its message."""
        await self._connection.seen()

    async def rush(self, schema: Schema) -> None:
        """Send every message at once."""
        for pubkey, stream in self._streams.items():
            message = schema.new(
                "RegisterColonyRequest", mesh_id=MESH, pubkey=pubkey, endpoints=["192.0.2.1:1"]
            )
            self._connection.data(stream, framed(message.SerializeToString()))
        await self._connection.send()

    async def outcomes(self) -> Iterator[tuple[str, str]]:
        """Return each key with "OK", or with the reason of the error that it got."""
        answers = [await self._connection.answer(stream) for stream in self._streams.values()]
        outcomes = ["OK" if answer.status == 0 else answer.reason for answer in answers]
        return zip(self._streams, outcomes, strict=True)
