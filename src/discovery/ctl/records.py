"""Messages as plain values, the way `--output json` has them: snake_case names, RFC 3339 times, None for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.auth import ApiKey, Role
from discovery.ctl.text import rfc3339
from discovery.models import Lease, WatchEvent
from discovery.transport.moments import to_datetime

Fields = Mapping[str, object]


def of_record(record: pb.Record) -> Fields:
    """Return a lease as an administrator sees it."""
    return {
        "mesh_id": record.mesh_id,
        **_agent(record.agent_id),
        "pubkey": record.pubkey,
        "endpoints": list(record.endpoints),
        "metadata": dict(record.metadata),
        "granted_at": rfc3339(record.granted_at),
        "last_seen": rfc3339(record.last_seen),
        "expires_at": rfc3339(record.expires_at),
        "revision": record.revision,
        "key_name": record.key_name or None,
    }


def of_lease(lease: Lease) -> Fields:
    """Return a lease as anybody may look it up."""
    said = lease.registration
    return {
        "mesh_id": said.mesh_id,
        **_agent(said.agent_id),
        "pubkey": said.pubkey,
        "endpoints": list(said.endpoints),
        "metadata": dict(said.metadata),
        "last_seen": rfc3339(to_datetime(lease.last_seen_us)),
        "expires_at": rfc3339(to_datetime(lease.expires_at_us)),
        "revision": lease.revision,
    }


def of_state(event: WatchEvent) -> Fields:
    """Return a state that a watch tells of; `colony` is None when there is none."""
    return {
        "mesh_id": event.mesh_id,
        "state": event.presence.value,
        "revision": event.revision,
        "colony": None if event.lease is None else of_lease(event.lease),
    }


def of_event(event: pb.Event) -> Fields:
    """Return something that happened."""
    return {
        "at": rfc3339(event.at),
        "kind": kind_name(event.kind),
        "mesh_id": event.mesh_id or None,
        "agent_id": event.agent_id or None,
        "pubkey": event.pubkey or None,
        "key_name": event.key_name or None,
        "address": event.address or None,
        "reason": event.reason or None,
        "message": event.message or None,
        "revision": event.revision or None,
    }


def kind_name(kind: pb.EventKind) -> str:
    """Return the name of a kind of event; a newer server's, which has none here, is its number."""
    return (kind.name or str(int(kind))).removeprefix("EVENT_KIND_").lower()


def of_stats(stats: pb.StatsResponse) -> Fields:
    """Return the counts of a replica."""
    return {
        "version": stats.version,
        "uptime_seconds": stats.uptime_seconds,
        "store": stats.store,
        "draining": stats.draining,
        "colonies": stats.colonies,
        "agents": stats.agents,
        "connections": stats.connections,
        "watches": stats.watches,
        "calls": [{"method": c.method, "status": c.status, "count": c.count} for c in stats.calls],
    }


def of_key(key: ApiKey) -> Fields:
    """Return an API key: nothing of its secret."""
    return {
        "name": key.name,
        "roles": roles_of(key),
        "meshes": list(key.meshes),
        "created": _moment(key.created_at_us),
        "expires": _moment(key.expires_at_us),
    }


def roles_of(key: ApiKey) -> Sequence[str]:
    """Return the names of a key's roles, always in the same order."""
    return [role.value for role in Role if role in key.roles]


def _moment(unix_us: int | None) -> str | None:
    return None if unix_us is None else rfc3339(to_datetime(unix_us))


def _agent(agent_id: str) -> Fields:
    return {"agent_id": agent_id} if agent_id else {}
