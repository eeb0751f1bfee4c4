"""Calls to discovery servers, with models in and out."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar, cast

from discovery._gen.coral.discovery.v1 import (
    DeregisterAgentRequest,
    DeregisterColonyRequest,
    DiscoveryServiceStub,
    HealthRequest,
    ListAgentsRequest,
    ListAgentsResponse,
    LookupAgentRequest,
    LookupColonyRequest,
    WatchAgentsRequest,
    WatchColonyRequest,
)
from discovery.client.calls import Calls
from discovery.client.proving import Proof, Proving
from discovery.client.targets import Target
from discovery.errors import ConfigError
from discovery.models import HealthReport, Lease, Registered, Registration, Synced, WatchEvent
from discovery.proof import Method, Prover
from discovery.transport import agent_codec, codec

R = TypeVar("R")


class DiscoveryClient:
    """Speaks gRPC to a discovery server, or to the first of several that answers; an async context manager.

    It connects at the first call, and again after a connection was lost. Calls may run at the same time. A call that
    one server cannot answer is made to the next, and a server that failed is asked last for half a minute. Beyond that
    no call is repeated: whether to try again is the caller's to decide, and every error tells by its class.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
        api_key: str | None = None,
        prover: Prover | None = None,
    ) -> None:
        """Prepare to call `endpoints`, such as `https://discovery.example.com` or `http://localhost:8080`, in order.

        `timeout` is each call's, in seconds, however many servers it takes; it travels to them as the call's deadline.
        `tls` is for https endpoints: see `tls_context`. `api_key` goes with each call, so give it to https endpoints,
        or within a network that you trust. `prover` proves to a server that asks for it that a registration's private
        key is held: one client is for one key then.

        Raises:
            ConfigError: there is no endpoint, or one is not an http or https URL.
        """
        self.endpoints = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)
        if not self.endpoints:
            raise ConfigError("at least one discovery endpoint is needed")
        metadata = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._proving = Proving(prover)
        targets = [
            Target(endpoint, tls, metadata, self._proving.hear) for endpoint in self.endpoints
        ]
        self._calls = Calls(targets, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        # The loop closes sockets in its next turn only, and a server that stops waits for that.
        await asyncio.sleep(0)

    def close(self) -> None:
        """Close the connections; calls in flight fail, and later ones too. Idempotent."""
        self._calls.close()

    def reconnect(self) -> None:
        """Drop the connections, so that each call connects anew: for when this machine's network has changed.

        Calls in flight are made once more, and watches end, as if the connections had been lost. Otherwise that would
        take some twenty seconds to be noticed.
        """
        self._calls.reconnect()

    async def register_colony(self, registration: Registration) -> Registered:
        """Register a colony, or renew its lease.

        Raises:
            InvalidFieldError: the registration breaks rules; all are named.
            MeshIdTakenError: another key holds a live lease on the mesh.
        """
        request = codec.register_request(registration)
        reply = await self._proved(
            Method.REGISTER_COLONY,
            registration,
            lambda stub, proof: stub.register_colony(request, metadata=proof),
        )
        return codec.registered_from(reply)

    async def lookup_colony(self, mesh_id: str) -> Lease:
        """Return the live lease on `mesh_id`.

        Raises:
            NotRegisteredError: there is none.
        """
        request = LookupColonyRequest(mesh_id)
        return codec.lease_from(await self._calls.unary(lambda stub: stub.lookup_colony(request)))

    async def deregister_colony(self, mesh_id: str, pubkey: str) -> bool:
        """End the lease that `pubkey` holds on `mesh_id`; return whether there was one.

        Raises:
            NotOwnerError: another key holds a live lease.
        """
        request = DeregisterColonyRequest(mesh_id, pubkey)
        reply = await self._proved(
            Method.DEREGISTER_COLONY,
            Registration(mesh_id, pubkey),
            lambda stub, proof: stub.deregister_colony(request, metadata=proof),
        )
        return reply.removed

    async def watch_colony(
        self, mesh_id: str, after_revision: int = 0
    ) -> AsyncGenerator[WatchEvent]:
        """Yield the state of `mesh_id` now, unless it is the one of `after_revision`, and whenever it changes.

        It has no timeout, and ends only with an error: to go on, watch again after the last revision that was seen.
        Close it, as `contextlib.aclosing` does, to stop watching.

        Raises:
            DrainingError: the server stops.
        """
        request = WatchColonyRequest(mesh_id, after_revision)
        replies = self._calls.watch(lambda stub: stub.watch_colony(request))
        async with aclosing(replies):
            async for reply in replies:
                yield codec.event_from(mesh_id, reply)

    async def register_agent(self, registration: Registration) -> Registered:
        """Register the agent `registration.agent_id` of a mesh, or renew its lease.

        Raises:
            InvalidFieldError: the registration breaks rules; all are named.
            MeshIdTakenError: another key holds a live lease on the agent.
        """
        request = agent_codec.register_request(registration)
        reply = await self._proved(
            Method.REGISTER_AGENT,
            registration,
            lambda stub, proof: stub.register_agent(request, metadata=proof),
        )
        return codec.registered_from(reply)

    async def lookup_agent(self, mesh_id: str, agent_id: str) -> Lease:
        """Return the live lease of one agent of a mesh.

        Raises:
            NotRegisteredError: there is none.
        """
        request = LookupAgentRequest(mesh_id, agent_id)
        return agent_codec.lease_from(
            await self._calls.unary(lambda stub: stub.lookup_agent(request))
        )

    async def deregister_agent(self, mesh_id: str, agent_id: str, pubkey: str) -> bool:
        """End the lease that `pubkey` holds on an agent; return whether there was one.

        Raises:
            NotOwnerError: another key holds a live lease.
        """
        request = DeregisterAgentRequest(mesh_id, agent_id, pubkey)
        reply = await self._proved(
            Method.DEREGISTER_AGENT,
            Registration(mesh_id, pubkey, agent_id=agent_id),
            lambda stub, proof: stub.deregister_agent(request, metadata=proof),
        )
        return reply.removed

    async def list_agents(self, mesh_id: str) -> AsyncGenerator[Lease]:
        """Yield the live lease of each agent of `mesh_id`, in the order of their agent_id, a page a call.

        An agent that is registered all the while is yielded exactly once, one that comes or goes may or may not be.
        """
        token = ""
        while True:
            page = await self._list_agents(ListAgentsRequest(mesh_id, page_token=token))
            for agent in page.agents:
                yield agent_codec.lease_from(agent)
            if not (token := page.next_page_token):
                return

    async def watch_agents(
        self, mesh_id: str, after_revision: int = 0
    ) -> AsyncGenerator[WatchEvent | Synced]:
        """Yield the state of each agent of `mesh_id` now, then Synced, then each change of any of them.

        Whoever was known before and is not named before Synced is gone; but if the revision of Synced is
        `after_revision`, nothing has changed and none is named. Otherwise it is as `watch_colony`.
        """
        request = WatchAgentsRequest(mesh_id, after_revision)
        replies = self._calls.watch(lambda stub: stub.watch_agents(request))
        async with aclosing(replies):
            async for reply in replies:
                yield agent_codec.event_from(mesh_id, reply)

    async def health(self) -> HealthReport:
        """Return how the server is."""
        return codec.health_from(await self._calls.unary(lambda stub: stub.health(HealthRequest())))

    async def _list_agents(self, request: ListAgentsRequest) -> ListAgentsResponse:
        return await self._calls.unary(lambda stub: stub.list_agents(request))

    async def _proved(
        self,
        method: Method,
        registration: Registration,
        call: Callable[[DiscoveryServiceStub, Proof], Awaitable[R]],
    ) -> R:
        return await self._proving.call(
            method,
            registration,
            lambda proof: self._calls.unary(
                lambda stub: call(stub, {**cast("Proof", stub.metadata), **proof})
            ),
        )
