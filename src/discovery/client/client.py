"""One connection to a discovery server, with models in and out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import urlsplit

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from discovery._gen.coral.discovery.v1 import (
    DeregisterColonyRequest,
    DiscoveryServiceStub,
    HealthRequest,
    LookupColonyRequest,
    WatchColonyRequest,
    WatchColonyResponse,
)
from discovery._gen.google.rpc import Status as StatusMessage
from discovery.errors import (
    ConfigError,
    DeadlineExceededError,
    DiscoveryError,
    UnreachableError,
)
from discovery.models import HealthReport, Lease, Registered, Registration, WatchEvent
from discovery.transport import codec
from discovery.transport.grpc_codec import MessageCodec, StatusDetailsCodec
from discovery.transport.status import error_of

_DEFAULT_PORTS = {"http": 80, "https": 443}

R = TypeVar("R")


class DiscoveryClient:
    """Speaks gRPC to one discovery server; an async context manager.

    It connects at the first call, and again after a connection was lost. Calls may run at the same time. None is
    repeated here: whether to try again is the caller's to decide, and every error tells by its class.
    """

    def __init__(self, endpoint: str, *, timeout: float = 10.0) -> None:
        """Prepare to call `endpoint`, such as `https://discovery.example.com` or `http://localhost:8080`.

        `timeout` is each call's, in seconds; it travels to the server as the call's deadline.

        Raises:
            ConfigError: the endpoint is not an http or https URL.
        """
        host, port, secure = _parse(endpoint)
        self.endpoint = endpoint
        self._timeout = timeout
        self._closed = False
        self._channel = Channel(
            host,
            port,
            ssl=secure or None,
            codec=MessageCodec(),
            status_details_codec=StatusDetailsCodec(),
        )
        self._stub = DiscoveryServiceStub(self._channel, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in flight fail, and later ones too. Idempotent."""
        self._closed = True
        self._channel.close()

    async def register_colony(self, registration: Registration) -> Registered:
        """Register a colony, or renew its lease.

        Raises:
            InvalidFieldError: the registration breaks rules; all are named.
            MeshIdTakenError: another key holds a live lease on the mesh.
        """
        request = codec.register_request(registration)
        return codec.registered_from(await self._call(self._stub.register_colony(request)))

    async def lookup_colony(self, mesh_id: str) -> Lease:
        """Return the live lease on `mesh_id`.

        Raises:
            NotRegisteredError: there is none.
        """
        request = LookupColonyRequest(mesh_id)
        return codec.lease_from(await self._call(self._stub.lookup_colony(request)))

    async def deregister_colony(self, mesh_id: str, pubkey: str) -> bool:
        """End the lease that `pubkey` holds on `mesh_id`; return whether there was one.

        Raises:
            NotOwnerError: another key holds a live lease.
        """
        request = DeregisterColonyRequest(mesh_id, pubkey)
        return (await self._call(self._stub.deregister_colony(request))).removed

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
        with self._translated():
            replies = DiscoveryServiceStub(self._channel).watch_colony(request)
            async with aclosing(cast("AsyncGenerator[WatchColonyResponse]", replies)) as stream:
                async for reply in stream:
                    yield codec.event_from(mesh_id, reply)
        raise UnreachableError(f"{self.endpoint} ended the watch without a word")

    async def health(self) -> HealthReport:
        """Return how the server is."""
        return codec.health_from(await self._call(self._stub.health(HealthRequest())))

    async def _call(self, call: Coroutine[Any, Any, R]) -> R:
        self._require_open(call)
        try:
            with self._translated():
                return await call
        finally:
            if self._closed:  # meanwhile: grpclib may have connected once more
                self._channel.close()

    def _require_open(self, call: Coroutine[Any, Any, object]) -> None:
        if self._closed:
            call.close()
            raise UnreachableError(f"the client of {self.endpoint} is closed")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except GRPCError as error:
            raise _translate(error) from error
        except TimeoutError as error:
            message = f"{self.endpoint} did not answer within {self._timeout} s"
            raise DeadlineExceededError(message) from error
        except (OSError, UnicodeError, StreamTerminatedError, ProtocolError) as error:
            raise UnreachableError(f"cannot reach {self.endpoint}: {error}") from error


def _translate(error: GRPCError) -> DiscoveryError:
    details = error.details.details if isinstance(error.details, StatusMessage) else ()
    return error_of(error.status.value, error.message or "", details)


def _parse(endpoint: str) -> tuple[str, int, bool]:
    """Return host, port and whether TLS is spoken."""
    try:
        url = urlsplit(endpoint)
        port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    except (ValueError, KeyError):
        raise ConfigError(f"{endpoint!r} is not an http:// or https:// URL") from None
    extra = (url.path.strip("/"), url.query, url.fragment, url.username, url.password)
    if not (url.hostname and port) or any(extra):
        raise ConfigError(
            f"{endpoint!r} must be only scheme, host and port, as in http://localhost:8080"
        )
    return url.hostname, port, url.scheme == "https"
