"""How an HTTP/1.1 connection is not heard for a while: apart from `calming`, as uvicorn is slow to import."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl

from discovery.transport.calming import Wait


class CalmFlow(FlowControl):
    """uvicorn's say on when an HTTP/1.1 connection is read, which it has only while the connection is not hushed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._hushed = False

    def hush(self, wait: Wait) -> None:
        """Read nothing for a while, unless that is so already."""
        if not self._hushed:
            self._hushed = True
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(wait(), self._hear)

    def resume_reading(self) -> None:
        """See uvicorn."""
        if self._hushed:
            self.read_paused = False
        else:
            super().resume_reading()

    def _hear(self) -> None:
        self._hushed = False
        if not self.read_paused:
            self._transport.resume_reading()
