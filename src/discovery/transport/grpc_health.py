"""grpc.health.v1: what Kubernetes' probes, load balancers and gRPC clients ask before they send calls here.

grpclib's own does not know that a server drains, and its messages are in protobuf's global pool, where they clash with
those of any other package that knows the service. It is small and does not change: so it is written down here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import cast

import betterproto
from grpclib.const import Cardinality, Status
from grpclib.const import Handler as Route
from grpclib.exceptions import GRPCError
from structlog.typing import FilteringBoundLogger

from discovery.errors import DiscoveryError
from discovery.transport.drain import DrainGate, draining_error
from discovery.transport.grpc import GrpcStream, answering, receive_message, request_buffer

SERVICE = "grpc.health.v1.Health"

# In seconds: how often the store is asked, and how long it may take.
INTERVAL = 5.0
TIMEOUT = 2.0

_KNOWN = ("", "coral.discovery.v1.DiscoveryService")
"""What may be asked for: the server as a whole, and the service that it is there for."""


class ServingStatus(betterproto.Enum):
    """Whether to send calls here."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3  # for Watch alone


# betterproto's enums are integers to mypy until they are made.
_SERVING = ServingStatus(ServingStatus.SERVING)
_NOT_SERVING = ServingStatus(ServingStatus.NOT_SERVING)
_SERVICE_UNKNOWN = ServingStatus(ServingStatus.SERVICE_UNKNOWN)


@dataclass(eq=False, repr=False)
class HealthCheckRequest(betterproto.Message):
    """Asks for a service by its full name, or with none for the server."""

    service: str = betterproto.string_field(1)


@dataclass(eq=False, repr=False)
class HealthCheckResponse(betterproto.Message):
    """The answer to Check, and every answer to Watch."""

    status: ServingStatus = betterproto.enum_field(1)  # noqa: RUF009 - betterproto's way


@dataclass(eq=False, repr=False)
class HealthListRequest(betterproto.Message):
    """Asks for everything that may be asked for."""


@dataclass(eq=False, repr=False)
class HealthListResponse(betterproto.Message):
    """The answer to List."""

    statuses: dict[str, HealthCheckResponse] = betterproto.map_field(  # noqa: RUF009
        1, betterproto.TYPE_STRING, betterproto.TYPE_MESSAGE
    )


