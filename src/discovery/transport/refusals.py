"""Streams beyond those that a client may have open at once."""

from __future__ import annotations

from typing import Any

from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection, _decode_headers
from h2.errors import ErrorCodes
from h2.events import StreamReset
from h2.exceptions import TooManyStreamsError
from hyperframe.frame import Frame, HeadersFrame


class RefusingH2(H2Connection):
    """h2's connection of a server that refuses a stream too many, and goes on with the rest.

    h2 would end the connection, and all calls on it. A client is told how many streams it may have only after it could
    have begun more, so that is for the stream alone to bear, with REFUSED_STREAM, by which the client knows that it may
    ask again: RFC 9113 sections 5.1.2 and 8.7.
    """

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Any]]:
        try:
            return super()._receive_headers_frame(frame)
        except TooManyStreamsError:
            return self._refuse(frame)

    def _refuse(self, frame: HeadersFrame) -> tuple[list[Frame], list[Any]]:
        """Read the headers, which the decoder's table may depend on, and reset the stream."""
        headers = _decode_headers(self.decoder, frame.data)
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        stream = self._begin_new_stream(frame.stream_id, AllowedStreamIDs.ODD)
        stream.receive_headers(headers, "END_STREAM" in frame.flags, self.config.header_encoding)
        refused = StreamReset(stream_id=frame.stream_id)
        refused.error_code, refused.remote_reset = ErrorCodes.REFUSED_STREAM, False
        return stream.reset_stream(ErrorCodes.REFUSED_STREAM), [refused]
