from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.stores.rigs import RIGS, Rig


@pytest.fixture(params=RIGS)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """Each store in turn: open, empty, with a listener, and with the time it goes by."""
    async with RIGS[request.param]() as rig:
        yield rig
