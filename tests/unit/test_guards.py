from __future__ import annotations

import asyncio

import pytest

from discovery._gen.coral.discovery.v1 import (
    LookupColonyRequest,
    RegisterAgentRequest,
    RegisterColonyRequest,
)
from discovery.errors import InvalidFieldError, RateLimitedError
from discovery.guards import AddressLimits, MisplacedKeys
from discovery.transport.calming import Wait
from discovery.transport.pipeline import Call
from tests.support import KEY, MESH

SECRET = "coral_" + "x" * 43
LOOKUP = "/coral.discovery.v1.DiscoveryService/LookupColony"


class Refusing:
    """A Limiter that has had enough."""

    async def check(
        self,
        method: str,
        *,
        address: str | None = None,
        mesh_id: str | None = None,
        key: str | None = None,
    ) -> None:
        raise RateLimitedError("too many", retry_after=1)


async def test_who_calls_too_often_is_not_heard_until_its_turn() -> None:
    waits: list[float] = []

    def hush(wait: Wait) -> None:
        waits.append(wait())

    limits = AddressLimits(Refusing())
    for peer in ("2001:db8::1", "2001:db8::2", "203.0.113.5"):
        with pytest.raises(RateLimitedError):
            await limits.admit(Call(LOOKUP, "grpc", peer, hush=hush))
    first, same_site, elsewhere = waits
    assert first < same_site
    assert elsewhere < same_site


async def test_calls_that_are_refused_at_once_leave_others_their_turns() -> None:
    limits = AddressLimits(Refusing())
    crowd = [asyncio.create_task(limits.admit(Call(LOOKUP, "grpc", "::1"))) for _ in range(50)]
    turns = 0
    while not all(task.done() for task in crowd):
        turns += 1
        await asyncio.sleep(0)
    assert turns >= len(crowd)
    for task in crowd:
        assert isinstance(task.exception(), RateLimitedError)


@pytest.mark.parametrize(
    "message, field",
    [
        (LookupColonyRequest(SECRET), "mesh_id"),
        (RegisterAgentRequest(mesh_id=MESH, agent_id=SECRET), "agent_id"),
        (RegisterColonyRequest(mesh_id=MESH, pubkey=SECRET), "pubkey"),
        (RegisterColonyRequest(mesh_id=MESH, pubkey=KEY, endpoints=["a:1", SECRET]), "endpoints"),
    ],
)
async def test_an_api_key_is_no_name_and_is_not_repeated(
    message: RegisterColonyRequest, field: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        MisplacedKeys().allow(Call(LOOKUP, "grpc"), message)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert "xxx" not in str(caught.value)


async def test_what_is_no_key_may_be_a_name() -> None:
    fine = RegisterColonyRequest(mesh_id="coral_production", pubkey=KEY, endpoints=["a:1"])
    MisplacedKeys().allow(Call(LOOKUP, "grpc"), fine)
