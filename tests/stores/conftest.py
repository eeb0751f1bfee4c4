from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.redis.rigs import REDIS_RIGS
from tests.stores.rigs import RIGS, OpenRig, Rig

REAL_RIGS = {**RIGS, "server": REDIS_RIGS["server"]}


@pytest.fixture
def agent_id() -> str:
    """Whom a test is about that does not say it: a mesh's colony, or the agent of this name."""
    return ""


@pytest.fixture(params=REAL_RIGS)
def open_rig(request: pytest.FixtureRequest) -> OpenRig:
    """Each store in turn."""
    return REAL_RIGS[request.param]


@pytest.fixture
async def store(open_rig: OpenRig, agent_id: str) -> AsyncIterator[Rig]:
    """A store: open, empty, with a listener, and with the time it goes by."""
    async with open_rig() as rig:
        yield replace(rig, agent_id=agent_id)
