from __future__ import annotations

import itertools
import time

import pytest
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import Headers, RequestContext

from discovery.transport.connect import _call

PATIENCE = 5.0


def test_a_calls_deadline_is_no_later_than_the_one_connectrpc_ends_it_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As on a machine so busy that a second passes between any two looks at the clock.
    monkeypatch.setattr(time, "monotonic", itertools.count(100.0).__next__)
    method = MethodInfo(
        name="M",
        service_name="s",
        input=object,
        output=object,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.UNARY,
    )
    context = RequestContext(
        method=method,
        http_method="POST",
        request_headers=Headers(),
        timeout_ms=int(PATIENCE * 1000),
    )

    deadline = _call(context).deadline

    assert deadline is not None
    assert deadline <= 100.0 + PATIENCE
