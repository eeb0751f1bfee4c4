"""grpclib's and h2's connections and streams, but small while nothing happens.

Most connections are idle: a colony's, until its next heartbeat, and an agent's, whose watch waits for a change. Theirs
is the memory that a server needs. An empty deque takes 760 bytes, because it begins with room for 64 items, and an
asyncio.Event has one; h2, hpack and grpclib make thirty for a connection with one call, in most of which there is never
more than one item. Tables of bound methods take as much again. Here is less, that behaves the same.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, TypeVar, cast

from grpclib.protocol import AbstractHandler, Buffer, Connection, EventsProcessor, Stream
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame

from discovery.transport.refusals import RefusingH2

T = TypeVar("T")


class Few(list[T]):
    """What h2 and hpack use of a deque, for a few items."""

    __slots__ = ()

    def appendleft(self, item: T) -> None:
        """Put an item before all others."""
        self.insert(0, item)

    def popleft(self) -> T:
        """Remove the first item, and return it."""
        return self.pop(0)


class FrugalEvent(asyncio.Event):
    """An Event whose waiters are in a list: of one stream's there is one, of a connection's one for each stream."""

    def __init__(self) -> None:
        self._waiters = cast("Any", [])
        self._value = False


class _Settings(Settings):
    """One side's settings. Of each there is one value, and a second until it is acknowledged."""

    _settings: dict[SettingCodes | int, Any]

    def __init__(self, *, client: bool, values: Mapping[SettingCodes | int, int]) -> None:
        super().__init__(client)
        self._settings = {code: Few((value,)) for code, value in values.items()}

    def __setitem__(self, code: SettingCodes | int, value: int) -> None:
        if code not in self._settings:
            self._settings[code] = Few(
                (None,)
            )  # as h2 has it: it is in force once it is acknowledged
        super().__setitem__(code, value)


class _Receivers:
    """What takes in each kind of frame: h2's table of methods, each bound when it is needed."""

    __slots__ = ("_h2",)

    def __init__(self, h2: H2Connection) -> None:
        self._h2 = h2

    def __getitem__(self, kind: type[Frame]) -> Callable[..., Any]:
        return partial(_METHODS[kind], self._h2)


_METHODS: Mapping[type[Frame], Callable[..., Any]] = {
    kind: cast("Any", method).__func__
    for kind, method in RefusingH2()._frame_dispatch_table.items()  # noqa: SLF001 - h2 has no other list of them
}


class FrugalH2(RefusingH2):
    """h2's side of a connection."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        ours = config.client_side
        self.local_settings = _Settings(client=ours, values=self.local_settings)
        self.remote_settings = _Settings(client=not ours, values=self.remote_settings)
        for table in (self.encoder.header_table, self.decoder.header_table):
            table.dynamic_entries = cast(
                "Any", Few()
            )  # in 4096 bytes there is room for 124 at most
        self._frame_dispatch_table = cast("Any", _Receivers(self))


class FrugalConnection(Connection):
    """grpclib's side of a server's connection."""

    def __init__(self, connection: H2Connection, transport: asyncio.Transport, **more: Any) -> None:  # noqa: ANN401
        super().__init__(connection, transport, **more)
        self.write_ready, self.stream_close_waiter = FrugalEvent(), FrugalEvent()
        self.write_ready.set()

    def create_stream(self, **more: Any) -> Stream:  # noqa: ANN401 - as grpclib has it
        """Return the stream that a client opened."""
        return FrugalStream(self, self._connection, self._transport, **more)


class FrugalStream(Stream):
    """A stream that a client opened. What only clients wait for is nobody's here."""

    headers = trailers = wrapper = None
    headers_received = trailers_received = asyncio.Event()

    def __init__(
        self,
        connection: Connection,
        h2_connection: H2Connection,
        transport: asyncio.Transport,
        *,
        stream_id: int,
    ) -> None:
        self.connection = connection
        self._h2_connection = h2_connection
        self._transport = transport
        self.id = stream_id

    @cached_property
    def window_updated(self) -> FrugalEvent:  # type: ignore[override]
        """Tells that there may be room for more, to who waits for it."""
        return FrugalEvent()

    @cached_property
    def buffer(self) -> Buffer:  # type: ignore[override]
        """What the client sends, unless it is collected elsewhere."""
        return Buffer(lambda size: self.connection.ack(cast("int", self.id), size))


class StreamHandler(AbstractHandler):
    """What answers the streams of one connection."""

    @abstractmethod
    def forget(self, stream: Stream) -> None:
        """Drop a stream that is over."""


class FrugalProcessor(EventsProcessor):
    """grpclib's processor of h2's events, without a table of its own, and a word when the last stream is over."""

    handler: StreamHandler

    def __init__(
        self, handler: StreamHandler, connection: Connection, on_idle: Callable[[], None]
    ) -> None:
        self.handler = handler
        self.connection = connection
        self.streams = {}
        self._on_idle = on_idle

    def process(self, event: Event) -> None:
        """Act on an event, unless the connection is over.

        RFC 9113 section 5.5: unknown frames are ignored. grpclib raises, and asyncio would drop the connection.
        """
        process = _PROCESS.get(type(event))
        if process is not None and not self.connection.is_closing():
            process(self, event)

    def register(self, stream: Stream) -> Callable[[], None]:
        """Take in a new stream, and return what to call when its task is over: see grpclib."""
        self.streams[cast("int", stream.id)] = stream
        return _Release(self, stream)

    def release(self, stream: Stream) -> None:
        """Drop a stream that is over: see grpclib."""
        number = cast("int", stream.id)
        del self.streams[number]
        self.handler.forget(stream)
        self.connection.stream_close_waiter.set()
        if not self.connection.is_closing():
            self.connection.ack(number, stream.buffer.unacked_size())
        if not self.streams:
            self._on_idle()


class _Release:
    """Releases a stream, also as the callback of its task. A `partial` would take five times as much."""

    __slots__ = ("_processor", "_stream")

    def __init__(self, processor: FrugalProcessor, stream: Stream) -> None:
        self._processor = processor
        self._stream = stream

    def __call__(self, _task: object = None) -> None:
        self._processor.release(self._stream)


_PROCESS: Mapping[type[Event], Callable[[EventsProcessor, Event], None]] = {
    kind: cast("Any", process).__func__
    for kind, process in EventsProcessor(cast("Any", None), cast("Any", None)).processors.items()
}
"""grpclib's methods by the event that they are for, one table for all connections."""
