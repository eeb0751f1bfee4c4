"""What a flood of calls is met with: its connection is not read for a while.

To refuse a call costs nearly as much as to answer it. A client that goes on calling after it was told that it calls too
often would keep the others waiting, however it is answered; so for a second it is not even heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from discovery.models import Caller

PAUSE = 1.0
"""Seconds for which nothing is read."""


@contextmanager
def calming(caller: Caller, connection: asyncio.Transport | None) -> Iterator[None]:
    """Pause the caller's connection once the call is over, if it was one too many from its address."""
    try:
        yield
    finally:
        if caller.too_often and connection is not None:
            connection.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE, connection.resume_reading)
