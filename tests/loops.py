"""The event loop of tests that have a server, or its store, within their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_ASYNCIO = "test_workers.py"
"""Tests of what keeps workers, and serves nobody."""


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give tests the loop that a server runs on. Clients run on asyncio's: as programs of their own, and in unit tests.

    A conftest that imports this has it for its own folder.
    """
    new = asyncio.new_event_loop if item.path.name == _ASYNCIO else uvloop.new_event_loop
    return {"loop": new}
