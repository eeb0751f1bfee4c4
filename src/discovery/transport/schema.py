"""What the protocol says of its RPCs, read from its own descriptors, so that no adapter lists them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Protocol

import betterproto
from betterproto.lib.google.protobuf import FileDescriptorSet, MethodOptionsIdempotencyLevel
from grpclib.const import Handler

from discovery._gen.coral.discovery.v1 import DiscoveryServiceBase


class Servable(Protocol):
    """A service's base class as betterproto generates it."""

    def __mapping__(self) -> dict[str, Handler]:
        """Return the handlers by path."""
        ...


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC; `path` is `/package.Service/Method`."""

    path: str
    request: type[betterproto.Message]
    reply: type[betterproto.Message]
    streaming: bool
    """Whether it has many replies."""
    safe: bool
    """Whether it changes nothing (NO_SIDE_EFFECTS), so that Connect serves it by GET too."""

    @property
    def service(self) -> str:
        """The service's full name."""
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """The method's name."""
        return self.path.split("/")[2]


@cache
def descriptors() -> FileDescriptorSet:
    """Return the descriptors of our files and of those they import."""
    return FileDescriptorSet().parse(
        files("discovery._gen").joinpath("descriptors.binpb").read_bytes()
    )


@cache
def rpcs(service: type[Servable] = DiscoveryServiceBase) -> Mapping[str, Rpc]:
    """Return every RPC of a service by its path."""
    safe = frozenset(_safe_paths())
    return {
        path: Rpc(
            path,
            route.request_type,
            route.reply_type,
            streaming=route.cardinality.server_streaming,
            safe=path in safe,
        )
        for path, route in service().__mapping__().items()
    }


def _safe_paths() -> list[str]:
    return [
        f"/{file.package}.{service.name}/{method.name}"
        for file in descriptors().file
        for service in file.service
        for method in service.method
        if method.options.idempotency_level == MethodOptionsIdempotencyLevel.NO_SIDE_EFFECTS
    ]
