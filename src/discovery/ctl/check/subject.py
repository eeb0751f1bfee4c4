"""The server that is checked, and made-up colonies and agents to check it with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

from discovery.client import DiscoveryClient
from discovery.ctl.access import Access
from discovery.ctl.check.http import HttpClient
from discovery.errors import DiscoveryError
from discovery.models import Registration
from discovery.proof import Prover
from discovery.wireguard.keys import KeyPair

# For documentation, RFC 5737 and RFC 3849: nobody is there.
ENDPOINTS = ("192.0.2.1:41820", "[2001:db8::1]:41820")
OTHER_ENDPOINTS = ("192.0.2.2:41820",)


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody with a key, and a client that proves that key where proofs are asked for."""

    pubkey: str
    client: DiscoveryClient

    def says(self, mesh_id: str, agent_id: str = "") -> Registration:
        """Return a registration with this holder's key."""
        return Registration(mesh_id, self.pubkey, ENDPOINTS, {"check": "yes"}, agent_id=agent_id)


@dataclass(frozen=True, slots=True)
class Subject:
    """The server, as one of its promises is checked: a mesh of its own, two holders of keys, and plain HTTP."""

    mesh: str
    holder: Holder
    other: Holder
    http: HttpClient
    max_wait: float

    @classmethod
    @asynccontextmanager
    async def of(cls, access: Access, mesh: str, max_wait: float) -> AsyncIterator[Self]:
        """Provide the server for checks that may wait `max_wait` seconds; all that is registered is removed again."""
        async with AsyncExitStack() as stack:
            holder = await stack.enter_async_context(_holder(access, mesh))
            other = await stack.enter_async_context(_holder(access, mesh))
            yield cls(mesh, holder, other, HttpClient(access), max_wait)

    @property
    def agent(self) -> str:
        """The agent of the mesh."""
        return "agent"


@asynccontextmanager
async def _holder(access: Access, mesh: str) -> AsyncIterator[Holder]:
    pair = KeyPair.generate()
    async with access.client(Prover(pair.private_key)) as client:
        try:
            yield Holder(pair.public_key, client)
        finally:
            # What was never registered, or is another's, or cannot be reached any more, needs no removal.
            with suppress(DiscoveryError):
                await client.deregister_colony(mesh, pair.public_key)
            with suppress(DiscoveryError):
                await client.deregister_agent(mesh, "agent", pair.public_key)
