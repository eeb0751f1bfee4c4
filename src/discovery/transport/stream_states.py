"""What h2's state machine of a stream has come to, so that it need not be led there step by step for each call."""

from __future__ import annotations

from collections.abc import Mapping

from h2.stream import H2StreamStateMachine, StreamInputs

_REQUEST = StreamInputs.RECV_HEADERS, StreamInputs.RECV_DATA, StreamInputs.RECV_END_STREAM
ANSWER = (
    StreamInputs.SEND_HEADERS,
    StreamInputs.SEND_DATA,
    StreamInputs.SEND_HEADERS,
    StreamInputs.SEND_END_STREAM,
)
"""The steps of an answer of one message, with its trailers."""


def _changes(machine: H2StreamStateMachine, *steps: StreamInputs) -> Mapping[str, object]:
    before = dict(vars(machine))
    for step in steps:
        machine.process_input(step)
    return dict(vars(machine).items() - before.items())


_machine = H2StreamStateMachine(1)
REQUESTED = _changes(_machine, *_REQUEST)
"""What a whole request of one message makes of the state of a new stream."""
ANSWERED = _changes(_machine, *ANSWER)
"""What its answer then makes of that."""
