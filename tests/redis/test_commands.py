"""What a call costs the server, as MONITOR shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio.connection import UnixDomainSocketConnection

from discovery.models import Terms
from tests.redis.conftest import Join
from tests.redis.servers import Server
from tests.redis.support import Replica
from tests.support import MESH, OTHER_KEY, registration


@asynccontextmanager
async def monitored(server: Server) -> AsyncIterator[list[str]]:
    """Collect the commands that clients send, without those that scripts run and without those that follow changes."""
    watching, marking = (UnixDomainSocketConnection(path=server.path, protocol=2) for _ in range(2))
    commands: list[str] = []
    await marking.connect()  # type: ignore[no-untyped-call]
    await watching.connect()  # type: ignore[no-untyped-call]
    await watching.send_command("MONITOR")
    await watching.read_response()
    yield commands
    await marking.send_command("ECHO", "the end")
    while b"the end" not in (line := await watching.read_response()):
        if b" lua]" not in line and b'"XREAD"' not in line:
            commands.append(line.decode().partition("] ")[2])
    await watching.disconnect()
    await marking.disconnect()


CALLS: dict[str, Callable[[Replica], Awaitable[object]]] = {
    "grant": lambda replica: replica.register(registration(mesh_id="mesh-2")),
    "renew": lambda replica: replica.register(),
    "change": lambda replica: replica.register(registration(public_port=1)),
    "deregister": lambda replica: replica.deregister(),
    "nothing to deregister": lambda replica: replica.deregister("mesh-3"),
    "current": lambda replica: replica.current(),
    "current, absent": lambda replica: replica.current("mesh-3"),
    "grant, agent": lambda replica: replica.register(registration(agent_id="new")),
    "renew, agent": lambda replica: replica.register(registration(agent_id="a")),
    "change, agent": lambda replica: replica.register(registration(agent_id="a", public_port=1)),
    "deregister, agent": lambda replica: replica.deregister(agent_id="a"),
    "evict": lambda replica: replica.evict(),
    "nothing to evict": lambda replica: replica.evict("mesh-3"),
    "evict, agent": lambda replica: replica.evict(agent_id="a"),
    "once": lambda replica: replica.once("name", "value"),
    "agents": lambda replica: replica.agents(),
    "agents, none": lambda replica: replica.agents("mesh-3"),
    "count": lambda replica: replica.count(),
    "sweep": lambda replica: replica.sweep(),
}


LIMITED = Terms(
    reserve=10,
    owner="an-owner",
    most_of_owner=5,
    most_agents=5,
    most_in_all=50,
    old_pubkey=OTHER_KEY,
)


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_but_a_lookup_is_one_script(server: Server, join: Join, call: str) -> None:
    replica = join(server.url)
    await replica.follows()
    await replica.register()
    await replica.register(registration(agent_id="a"))
    await CALLS[call](join(server.url, prefix="other"))  # so that the script is known

    async with monitored(server) as commands:
        await CALLS[call](replica)

    assert [command.split()[0] for command in commands] == ['"EVALSHA"']


async def test_a_lookup_is_one_get(server: Server, join: Join) -> None:
    replica = join(server.url)
    await replica.follows()
    await replica.register()

    async with monitored(server) as commands:
        await replica.lookup()
        await replica.lookup("mesh-2")
        await replica.lookup(agent_id="a")

    assert [command.split()[0] for command in commands] == ['"GET"'] * 3
    assert commands[0].endswith(f':lease:{MESH}"')
    assert commands[2].endswith(f':agents:lease:{MESH}/a"')


async def test_a_renewal_within_quotas_is_one_script(server: Server, join: Join) -> None:
    replica = join(server.url)
    await replica.follows()
    await replica.register(terms=LIMITED)
    await replica.register(registration(agent_id="a"), terms=LIMITED)

    async with monitored(server) as commands:
        await replica.register(terms=LIMITED)
        await replica.register(registration(agent_id="a", public_port=1), terms=LIMITED)

    assert [command.split()[0] for command in commands] == ['"EVALSHA"'] * 2


async def test_a_reservation_and_an_owner_make_a_grant_no_more_than_one_script(
    server: Server, join: Join
) -> None:
    replica = join(server.url)
    await replica.follows()
    await replica.register()

    async with monitored(server) as commands:
        await replica.register(registration(mesh_id="new"), terms=Terms(reserve=10, owner="o"))

    assert [command.split()[0] for command in commands] == ['"EVALSHA"']


async def test_a_page_of_a_list_is_a_few_small_commands(server: Server, join: Join) -> None:
    """However many leases there are, none of the commands looks at more than a few of them."""
    replica = join(server.url)
    await replica.follows()
    await asyncio.gather(
        *(replica.register(registration(mesh_id=f"mesh-{number}")) for number in range(5000))
    )

    async with monitored(server) as commands:
        page = await replica.leases(limit=250)

    assert 200 <= len(page.leases) <= 500
    assert len(commands) <= 10
    for command in commands:
        name, *operands = command.split()
        assert name in ('"ZSCAN"', '"MGET"')
        assert len(operands) < 200


# What docs/ tell operators to permit. Scripts need the second half.
PERMITTED = (
    "+get +evalsha +eval +xread +xrevrange +role"
    " +zscan +mget"
    " +time +set +del +zadd +zrem +zscore +zcount +zcard +zrangebyscore +zrangebylex +zremrangebyrank +xadd"
    " +zrange +zremrangebyscore +pexpireat"
)


async def test_a_user_who_may_do_no_more_than_is_needed_is_enough(
    server: Server, join: Join
) -> None:
    rules = ("on", ">secret", "~test:*", "-@all", *PERMITTED.split())
    await server.ask("ACL", "SETUSER", "coral", *rules)
    replica = join(server.url.replace("://", "://coral:secret@"))

    for call in CALLS.values():
        await call(replica)
    await replica.register(registration(mesh_id="limited"), terms=LIMITED)
    await replica.register(registration(agent_id="limited"), terms=LIMITED)
    await replica.register(terms=LIMITED)
    assert len((await replica.leases()).leases) == 3
    assert await replica.reservation() is not None
    await replica.lookup()
    await replica.follows()


async def test_nothing_is_ever_looked_for_by_pattern(server: Server, join: Join) -> None:
    """Neither KEYS nor SCAN, and neither of them in a script."""
    replica = join(server.url)
    await replica.follows()
    for call in CALLS.values():
        await call(replica)
    await replica.leases()

    used = await server.ask("INFO", "commandstats")
    assert b"cmdstat_evalsha" in used
    assert b"cmdstat_keys" not in used
    assert b"cmdstat_scan" not in used
