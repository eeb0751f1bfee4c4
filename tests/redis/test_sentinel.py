"""A primary, its replica, and three Sentinels that make the one of the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from discovery.errors import StoreUnavailableError
from tests.redis.conftest import Join
from tests.redis.servers import Server, copied, eventually, replicated
from tests.redis.support import TIMEOUT, Replica, refusal
from tests.support import MESH, registration

Service = tuple[list[Server], list[int]]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with replicated() as started:
        yield started


def url_of(sentinels: list[int], name: str = "main") -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
    return f"redis+sentinel://{hosts}/{name}/0"


async def _finds(replica: Replica, mesh_id: str = MESH) -> bool:
    answer = await refusal(replica.lookup(mesh_id))
    assert answer is not None
    return not isinstance(answer, StoreUnavailableError)


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_when_the_primary_fails_its_replica_takes_over(
    service: Service, join: Join, how: str
) -> None:
    (primary, copy), sentinels = service
    replicas = [join(url_of(sentinels), timeout=TIMEOUT) for _ in range(2)]
    for replica in replicas:
        await replica.follows()
    grant = await replicas[0].register()
    await copied(primary, copy)

    primary.kill() if how == "killed" else primary.pause()

    for replica in replicas:
        await eventually(partial(_finds, replica))
        await replica.follows(2)
    assert await replicas[1].lookup() == grant.lease
    gaps = [replica.gaps for replica in replicas]
    changed = (await replicas[0].register(registration(public_port=1))).lease
    for replica, before in zip(replicas, gaps, strict=True):
        await replica.learns_of(changed.revision, before)
    assert b"role:master" in await copy.ask("INFO", "replication")
    if how == "paused":
        # The old primary comes back with what was true before, and must not be asked.
        primary.resume()
        for replica in replicas:
            assert await replica.lookup() == changed


async def test_one_sentinel_of_those_named_is_enough(service: Service, join: Join) -> None:
    _, sentinels = service
    replica = join(url_of([1, 2, *sentinels[:1]]), timeout=5)

    await replica.register()

    assert await replica.count() == 1


async def test_a_service_that_no_sentinel_knows_is_unavailable(
    service: Service, join: Join
) -> None:
    _, sentinels = service
    replica = join(url_of(sentinels, "other"), timeout=TIMEOUT)

    assert isinstance(await refusal(replica.lookup()), StoreUnavailableError)
