"""The servers that a client may call: how each is reached, and in which order they are asked."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from grpclib.config import Configuration
from grpclib.events import RecvInitialMetadata, listen
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import ProtocolError as ConnectionOverError  # to a client that keeps the rules

from discovery._gen.coral.discovery.v1 import DiscoveryServiceStub
from discovery._gen.google.rpc import Status as StatusMessage
from discovery.client.connection import ClientChannel
from discovery.errors import (
    Code,
    ConfigError,
    DeadlineExceededError,
    DiscoveryError,
    UnreachableError,
)
from discovery.transport.grpc_codec import MessageCodec, StatusDetailsCodec
from discovery.transport.status import error_of

RETURN_AFTER = 30.0
"""Seconds for which a server that failed is asked last, before it has its place in the order again."""

ELSEWHERE = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})
"""What another server may answer better."""

# What a connection of grpclib's lacks once it is closed, while its channel has yet to notice.
_CLOSED = "_transport"
_DEFAULT_PORTS = {"http": 80, "https": 443}
# A connection whose other end is gone without a word (a NAT that forgot it, a laptop that moved) is noticed by a ping
# that nobody answers, within 20 seconds, where TCP would go on for a quarter of an hour.
CONFIGURATION = Configuration(
    _keepalive_time=15.0,
    _keepalive_timeout=5.0,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=10.0,
)


def tls_context(
    ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return how to speak TLS: `ca` holds whom to trust beside nobody else, `cert` and `key` what to show; all PEM.

    Without `ca` the system's authorities are trusted; `key` may be in the file of `cert`.

    Raises:
        ConfigError: a file cannot be read or used.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key, password=_refuse_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(str(file) for file in (ca, cert, key) if file is not None)
        raise ConfigError(f"cannot use {files} for TLS: {error}") from None
    return context


def _refuse_password() -> NoReturn:
    """Stand where OpenSSL would ask for a password on the terminal."""
    raise ValueError("the key is encrypted; write it without a password")


class Target:
    """One server: its connection is made at the first call, and again after it was lost."""

    def __init__(
        self,
        endpoint: str,
        tls: ssl.SSLContext | None,
        metadata: Mapping[str, str],
        hear: Callable[[Mapping[str, str | bytes]], None],
    ) -> None:
        """Prepare to call `endpoint`, with `metadata` in each call; `hear` is told the metadata of each reply.

        Raises:
            ConfigError: it is no http or https URL.
        """
        host, port, secure = _parse(endpoint)
        self.endpoint = endpoint
        self._metadata = metadata
        self._failed_at: float | None = None
        self._channel = ClientChannel(
            host,
            port,
            ssl=_for_http2(tls or tls_context()) if secure else None,
            codec=MessageCodec(),
            status_details_codec=StatusDetailsCodec(),
            config=CONFIGURATION,
        )

        async def received(event: RecvInitialMetadata) -> None:
            hear(event.metadata)

        listen(self._channel, RecvInitialMetadata, received)

    def stub(self, timeout: float | None = None) -> DiscoveryServiceStub:
        """Return what makes calls of at most `timeout` seconds."""
        return DiscoveryServiceStub(self._channel, timeout=timeout, metadata=self._metadata)

    def failed_lately(self, now: float) -> bool:
        """Return whether it could not answer within the last RETURN_AFTER seconds before `now`."""
        return self._failed_at is not None and now < self._failed_at + RETURN_AFTER

    def close(self) -> None:
        """Close the connection. A call that is made nevertheless opens it again."""
        self._channel.close()

    @contextmanager
    def calling(self, timeout: float | None = None) -> Iterator[None]:
        """Translate what goes wrong with a call, and remember whether this server could answer.

        Raises:
            DiscoveryError: what the server answered, or that it did not.
        """
        try:
            with self._translated(timeout):
                yield
        except DiscoveryError as error:
            self._failed_at = time.monotonic() if error.code in ELSEWHERE else None
            raise
        self._failed_at = None

    @contextmanager
    def _translated(self, timeout: float | None) -> Iterator[None]:
        try:
            yield
        except GRPCError as error:
            raise _translate(error) from error
        except TimeoutError as error:
            message = f"{self.endpoint} did not answer within {timeout or 0:.3g} s"
            raise DeadlineExceededError(message) from error
        except (OSError, UnicodeError, StreamTerminatedError, ProtocolError) as error:
            raise UnreachableError(f"cannot reach {self.endpoint}: {error}") from error
        except (AttributeError, ConnectionOverError) as error:
            if isinstance(error, AttributeError) and error.name != _CLOSED:
                raise
            raise UnreachableError(f"the connection to {self.endpoint} was lost") from error


def was_cut_off(error: DiscoveryError) -> bool:
    """Return whether the connection was lost under a call, or while it waited for room there: a server restarts."""
    return isinstance(error.__cause__, StreamTerminatedError | AttributeError | ConnectionOverError)


def _translate(error: GRPCError) -> DiscoveryError:
    details = error.details.details if isinstance(error.details, StatusMessage) else ()
    return error_of(error.status.value, error.message or "", details)


def _for_http2(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["h2"])
    return context


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
