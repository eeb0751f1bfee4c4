"""The calls of each workload as bytes, in the protocol of ours and in etcd's."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Protocol as Interface
from typing import TypeVar

import betterproto

from benchmarks.workloads import Kind, Protocol, Workload
from discovery._gen.coral.discovery.v1 import (
    LookupColonyRequest,
    LookupColonyResponse,
    RegisterColonyRequest,
    RegisterColonyResponse,
)

MESHES = 256
"""Of the workloads that touch many: more than calls are ever under way, so no two of them change one mesh at once."""

FLEET = 10_000
"""Colonies that each repeat their registration: more than twice the 4096 that `discovery.remembered` keeps."""

CHANGES = 8
"""Contents that each mesh goes through."""

HEARTBEATS_PER_LOOKUP = 5

T = TypeVar("T", bound=betterproto.Message)


class WrongAnswerError(Exception):
    """A server answered, but not what was asked."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, and how its answer is known to be right."""

    path: str
    request: betterproto.Message
    reply: type[betterproto.Message]
    expected: dict[str, object]
    """Fields of the answer that must have these values."""

    def body(self, protocol: Protocol) -> bytes:
        """Return the request as it goes over the wire."""
        if protocol is Protocol.JSON:
            return self.request.to_json().encode()
        return framed(bytes(self.request)) if protocol is Protocol.GRPC else bytes(self.request)

    def check(self, protocol: Protocol, answer: bytes) -> None:
        """Raise WrongAnswerError unless `answer`, a bare message, is right."""
        message = self.reply()
        if protocol is Protocol.JSON:
            message.from_json(answer)
        else:
            message.parse(answer)
        for name, value in self.expected.items():
            if (got := getattr(message, name)) != value:
                raise WrongAnswerError(f"{self.path}: {name} is {got!r} and not {value!r}")


def framed(message: bytes) -> bytes:
    """Return `message` with gRPC's length prefix."""
    return struct.pack(">BI", 0, len(message)) + message


class Schema(Interface):
    """A server's own way to say the same things."""

    def begin(self) -> Sequence[Call]:
        """Return the calls that come before any other, once for each server."""
        ...

    def register(self, mesh: int, content: int = 0) -> Call:
        """Return the registration of a mesh; another `content` is another registration by the same key."""
        ...

    def lookup(self, mesh: int) -> Call:
        """Return the lookup of a mesh."""
        ...


def mesh_id(mesh: int) -> str:
    """Return the mesh id of that number."""
    return f"mesh-{mesh:06}"


def registration(mesh: int, content: int = 0) -> RegisterColonyRequest:
    """Return what a colony registers: a key, two endpoints and a bit of metadata."""
    return RegisterColonyRequest(
        mesh_id=mesh_id(mesh),
        pubkey=base64.b64encode((mesh + 1).to_bytes(32, "big")).decode(),
        endpoints=[f"203.0.113.5:{41820 + content}", "[2001:db8::5]:41820"],
        metadata={"region": "eu-west"},
    )


class Coral:
    """The protocol of RFD 001, which our server and most peers speak."""

    _SERVICE = "/coral.discovery.v1.DiscoveryService"

    def begin(self) -> Sequence[Call]:
        """See Schema."""
        return ()

    def register(self, mesh: int, content: int = 0) -> Call:
        """See Schema."""
        request = registration(mesh, content)
        expected: dict[str, object] = {"success": True, "ttl": 300}
        return Call(f"{self._SERVICE}/RegisterColony", request, RegisterColonyResponse, expected)

    def lookup(self, mesh: int) -> Call:
        """See Schema."""
        request = LookupColonyRequest(mesh_id=mesh_id(mesh))
        expected: dict[str, object] = {
            "mesh_id": mesh_id(mesh),
            "pubkey": registration(mesh).pubkey,
            "metadata": registration(mesh).metadata,
        }
        return Call(f"{self._SERVICE}/LookupColony", request, LookupColonyResponse, expected)


@dataclass
class LeaseGrantRequest(betterproto.Message):
    """etcdserverpb.LeaseGrantRequest; so for those below, with the fields that are used."""

    ttl: int = betterproto.int64_field(1)
    id: int = betterproto.int64_field(2)


@dataclass
class LeaseGrantResponse(betterproto.Message):
    """The lease."""

    id: int = betterproto.int64_field(2)
    ttl: int = betterproto.int64_field(3)


@dataclass
class PutRequest(betterproto.Message):
    """A key, its value and its lease."""

    key: bytes = betterproto.bytes_field(1)
    value: bytes = betterproto.bytes_field(2)
    lease: int = betterproto.int64_field(3)


@dataclass
class PutResponse(betterproto.Message):
    """That it was stored."""


@dataclass
class RangeRequest(betterproto.Message):
    """One key, when there is no end of the range."""

    key: bytes = betterproto.bytes_field(1)


@dataclass
class RangeResponse(betterproto.Message):
    """How many keys were found, and their values, which are not read here."""

    count: int = betterproto.int64_field(4)


class Etcd:
    """The same over etcd: a colony is a key with a lease. One lease serves them all, which is the least work for it."""

    _LEASE = 7
    _TTL = 3600

    def begin(self) -> Sequence[Call]:
        """See Schema."""
        request = LeaseGrantRequest(self._TTL, self._LEASE)
        expected: dict[str, object] = {"id": self._LEASE}
        return (Call("/etcdserverpb.Lease/LeaseGrant", request, LeaseGrantResponse, expected),)

    def register(self, mesh: int, content: int = 0) -> Call:
        """See Schema."""
        value = bytes(registration(mesh, content))
        request = PutRequest(mesh_id(mesh).encode(), value, self._LEASE)
        return Call("/etcdserverpb.KV/Put", request, PutResponse, {})

    def lookup(self, mesh: int) -> Call:
        """See Schema."""
        request = RangeRequest(mesh_id(mesh).encode())
        return Call("/etcdserverpb.KV/Range", request, RangeResponse, {"count": 1})


def calls_of(workload: Workload, schema: Schema) -> Sequence[Call]:
    """Return the calls of a workload, to be made in this order, over and over."""
    match workload.kind:
        case Kind.LOOKUP:
            return (schema.lookup(0),)
        case Kind.HEARTBEAT:
            return (schema.register(0),)
        case Kind.FLEET:
            return tuple(schema.register(mesh) for mesh in range(FLEET))
        case Kind.CHANGE:
            return tuple(
                schema.register(mesh, content)
                for content in range(CHANGES)
                for mesh in range(MESHES)
            )
        case Kind.MIX:
            return _mix(schema)


def _mix(schema: Schema) -> Sequence[Call]:
    """Return `HEARTBEATS_PER_LOOKUP` rounds of heartbeats, with each mesh's lookup somewhere between them."""
    heartbeats = cycle([schema.register(mesh) for mesh in range(MESHES)])
    mixed: list[Call] = []
    for mesh in range(MESHES):
        mixed += [*islice(heartbeats, HEARTBEATS_PER_LOOKUP), schema.lookup(mesh)]
    return tuple(mixed)


def preparation(workload: Workload, schema: Schema) -> Sequence[Call]:
    """Return what must be registered before a workload begins. A fleet registers by itself, while it warms up."""
    meshes = MESHES if workload.kind in {Kind.CHANGE, Kind.MIX} else 1
    return tuple(schema.register(mesh) for mesh in range(meshes))


def call_file(calls: Sequence[Call], protocol: Protocol) -> str:
    """Return the calls as the load program reads them."""
    return json.dumps(
        [
            {"path": call.path, "body": base64.b64encode(call.body(protocol)).decode()}
            for call in calls
        ]
    )
