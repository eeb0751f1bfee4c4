from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.redis.rigs import REDIS_RIGS
from tests.stores.rigs import RIGS, Rig

EVERY_RIG = {**RIGS, **REDIS_RIGS}


@pytest.fixture
def agent_id() -> str:
    """Whom a test is about that does not say it: a mesh's colony, or the agent of this name."""
    return ""


@pytest.fixture(params=EVERY_RIG)
async def store(request: pytest.FixtureRequest, agent_id: str) -> AsyncIterator[Rig]:
    """Each store in turn: open, empty, with a listener, and with the time it goes by."""
    async with EVERY_RIG[request.param]() as rig:
        yield replace(rig, agent_id=agent_id)
