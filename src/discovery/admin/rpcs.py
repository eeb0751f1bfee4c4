"""The handler of each RPC of the admin API: message in, model to the service, message out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.admin.events import Event
from discovery.admin.service import AdminService, Ages
from discovery.models import Lease
from discovery.transport.moments import to_datetime
from discovery.transport.pipeline import Call, Handle, HandleStream

SERVICE = "/coral.discovery.admin.v1.AdminService"


class AdminRpcs:
    """Answers the RPCs of `coral.discovery.admin.v1.AdminService` with an AdminService."""

    def __init__(self, service: AdminService) -> None:
        self._service = service

    def handlers(self) -> Mapping[str, Handle]:
        """Return the handlers of the RPCs with one reply, by path."""
        handlers: Mapping[str, Any] = {
            "ListRegistrations": self._list,
            "Inspect": self._inspect,
            "Evict": self._evict,
            "Stats": self._stats,
            "Drain": self._drain,
        }
        return {f"{SERVICE}/{name}": handle for name, handle in handlers.items()}

    def streams(self) -> Mapping[str, HandleStream]:
        """Return the handlers of the RPCs with many replies, by path."""
        streams: Mapping[str, Any] = {"WatchEvents": self._watch}
        return {f"{SERVICE}/{name}": handle for name, handle in streams.items()}

    async def _list(
        self, request: pb.ListRegistrationsRequest, _call: Call
    ) -> pb.ListRegistrationsResponse:
        leases, token = await self._service.list_registrations(
            agents=request.agents,
            prefix=request.mesh_prefix,
            ages=Ages(request.min_age_seconds, request.max_age_seconds),
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListRegistrationsResponse([_record(lease) for lease in leases], token)

    async def _inspect(self, request: pb.InspectRequest, _call: Call) -> pb.InspectResponse:
        found = await self._service.inspect(request.mesh_id, request.agent_id)
        reply = pb.InspectResponse(
            events=[_event(event) for event in found.events],
            events_since=to_datetime(self._service.events_since_us),
        )
        if found.lease is not None:
            reply.record = _record(found.lease)
        if found.reservation is not None:
            reply.reserved_for = found.reservation.pubkey
            reply.reserved_until = to_datetime(found.reservation.until_us)
        return reply

    async def _evict(self, request: pb.EvictRequest, call: Call) -> pb.EvictResponse:
        evicted = await self._service.evict(request.mesh_id, request.agent_id, call)
        return pb.EvictResponse(evicted)

    async def _stats(self, _request: pb.StatsRequest, _call: Call) -> pb.StatsResponse:
        vitals, counts = await self._service.stats()
        return pb.StatsResponse(
            version=vitals.version,
            uptime_seconds=vitals.uptime_seconds,
            store=vitals.store,
            colonies=counts.colonies,
            agents=counts.agents,
            connections=vitals.connections,
            watches=vitals.watches,
            calls=[
                pb.CallCount(method, status, count)
                for (method, status), count in sorted(vitals.calls.items())
            ],
            draining=vitals.draining,
        )

    async def _drain(self, _request: pb.DrainRequest, _call: Call) -> pb.DrainResponse:
        self._service.drain()
        return pb.DrainResponse()

    async def _watch(
        self, request: pb.WatchEventsRequest, _call: Call
    ) -> AsyncGenerator[pb.WatchEventsResponse]:
        watch = self._service.watch(request.mesh_prefix, frozenset(map(int, request.kinds)))
        async with aclosing(watch) as events:
            async for event, missed in events:
                yield pb.WatchEventsResponse(_event(event), missed)


def _record(lease: Lease) -> pb.Record:
    registration = lease.registration
    return pb.Record(
        mesh_id=registration.mesh_id,
        agent_id=registration.agent_id,
        pubkey=registration.pubkey,
        endpoints=list(registration.endpoints),
        metadata=dict(registration.metadata),
        granted_at=to_datetime(lease.granted_at_us),
        last_seen=to_datetime(lease.last_seen_us),
        expires_at=to_datetime(lease.expires_at_us),
        revision=lease.revision,
        key_name=lease.owner,
    )


def _event(event: Event) -> pb.Event:
    return pb.Event(
        at=to_datetime(event.at_us),
        kind=pb.EventKind.try_value(event.kind),
        mesh_id=event.mesh_id,
        agent_id=event.agent_id,
        pubkey=event.pubkey,
        key_name=event.key_name,
        address=event.address,
        reason=event.reason,
        message=event.message,
        revision=event.revision,
    )
