"""grpclib's connection to a server, and what it owes to calls that wait for their turn."""

from __future__ import annotations

import asyncio

from grpclib.client import Channel, Handler
from grpclib.protocol import EventsProcessor, H2Protocol
from h2.connection import ConnectionState, H2Connection
from h2.settings import SettingCodes

STREAMS = 100
"""Calls at once over a connection, unless its server says otherwise: RFC 9113 section 6.5.2 has servers allow as many.

Before a server's word has come any number would be within the rules, and a server may refuse those that are too many.
"""


class ClientChannel(Channel):
    """grpclib's channel, over such connections."""

    def _protocol_factory(self) -> H2Protocol:
        return _Connection(Handler(), self._config, self._h2_config)


class _Connection(H2Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        settings = _h2_of(self.processor).remote_settings
        settings[SettingCodes.MAX_CONCURRENT_STREAMS] = STREAMS
        settings.acknowledge()
        self.processor = _Processor(self.handler, self.connection)


class _Processor(EventsProcessor):
    def close(self, reason: str = "Connection closed") -> None:
        """End every call: see grpclib.

        It would leave those that have no stream yet waiting for one. Here they go on, and h2 tells them that there is
        no connection.
        """
        super().close(reason)
        h2 = _h2_of(self)
        h2.streams.clear()
        h2.state_machine.state = ConnectionState.CLOSED
        self.connection.write_ready.set()
        self.connection.stream_close_waiter.set()


def _h2_of(processor: EventsProcessor) -> H2Connection:
    return processor.connection._connection  # noqa: SLF001 - grpclib keeps it to itself
