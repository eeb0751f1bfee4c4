from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.redis.rigs import REDIS_RIGS
from tests.stores.rigs import RIGS, Rig

EVERY_RIG = {**RIGS, **REDIS_RIGS}


@pytest.fixture(params=EVERY_RIG)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """Each store in turn: open, empty, with a listener, and with the time it goes by."""
    async with EVERY_RIG[request.param]() as rig:
        yield rig
