"""Calls to the admin API of one replica."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery._gen.google.rpc import Status
from discovery.client.targets import CONFIGURATION, was_cut_off
from discovery.errors import (
    ConfigError,
    DeadlineExceededError,
    DiscoveryError,
    UnimplementedError,
    UnreachableError,
)
from discovery.transport.grpc_codec import MessageCodec, StatusDetailsCodec
from discovery.transport.status import error_of

_UNIX = "unix:"
_DEFAULT_PORTS = {"http": 8081, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where an admin API is: a host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    secure: bool = False
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that `HOST:PORT`, an http or https URL, or `unix:PATH` names.

        Raises:
            ConfigError: `text` is none of these.
        """
        if text.startswith(_UNIX):
            if text == _UNIX:
                raise _no_address(text)
            return cls(path=text.removeprefix(_UNIX))
        try:
            url = urlsplit(text if "://" in text else f"http://{text}")
            port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
        except (ValueError, KeyError):
            raise _no_address(text) from None
        if not (url.hostname and port) or url.path.strip("/") or url.query or url.username:
            raise _no_address(text)
        return cls(url.hostname, port, url.scheme == "https")


def _no_address(text: str) -> ConfigError:
    return ConfigError(f"--admin must be HOST:PORT, http(s)://HOST:PORT or unix:PATH, not {text!r}")


def _why(error: Exception) -> str:
    """Return why a connection failed, in the system's words rather than those of asyncio."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number and number > 0 else str(error)


class AdminClient:
    """Calls an admin API over gRPC; an async context manager. Each call raises DiscoveryError, told by its class."""

    def __init__(
        self,
        where: str,
        *,
        timeout: float,
        tls: ssl.SSLContext | None = None,
        api_key: str | None = None,
    ) -> None:
        """Prepare to call the API at `where` (see Address.parse); `timeout` is each call's, in seconds.

        Raises:
            ConfigError: `where` is no address.
        """
        address = Address.parse(where)
        self._where = where
        self._timeout = timeout
        self._metadata = {"authorization": f"Bearer {api_key}"} if api_key else {}
        if tls is not None:
            tls.set_alpn_protocols(["h2"])  # a proxy in front goes by it
        self._channel = Channel(
            address.host or None,
            address.port or None,
            path=address.path or None,
            ssl=(tls or True) if address.secure else None,
            codec=MessageCodec(),
            status_details_codec=StatusDetailsCodec(),
            config=CONFIGURATION,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()

    async def stats(self) -> pb.StatsResponse:
        """Return the counts of the replica."""
        with self._translated():
            return await self._stub(self._timeout).stats(pb.StatsRequest())

    async def inspect(self, mesh_id: str, agent_id: str = "") -> pb.InspectResponse:
        """Return all that is known of a colony or agent."""
        with self._translated():
            return await self._stub(self._timeout).inspect(pb.InspectRequest(mesh_id, agent_id))

    async def evict(self, mesh_id: str, agent_id: str = "") -> bool:
        """End a lease and its reservation; return whether there was either."""
        with self._translated():
            reply = await self._stub(self._timeout).evict(pb.EvictRequest(mesh_id, agent_id))
        return reply.evicted

    async def drain(self) -> None:
        """Have the replica stop cleanly."""
        try:
            with self._translated():
                await self._stub(self._timeout).drain(pb.DrainRequest())
        except UnreachableError as error:
            # It stops as it was told to, and its GOAWAY may be here before its answer: grpclib gives the call up then.
            if not was_cut_off(error):
                raise

    async def page(self, request: pb.ListRegistrationsRequest) -> pb.ListRegistrationsResponse:
        """Return one page of what is registered."""
        with self._translated():
            return await self._stub(self._timeout).list_registrations(request)

    async def records(
        self, *, agents: bool, prefix: str = "", min_age: int = 0, max_age: int = 0
    ) -> AsyncIterator[pb.Record]:
        """Yield all colonies, or agents, in no order; one that changes meanwhile may come twice. Ages in seconds."""
        token = ""
        while True:
            page = await self.page(
                pb.ListRegistrationsRequest(agents, prefix, min_age, max_age, page_token=token)
            )
            for record in page.records:
                yield record
            if not (token := page.next_page_token):
                return

    async def events(
        self, prefix: str, kinds: Sequence[pb.EventKind]
    ) -> AsyncGenerator[pb.WatchEventsResponse]:
        """Yield what happens from now on, without end.

        Raises:
            DrainingError: the server stops.
        """
        request = pb.WatchEventsRequest(prefix, list(kinds))
        with self._translated():
            async with aclosing(self._watch(request)) as replies:
                async for reply in replies:
                    yield reply
        raise UnreachableError(f"{self._where} ended the stream of events without a word")

    async def _watch(
        self, request: pb.WatchEventsRequest
    ) -> AsyncGenerator[pb.WatchEventsResponse]:
        async for reply in self._stub(None).watch_events(request):
            yield reply

    def _stub(self, timeout: float | None) -> pb.AdminServiceStub:
        return pb.AdminServiceStub(self._channel, timeout=timeout, metadata=self._metadata)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except GRPCError as error:
            raise self._answered(error) from error
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"the admin API at {self._where} did not answer within {self._timeout:.3g} s"
            ) from error
        except (OSError, UnicodeError, StreamTerminatedError, ProtocolError) as error:
            raise UnreachableError(
                f"cannot reach the admin API at {self._where}: {_why(error)}"
                " (--admin must name what the server has as --admin-listen)"
            ) from error

    def _answered(self, error: GRPCError) -> DiscoveryError:
        details = error.details.details if isinstance(error.details, Status) else ()
        answered = error_of(error.status.value, error.message or "", details)
        if isinstance(answered, UnimplementedError):
            message = (
                f"{self._where} does not serve the admin API: --admin must name --admin-listen"
            )
            return UnimplementedError(message)
        return answered
