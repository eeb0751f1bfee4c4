"""What is measured: five kinds of work, over eight transports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The work of one workload."""

    LOOKUP = "lookup"
    """The same colony is looked up again and again."""
    HEARTBEAT = "heartbeat"
    """The same registration is repeated, byte for byte."""
    FLEET = "fleet"
    """Each of many registrations is repeated in turn: more of them than our server remembers."""
    CHANGE = "change"
    """Each registration differs from what is stored."""
    MIX = "mix"
    """Five heartbeats to one lookup, over many meshes: the intervals of RFD 001, 60 s and 300 s."""


class Protocol(StrEnum):
    """How a call is put into bytes."""

    GRPC = "grpc"
    PROTO = "proto"
    """Connect, with protobuf, over HTTP/1.1."""
    JSON = "json"
    """Connect, with JSON, over HTTP/1.1."""

    @property
    def content_type(self) -> str:
        """What a request says it holds."""
        return "application/grpc" if self is Protocol.GRPC else f"application/{self}"


@dataclass(frozen=True, slots=True)
class Transport:
    """How calls reach the server: `connections` at a time, `streams` calls at a time on each."""

    name: str
    protocol: Protocol
    connections: int
    streams: int = 1
    tls: bool = False
    once: bool = False
    """Whether each call has a connection of its own."""

    @property
    def concurrency(self) -> int:
        """Calls at the same time."""
        return self.connections * self.streams


TRANSPORTS = (
    Transport("grpc", Protocol.GRPC, connections=8, streams=8),
    Transport("grpc-conns", Protocol.GRPC, connections=128),
    Transport("proto", Protocol.PROTO, connections=32),
    Transport("json", Protocol.JSON, connections=32),
    Transport("grpc-once", Protocol.GRPC, connections=16, once=True),
    Transport("json-once", Protocol.JSON, connections=16, once=True),
    Transport("grpc-tls", Protocol.GRPC, connections=8, streams=8, tls=True),
    Transport("json-tls", Protocol.JSON, connections=32, tls=True),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the results."""

    kind: Kind
    transport: Transport

    @property
    def name(self) -> str:
        """What `--only` goes by."""
        return f"{self.kind}/{self.transport.name}"

    @property
    def repeats_one_call(self) -> bool:
        """Whether every call has the same bytes, on plain connections that stay: what h2load can do."""
        one_call = self.kind in {Kind.LOOKUP, Kind.HEARTBEAT}
        return one_call and not (self.transport.once or self.transport.tls)


WORKLOADS = tuple(Workload(kind, transport) for kind in Kind for transport in TRANSPORTS)
