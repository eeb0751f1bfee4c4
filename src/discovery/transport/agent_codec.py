"""Agents' messages to models and back: what `codec` does for colonies. Shared by servers and clients."""

from __future__ import annotations

from collections.abc import Iterable

from discovery._gen.coral.discovery import v1 as pb
from discovery.models import Lease, Registered, Registration, Synced, WatchEvent
from discovery.transport.codec import (
    ABSENT,
    REGISTERED,
    content_in,
    endpoint_message,
    granted,
)
from discovery.transport.messages import new, plain
from discovery.transport.moments import from_datetime, to_datetime


def registration_from(message: pb.RegisterAgentRequest | pb.LookupAgentResponse) -> Registration:
    """Return what an agent says of itself, from its own message or from the answer to a lookup."""
    said = plain(message)
    return Registration(agent_id=said.agent_id, **content_in(said))


def register_request(registration: Registration) -> pb.RegisterAgentRequest:
    """Return the request that registers an agent; `registration_from` reads it back."""
    request = pb.RegisterAgentRequest(
        mesh_id=registration.mesh_id,
        agent_id=registration.agent_id,
        pubkey=registration.pubkey,
        endpoints=list(registration.endpoints),
        metadata=dict(registration.metadata),
        mesh_ipv4=registration.mesh_ipv4,
        mesh_ipv6=registration.mesh_ipv6,
    )
    if registration.observed_endpoint is not None:
        request.observed_endpoint = endpoint_message(registration.observed_endpoint)
    return request


def register_reply(registered: Registered) -> pb.RegisterAgentResponse:
    """Return the answer to a registration that succeeded; `codec.registered_from` reads it back."""
    return granted(pb.RegisterAgentResponse, registered)


def lookup_reply(lease: Lease) -> pb.LookupAgentResponse:
    """Return the answer to a lookup that found `lease`; `lease_from` reads it back."""
    registration = lease.registration
    reply = new(
        pb.LookupAgentResponse,
        mesh_id=registration.mesh_id,
        agent_id=registration.agent_id,
        pubkey=registration.pubkey,
        endpoints=list(registration.endpoints),
        metadata=dict(registration.metadata),
        last_seen=to_datetime(lease.last_seen_us),
        expires_at=to_datetime(lease.expires_at_us),
        revision=lease.revision,
        mesh_ipv4=registration.mesh_ipv4,
        mesh_ipv6=registration.mesh_ipv6,
    )
    if registration.observed_endpoint is not None:
        reply.observed_endpoints = [endpoint_message(registration.observed_endpoint)]
    return reply


def lease_from(reply: pb.LookupAgentResponse) -> Lease:
    """Return the lease that a lookup found."""
    return Lease(
        registration=registration_from(reply),
        revision=reply.revision,
        last_seen_us=from_datetime(reply.last_seen),
        expires_at_us=from_datetime(reply.expires_at),
    )


def list_reply(leases: Iterable[Lease], next_page_token: str) -> pb.ListAgentsResponse:
    """Return one page of a mesh's agents."""
    return pb.ListAgentsResponse([lookup_reply(lease) for lease in leases], next_page_token)


def watch_reply(event: WatchEvent | Synced) -> pb.WatchAgentsResponse:
    """Return the message that tells a watcher of `event`; `event_from` reads it back."""
    if isinstance(event, Synced):
        return pb.WatchAgentsResponse(revision=event.revision, synced=True)
    if event.lease is None:
        gone = pb.LookupAgentResponse(mesh_id=event.mesh_id, agent_id=event.agent_id)
        return pb.WatchAgentsResponse(ABSENT, gone, event.revision)
    return pb.WatchAgentsResponse(REGISTERED, lookup_reply(event.lease), event.revision)


def event_from(mesh_id: str, reply: pb.WatchAgentsResponse) -> WatchEvent | Synced:
    """Return what a watcher of the agents of `mesh_id` was told."""
    if reply.synced:
        return Synced(mesh_id, reply.revision)
    lease = lease_from(reply.agent) if reply.state == REGISTERED else None
    return WatchEvent(mesh_id, reply.revision, lease, reply.agent.agent_id)
