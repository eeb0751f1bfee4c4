"""The handler of each RPC: message in, model to the service, message out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from operator import attrgetter
from typing import Any, Generic, Protocol, Self, TypeVar

import betterproto

from discovery._gen.coral.discovery import v1 as pb
from discovery.models import Found, Lease, WatchEvent
from discovery.remembered import Remembered
from discovery.service import DiscoveryService
from discovery.transport import agent_codec, codec, messages
from discovery.transport.once import Once
from discovery.transport.pipeline import Call, Handle, HandleStream
from discovery.transport.streamed import Replies
from discovery.watch import Subscription

Event_co = TypeVar("Event_co", covariant=True)

T = TypeVar("T")
M = TypeVar("M", bound=betterproto.Message)

STALENESS = "coral-staleness"
"""Tells how many seconds old an answer is that was given while the store was away."""


def _for_many(reply: Callable[[T], M]) -> Callable[[T], M]:
    return lambda about: messages.for_many(reply(about))


colony_watch_reply = Once(_for_many(codec.watch_reply))
agent_watch_reply = Once(_for_many(agent_codec.watch_reply))

SERVICE = "/coral.discovery.v1.DiscoveryService"


class DiscoveryRpcs:
    """Answers the RPCs of `coral.discovery.v1.DiscoveryService` with a DiscoveryService."""

    def __init__(self, service: DiscoveryService) -> None:
        self._service = service
        # The same message is the same registration, which need not be validated again; a lease that many look up is
        # one answer, which need not be written again.
        self._mesh_in = Remembered[pb.LookupColonyRequest, str](attrgetter("mesh_id"))
        self._colony_in = Remembered(codec.registration_from)
        self._agent_in = Remembered(agent_codec.registration_from)
        self._colony_out = Remembered(_for_many(codec.lookup_reply))
        self._agent_out = Remembered(_for_many(agent_codec.lookup_reply))

    def handlers(self) -> Mapping[str, Handle]:
        """Return the handlers of the RPCs with one reply, by path."""
        handlers: Mapping[str, Any] = {
            "RegisterColony": self._register_colony,
            "LookupColony": self._lookup_colony,
            "DeregisterColony": self._deregister_colony,
            "RegisterAgent": self._register_agent,
            "LookupAgent": self._lookup_agent,
            "DeregisterAgent": self._deregister_agent,
            "ListAgents": self._list_agents,
            "Health": self._health,
        }
        return {f"{SERVICE}/{name}": handle for name, handle in handlers.items()}

    def streams(self) -> Mapping[str, HandleStream]:
        """Return the handlers of the RPCs with many replies, by path."""
        streams: Mapping[str, Any] = {
            "WatchColony": self._watch_colony,
            "WatchAgents": self._watch_agents,
        }
        return {f"{SERVICE}/{name}": handle for name, handle in streams.items()}

    async def _register_colony(
        self, request: pb.RegisterColonyRequest, call: Call
    ) -> pb.RegisterColonyResponse:
        registered = await self._service.register_colony(
            self._colony_in(request), call.peer, call.caller
        )
        return codec.register_reply(registered)

    async def _lookup_colony(
        self, request: pb.LookupColonyRequest, call: Call
    ) -> pb.LookupColonyResponse:
        found = await self._service.lookup_colony(self._mesh_in(request))
        return self._colony_out(_noting_staleness(found, call))

    async def _deregister_colony(
        self, request: pb.DeregisterColonyRequest, _call: Call
    ) -> pb.DeregisterColonyResponse:
        removed = await self._service.deregister_colony(request.mesh_id, request.pubkey)
        return pb.DeregisterColonyResponse(removed=removed)

    async def _register_agent(
        self, request: pb.RegisterAgentRequest, call: Call
    ) -> pb.RegisterAgentResponse:
        registered = await self._service.register_agent(
            self._agent_in(request), call.peer, call.caller
        )
        return agent_codec.register_reply(registered)

    async def _lookup_agent(
        self, request: pb.LookupAgentRequest, call: Call
    ) -> pb.LookupAgentResponse:
        found = await self._service.lookup_agent(request.mesh_id, request.agent_id)
        return self._agent_out(_noting_staleness(found, call))

    async def _deregister_agent(
        self, request: pb.DeregisterAgentRequest, _call: Call
    ) -> pb.DeregisterAgentResponse:
        removed = await self._service.deregister_agent(
            request.mesh_id, request.agent_id, request.pubkey
        )
        return pb.DeregisterAgentResponse(removed=removed)

    async def _list_agents(
        self, request: pb.ListAgentsRequest, _call: Call
    ) -> pb.ListAgentsResponse:
        leases, token = await self._service.list_agents(
            request.mesh_id, request.page_size, request.page_token
        )
        return agent_codec.list_reply(leases, token)

    async def _health(self, _request: pb.HealthRequest, _call: Call) -> pb.HealthResponse:
        return codec.health_reply(await self._service.health())

    def _watch_colony(self, request: pb.WatchColonyRequest, _call: Call) -> Replies:
        watch = self._service.watch_colony(request.mesh_id, request.after_revision)
        return _Watch(watch, colony_watch_reply)

    def _watch_agents(self, request: pb.WatchAgentsRequest, _call: Call) -> Replies:
        watch = self._service.watch_agents(request.mesh_id, request.after_revision)
        return _Told(watch, agent_watch_reply)


class _Events(Protocol[Event_co]):
    def __anext__(self) -> Awaitable[Event_co]: ...

    def aclose(self) -> Awaitable[object]: ...


class _Told(Generic[Event_co]):
    """What a watch finds, in messages. A generator would be three times as large while it waits."""

    __slots__ = ("_events", "_reply")

    def __init__(
        self, events: _Events[Event_co], reply: Callable[[Event_co], betterproto.Message]
    ) -> None:
        self._events = events
        self._reply = reply

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> betterproto.Message:
        return self._reply(await self._events.__anext__())

    def aclose(self) -> Awaitable[object]:
        return self._events.aclose()


class _Watch(_Told[WatchEvent]):
    """The same of a Subscription, which can be waited for without a task: see Patient."""

    __slots__ = ()

    _events: Subscription

    async def join(self) -> None:
        await self._events.join()

    def wait(self, wake: Callable[[], object]) -> bool:
        return self._events.wait(wake)


def _noting_staleness(found: Found, call: Call) -> Lease:
    if found.staleness is not None:
        call.reply_metadata[STALENESS] = str(found.staleness)
    return found.lease