class HealthServing:
    """Says SERVING while the store answers and the server does not drain, and NOT_SERVING otherwise.

    It answers from memory, so that no client can burden the store with it.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[object]],
        gate: DrainGate,
        log: FilteringBoundLogger,
    ) -> None:
        """Call `probe` every INTERVAL seconds: an error, or no result in TIMEOUT seconds, is a failure."""
        self._probe = probe
        self._gate = gate
        self._log = log
        self._healthy: bool | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Keep asking, without end."""
        while True:
            self._observe(await self._failure())
            await asyncio.sleep(INTERVAL)

    def drain(self) -> None:
        """Tell watchers NOT_SERVING and then UNAVAILABLE, at once. To be called when the gate has closed.

        Called when that is only announced, it tells them NOT_SERVING.
        """
        self._wake()

    def routes(self) -> Mapping[str, Route]:
        """Return the gRPC handlers by path."""
        check = (HealthCheckRequest, HealthCheckResponse)
        unary, streaming = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"/{SERVICE}/Check": Route(partial(_answer, self._check), unary, *check),
            f"/{SERVICE}/List": Route(
                partial(_answer, self._list), unary, HealthListRequest, HealthListResponse
            ),
            f"/{SERVICE}/Watch": Route(partial(_answer, self._watch), streaming, *check),
        }

    async def _check(self, stream: GrpcStream) -> None:
        # While the server drains too: the answer is known, and says more than a refusal.
        with nullcontext() if self._gate.draining else self._gate.admit():
            asked = await _received(stream)
        if asked not in _KNOWN:
            raise GRPCError(Status.NOT_FOUND, "unknown service")
        await stream.send_message(HealthCheckResponse(self._status))

    async def _list(self, stream: GrpcStream) -> None:
        with nullcontext() if self._gate.draining else self._gate.admit():
            await receive_message(stream)
        answer = HealthCheckResponse(self._status)
        await stream.send_message(HealthListResponse(dict.fromkeys(_KNOWN, answer)))

    async def _watch(self, stream: GrpcStream) -> None:
        with self._gate.admit():
            known = await _received(stream) in _KNOWN
            told: ServingStatus | None = None
            while True:
                changed, ending = self._changed, self._gate.draining
                status = self._status if known else _SERVICE_UNKNOWN
                if status is not told:
                    await stream.send_message(HealthCheckResponse(status))
                    told = status
                if ending:
                    raise draining_error()
                await changed.wait()

    @property
    def _status(self) -> ServingStatus:
        serving = self._healthy and not self._gate.leaving
        return _SERVING if serving else _NOT_SERVING

    async def _failure(self) -> Exception | None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._probe()
        except Exception as error:  # noqa: BLE001 - a defect too must be told, and must not end the asking
            return error
        return None

    def _observe(self, failure: Exception | None) -> None:
        before, self._healthy = self._healthy, failure is None
        if self._healthy is before:
            return
        if failure is not None:
            expected = isinstance(failure, DiscoveryError | TimeoutError)
            self._log.warning(
                "not serving: the store does not answer",
                error=str(failure) or type(failure).__name__,
                **({} if expected else {"exc_info": failure}),
            )
        elif before is not None:
            self._log.info("serving: the store answers again")
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _received(stream: GrpcStream) -> str:
    return cast("HealthCheckRequest", await receive_message(stream)).service


async def _answer(handle: Callable[[GrpcStream], Awaitable[None]], stream: GrpcStream) -> None:
    async with answering(request_buffer(stream).deadline):
        await handle(stream)


def descriptors() -> bytes:
    """Return the service's schema, a google.protobuf.FileDescriptorSet, for reflection."""
    # Health itself does without this protobuf, which is slow to import.
    from protobuf.txtpb import message_from_text
    from protobuf.wkt import FileDescriptorProto, FileDescriptorSet

    return FileDescriptorSet(file=[message_from_text(FileDescriptorProto, _SCHEMA)]).to_binary()


_SCHEMA = """
name: "grpc/health/v1/health.proto" package: "grpc.health.v1" syntax: "proto3"
message_type {
  name: "HealthCheckRequest"
  field { name: "service" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
}
message_type {
  name: "HealthCheckResponse"
  field {
    name: "status" number: 1 label: LABEL_OPTIONAL type: TYPE_ENUM
    type_name: ".grpc.health.v1.HealthCheckResponse.ServingStatus"
  }
  enum_type {
    name: "ServingStatus"
    value { name: "UNKNOWN" number: 0 }
    value { name: "SERVING" number: 1 }
    value { name: "NOT_SERVING" number: 2 }
    value { name: "SERVICE_UNKNOWN" number: 3 }
  }
}
message_type { name: "HealthListRequest" }
message_type {
  name: "HealthListResponse"
  field {
    name: "statuses" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE
    type_name: ".grpc.health.v1.HealthListResponse.StatusesEntry"
  }
  nested_type {
    name: "StatusesEntry"
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field {
      name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE
      type_name: ".grpc.health.v1.HealthCheckResponse"
    }
    options { map_entry: true }
  }
}
service {
  name: "Health"
  method {
    name: "Check" input_type: ".grpc.health.v1.HealthCheckRequest"
    output_type: ".grpc.health.v1.HealthCheckResponse"
  }
  method {
    name: "List" input_type: ".grpc.health.v1.HealthListRequest"
    output_type: ".grpc.health.v1.HealthListResponse"
  }
  method {
    name: "Watch" input_type: ".grpc.health.v1.HealthCheckRequest"
    output_type: ".grpc.health.v1.HealthCheckResponse" server_streaming: true
  }
}
"""
