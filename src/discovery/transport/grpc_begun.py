"""Unary gRPC calls that are begun before there is a stream for them: what `shortcut` needs to know of gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import betterproto
from grpclib.metadata import decode_metadata

from discovery.errors import DiscoveryError
from discovery.transport import codec
from discovery.transport.begun import Begun, Later
from discovery.transport.calming import Hush
from discovery.transport.deadlines import read_timeout
from discovery.transport.pipeline import Call, Pipeline, Read
from discovery.transport.repeats import read_again
from discovery.transport.shortcut import Headers, Recognised

Metadata = Mapping[str, str | bytes]


@dataclass(frozen=True, slots=True)
class Beginner:
    """Begins the calls of one method: see shortcut.Calls."""

    pipeline: Pipeline
    path: str
    message_type: type[betterproto.Message]
    who: Callable[[asyncio.Transport, Metadata], tuple[str | None, Hush]]
    """Says who calls over a connection with such metadata, and how to stop hearing them."""
    at_once: bool
    """Whether most calls need not wait for anything."""

    def recognise(self, headers: Headers, transport: asyncio.Transport) -> Recognised | None:
        """Return how to begin calls of this method with `headers`, which are those of a gRPC request."""
        fields = dict(headers)
        lengths = [value for name, value in headers if name == "content-length"]
        try:
            seconds = read_timeout(fields)
            metadata = cast("Metadata", decode_metadata(headers))
        except (DiscoveryError, ValueError):
            return None
        if len(lengths) > 1:
            return None
        address, hush = self.who(transport, metadata)
        start = self.pipeline.begin if self.at_once else self.pipeline.later

        def begin(read: Read) -> Begun | Later:
            deadline = None if seconds is None else time.monotonic() + seconds
            return start(Call(self.path, "grpc", address, metadata, deadline, hush), read)

        return Recognised(begin, self._reader, int(lengths[0]) if lengths else None)

    def _reader(self, data: bytes) -> Read:
        return partial(read_again, data, self.message_type, codec.decode)
