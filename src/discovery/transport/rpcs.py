"""The handler of each RPC: message in, model to the service, message out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from discovery._gen.coral.discovery.v1 import (
    DeregisterColonyRequest,
    DeregisterColonyResponse,
    HealthRequest,
    HealthResponse,
    LookupColonyRequest,
    LookupColonyResponse,
    RegisterColonyRequest,
    RegisterColonyResponse,
    WatchColonyRequest,
    WatchColonyResponse,
)
from discovery.service import DiscoveryService
from discovery.transport import codec
from discovery.transport.pipeline import Call, Handle, HandleStream

STALENESS = "coral-staleness"
"""Tells how many seconds old an answer is that was given while the store was away."""

SERVICE = "/coral.discovery.v1.DiscoveryService"


class DiscoveryRpcs:
    """Answers the RPCs of `coral.discovery.v1.DiscoveryService` with a DiscoveryService."""

    def __init__(self, service: DiscoveryService) -> None:
        self._service = service

    def handlers(self) -> Mapping[str, Handle]:
        """Return the handlers by path. An RPC of the protocol that is not among them is not served yet."""
        handlers: Mapping[str, Any] = {
            "RegisterColony": self._register_colony,
            "LookupColony": self._lookup_colony,
            "DeregisterColony": self._deregister_colony,
            "Health": self._health,
        }
        return {f"{SERVICE}/{name}": handle for name, handle in handlers.items()}

    def streams(self) -> Mapping[str, HandleStream]:
        """Return the handlers of the RPCs with many replies, by path."""
        streams: Mapping[str, Any] = {"WatchColony": self._watch_colony}
        return {f"{SERVICE}/{name}": handle for name, handle in streams.items()}

    async def _register_colony(
        self, request: RegisterColonyRequest, call: Call
    ) -> RegisterColonyResponse:
        registered = await self._service.register_colony(
            codec.registration_from(request), call.peer
        )
        return codec.register_reply(registered)

    async def _lookup_colony(
        self, request: LookupColonyRequest, call: Call
    ) -> LookupColonyResponse:
        found = await self._service.lookup_colony(request.mesh_id)
        if found.staleness is not None:
            call.reply_metadata[STALENESS] = str(found.staleness)
        return codec.lookup_reply(found.lease)

    async def _deregister_colony(
        self, request: DeregisterColonyRequest, _call: Call
    ) -> DeregisterColonyResponse:
        removed = await self._service.deregister_colony(request.mesh_id, request.pubkey)
        return DeregisterColonyResponse(removed=removed)

    async def _health(self, _request: HealthRequest, _call: Call) -> HealthResponse:
        return codec.health_reply(await self._service.health())

    async def _watch_colony(
        self, request: WatchColonyRequest, _call: Call
    ) -> AsyncGenerator[WatchColonyResponse]:
        watch = self._service.watch_colony(request.mesh_id, request.after_revision)
        async with aclosing(watch) as events:
            async for event in events:
                yield codec.watch_reply(event)
