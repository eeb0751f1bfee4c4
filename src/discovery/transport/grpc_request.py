"""What the one request of a gRPC call is collected in."""

from __future__ import annotations

from grpclib.protocol import Buffer

from discovery.transport.framing import PREFIX
from discovery.transport.http2 import RequestBuffer


class MessageBuffer(RequestBuffer):
    """A RequestBuffer that knows whether the request came in one piece, and queues nothing before it is known."""

    _piece: tuple[bytes, int] | None = None
    """The first DATA frame, and what to acknowledge for it."""
    _queueing = False

    @property
    def ended(self) -> bool:
        """Whether all of the request has come."""
        return self._eof

    def add(self, data: bytes, ack_size: int) -> None:
        """Take in a DATA frame: see grpclib."""
        if not ack_size:
            return
        if self._piece is None and not self._queueing:
            self._piece = data, ack_size
        else:
            self._queue()
            super().add(data, ack_size)

    def eof(self) -> None:
        """Take in the end of the request: see grpclib."""
        self._eof = True
        if self._queueing:
            super().eof()

    def take(self) -> bytes | None:
        """Return the request's message if it is all there, in one piece and not compressed; else None."""
        if self._queueing or self._piece is None or not self._eof:
            return None
        data, ack_size = self._piece
        size = len(data) - PREFIX
        if not 0 <= size <= self._bounds.request_bytes:
            return None
        if data[:PREFIX] != size.to_bytes(PREFIX, "big"):
            return None
        self._piece = None
        self._ack_callback(ack_size)
        return data[PREFIX:]

    async def read(self, size: int) -> bytes:
        """Return the next `size` bytes: see RequestBuffer."""
        self._queue()
        return await super().read(size)

    def unacked_size(self) -> int:
        """Return how many bytes nobody read: see grpclib."""
        if self._queueing:
            return super().unacked_size()
        return 0 if self._piece is None else self._piece[1]

    def _queue(self) -> None:
        """From now on, leave it to grpclib's queue."""
        if self._queueing:
            return
        self._queueing = True
        if self._piece is not None:
            super().add(*self._piece)
            self._piece = None
        if self._eof:
            super().eof()


class _Spent(Buffer):
    """What is left to collect of a request that came to its end: nothing."""

    def __init__(self) -> None:
        """Collect nothing."""

    def unacked_size(self) -> int:
        """Return how many bytes nobody read."""
        return 0


SPENT = _Spent()
