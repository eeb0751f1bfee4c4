"""Replicas that want the same thing at the same moment."""

from __future__ import annotations

import asyncio
import random

import pytest

from discovery.errors import MeshIdTakenError, MeshReservedError, QuotaError
from discovery.models import Terms
from discovery.stores.base import Grant
from tests.redis.conftest import Join
from tests.redis.servers import Server
from tests.redis.support import Replica
from tests.support import KEY, key, registration

"""Seconds. What is tested here is who wins, not how fast, on however busy a machine."""


@pytest.mark.parametrize("mesh_id", [f"round-{n}" for n in range(3)])
async def test_of_a_thousand_keys_at_two_replicas_exactly_one_gets_the_mesh(
    server: Server, join: Join, mesh_id: str
) -> None:
    replicas = [join(server.url) for _ in range(2)]
    contenders = [registration(mesh_id=mesh_id, pubkey=key(number)) for number in range(1, 1001)]
    random.Random(mesh_id).shuffle(contenders)

    answers = await asyncio.gather(
        *(replicas[n % 2].register(contender) for n, contender in enumerate(contenders)),
        return_exceptions=True,
    )

    [grant] = [answer for answer in answers if isinstance(answer, Grant)]
    refusals = [answer for answer in answers if isinstance(answer, MeshIdTakenError)]
    assert len(refusals) == 999
    assert {refusal.expires_at_us for refusal in refusals} == {grant.lease.expires_at_us}
    assert [await replica.lookup(mesh_id) for replica in replicas] == [grant.lease] * 2


async def test_of_many_keys_at_two_replicas_exactly_one_gets_the_agent(
    server: Server, join: Join
) -> None:
    replicas = [join(server.url) for _ in range(2)]
    contenders = [registration(agent_id="a", pubkey=key(number)) for number in range(1, 501)]

    answers = await asyncio.gather(
        *(replicas[n % 2].register(contender) for n, contender in enumerate(contenders)),
        return_exceptions=True,
    )

    [grant] = [answer for answer in answers if isinstance(answer, Grant)]
    assert sum(isinstance(answer, MeshIdTakenError) for answer in answers) == 499
    for replica in replicas:
        assert (await replica.agents()).leases == (grant.lease,)


async def test_of_many_keys_at_two_replicas_only_the_one_it_is_reserved_for_gets_the_mesh(
    server: Server, join: Join
) -> None:
    replicas = [join(server.url) for _ in range(2)]
    await replicas[0].register(terms=Terms(reserve=300))
    await replicas[1].deregister()
    contenders = [registration(pubkey=key(number)) for number in range(500, 0, -1)]

    answers = await asyncio.gather(
        *(replicas[n % 2].register(contender) for n, contender in enumerate(contenders)),
        return_exceptions=True,
    )

    [grant] = [answer for answer in answers if isinstance(answer, Grant)]
    assert grant.lease.registration.pubkey == KEY
    refusals = (MeshIdTakenError, MeshReservedError)
    assert sum(isinstance(answer, refusals) for answer in answers) == 499


async def test_grants_one_after_the_other_at_many_replicas_stay_within_a_quota(
    server: Server, join: Join
) -> None:
    replicas = [join(server.url) for _ in range(3)]
    terms = Terms(owner="an-owner", most_of_owner=10)
    refused = 0
    for number in range(30):
        wanted = registration(mesh_id=f"mesh-{number}")
        try:
            await replicas[number % 3].register(wanted, terms=terms)
        except QuotaError:
            refused += 1

    assert refused == 20
    assert await replicas[0].count() == 10


async def test_grants_at_the_same_moment_pass_a_quota_by_no_more_than_there_are_at_once(
    server: Server, join: Join
) -> None:
    replicas = [join(server.url) for _ in range(2)]
    terms = Terms(most_in_all=10)
    for batch in range(5):
        wanted = [registration(mesh_id=f"mesh-{batch}-{number}") for number in range(8)]
        calls = (replicas[n % 2].register(one, terms=terms) for n, one in enumerate(wanted))
        await asyncio.gather(*calls, return_exceptions=True)

    assert 10 <= await replicas[0].count() <= 10 + 7


async def test_a_mesh_that_changes_hands_between_replicas_never_has_two_owners(
    server: Server, join: Join
) -> None:
    owners: list[str] = []
    terms = 0

    async def compete(replica: Replica, pubkey: str) -> None:
        nonlocal terms
        for _ in range(50):
            try:
                await replica.register(registration(pubkey=pubkey))
            except MeshIdTakenError:
                continue
            owners.append(pubkey)
            assert owners == [pubkey]
            await asyncio.sleep(0)
            owners.remove(pubkey)
            terms += 1
            assert await replica.deregister(pubkey=pubkey)

    replicas = [join(server.url) for _ in range(4)]
    await asyncio.gather(*(compete(r, key(n + 1)) for n, r in enumerate(replicas * 3)))

    assert terms > 10
    assert await replicas[0].count() == 0


async def test_more_calls_at_once_than_any_pool_has_connections_are_all_answered(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    wanted = [registration(mesh_id=f"mesh-{number}") for number in range(2000)]

    grants = await asyncio.gather(*map(replica.register, wanted))
    found = await asyncio.gather(
        *(replica.lookup(grant.lease.registration.mesh_id) for grant in grants)
    )

    assert found == [grant.lease for grant in grants]
    assert await replica.count() == 2000
    connections = (await server.ask("CLIENT", "LIST")).count(b"\n")
    assert connections <= 3  # one for calls, one for events, and the one that asks here
