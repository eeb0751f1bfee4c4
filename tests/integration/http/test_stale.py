"""How an answer says that it is old, over each protocol."""

from __future__ import annotations

import httpx
from grpclib.client import Channel
from grpclib.const import Cardinality

from discovery._gen.coral.discovery.v1 import LookupColonyRequest, LookupColonyResponse
from discovery.client import DiscoveryClient
from discovery.clock import Instant
from discovery.errors import StoreUnavailableError
from discovery.models import Lease
from tests.integration.support import running
from tests.support import MESH, registration

LOOKUP = "/coral.discovery.v1.DiscoveryService/LookupColony"


async def away(mesh_id: str, *, now: Instant, agent_id: str = "") -> Lease | None:
    raise StoreUnavailableError("away", retry_after=1.0)


async def test_each_protocol_carries_the_age_of_an_old_answer_and_none_of_a_new_one() -> None:
    async with running(stale_lookups=60) as server:
        async with DiscoveryClient(server.url) as client:
            await client.register_colony(registration())
        async with httpx.AsyncClient(base_url=server.url) as http:
            fresh = await http.get(f"/v1/colony/lookup/{MESH}")
            server.server._store.lookup = away  # type: ignore[method-assign]
            server.clock.advance(7)
            rest = await http.get(f"/v1/colony/lookup/{MESH}")
            connect = await http.post(LOOKUP, json={"mesh_id": MESH})
        grpc = await grpc_metadata(server.port)

    assert "coral-staleness" not in fresh.headers
    assert rest.headers["coral-staleness"] == "7"
    assert connect.headers["coral-staleness"] == "7"
    assert grpc == "7"
    assert connect.json()["meshId"] == MESH


async def grpc_metadata(port: int) -> str | bytes:
    channel = Channel("127.0.0.1", port)
    async with channel.request(
        LOOKUP, Cardinality.UNARY_UNARY, LookupColonyRequest, LookupColonyResponse
    ) as stream:
        await stream.send_message(LookupColonyRequest(MESH), end=True)
        await stream.recv_message()
        assert stream.initial_metadata is not None
        age = stream.initial_metadata["coral-staleness"]
    channel.close()
    return age
