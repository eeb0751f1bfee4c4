from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from discovery.client.pacing import Pacing
from discovery.client.resolver import ColonyResolver
from discovery.client.state import ResolverPhase
from discovery.errors import (
    Code,
    DeadlineExceededError,
    DiscoveryError,
    MalformedMessageError,
    NotRegisteredError,
    OtherError,
    UnimplementedError,
    UnreachableError,
)
from tests.support import MESH, key
from tests.unit.client.fakes import (
    DAY,
    LATENCY,
    FakeDiscovery,
    away,
    lease,
    most_in_a_second,
    pacing,
)
from tests.unit.client.virtual_time import VirtualClock, in_virtual_time

CAP = 30.0
OLD = lease(1)
NEW = lease(2, pubkey=key(3), endpoints=("198.51.100.7:41820",))
FIRST, SECOND = OLD.registration.endpoints


def phase_of(resolver: ColonyResolver) -> ResolverPhase:
    """Return it by a call, which mypy does not take for a value that stays."""
    return resolver.state.phase


def is_following(resolver: ColonyResolver) -> bool:
    return resolver.state.following


def resolver_of(
    server: FakeDiscovery, cache_file: Path | None = None, **options: float
) -> ColonyResolver:
    return ColonyResolver(
        server, MESH, cache_file=cache_file, pacing=pacing(server.clock), **options
    )


@in_virtual_time
async def test_memory_answers_until_the_cache_ttl_is_over() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    resolver = resolver_of(server, cache_ttl=300)

    assert await resolver.resolve() == OLD
    server.known = NEW
    await asyncio.sleep(299)
    assert await resolver.resolve() == OLD
    await asyncio.sleep(1)
    assert await resolver.resolve() == NEW
    assert len(server.lookups) == 2


@in_virtual_time
async def test_a_lookup_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        resolver_of(FakeDiscovery(VirtualClock()), lookup_interval=0)


@in_virtual_time
async def test_a_state_is_told_once_also_when_the_work_is_over() -> None:
    server = FakeDiscovery(VirtualClock())
    server.trouble = away
    resolver = resolver_of(server)

    async def observe() -> list[object]:
        return [state async for state in resolver.states()]

    watching = asyncio.create_task(observe())
    async with resolver:
        await asyncio.sleep(0)
    told = await watching

    assert len(told) == len(set(map(id, told)))


@in_virtual_time
async def test_callers_at_the_same_time_share_one_lookup_and_its_failure() -> None:
    server = FakeDiscovery(VirtualClock())
    server.trouble = away
    resolver = resolver_of(server)

    answers = await asyncio.gather(
        *(resolver.resolve() for _ in range(100)), return_exceptions=True
    )

    assert len(server.lookups) == 1
    assert all(isinstance(answer, UnreachableError) for answer in answers)


@in_virtual_time
async def test_a_caller_who_gives_up_does_not_take_the_others_along() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    resolver = resolver_of(server)
    first, second = (asyncio.create_task(resolver.resolve()) for _ in range(2))
    await asyncio.sleep(LATENCY / 2)

    first.cancel()

    assert await second == OLD


@pytest.mark.parametrize(
    "error",
    [away(), DeadlineExceededError("late"), OtherError(Code.UNKNOWN, "", "?")],
    ids=lambda error: error.code.name,
)
@in_virtual_time
async def test_while_discovery_is_away_the_last_known_will_do(error: DiscoveryError) -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    resolver = resolver_of(server)
    await resolver.resolve()
    server.trouble = lambda: error
    await asyncio.sleep(30 * DAY)

    assert await resolver.resolve() == OLD
    assert phase_of(resolver) is ResolverPhase.STALE
    assert resolver.state.error is error


@in_virtual_time
async def test_a_colony_that_is_not_registered_any_more_is_remembered_as_absent() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    resolver = resolver_of(server)
    await resolver.resolve()
    server.known = None
    await asyncio.sleep(DAY)

    assert await resolver.resolve() == OLD
    absent = resolver.state
    assert absent.phase is ResolverPhase.ABSENT
    await asyncio.sleep(DAY)
    await resolver.resolve()
    assert resolver.state.since_us == absent.since_us


@pytest.mark.parametrize(
    "trouble, expected",
    [(lambda: None, NotRegisteredError), (away, UnreachableError)],
    ids=["absent", "away"],
)
@in_virtual_time
async def test_without_anything_known_the_error_is_raised(
    trouble: Callable[[], DiscoveryError | None], expected: type[DiscoveryError]
) -> None:
    server = FakeDiscovery(VirtualClock())
    server.trouble = trouble

    with pytest.raises(expected):
        await resolver_of(server).resolve()


@in_virtual_time
async def test_a_refusal_is_raised_although_something_is_known() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    resolver = resolver_of(server)
    await resolver.resolve()
    server.trouble = lambda: OtherError(Code.UNAUTHENTICATED, "", "who?")
    await asyncio.sleep(DAY)

    with pytest.raises(OtherError, match="who"):
        await resolver.resolve()
    assert resolver.state.lease == OLD


@pytest.mark.parametrize(
    "change",
    [{"pubkey": "PostUp"}, {"endpoints": ("a:1\nb",)}, {"mesh_id": "m2"}, {"agent_id": "api"}],
    ids=ascii,
)
@in_virtual_time
async def test_what_no_server_should_say_replaces_nothing(change: dict[str, object]) -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server) as resolver:
        await asyncio.sleep(2)
        server.change(lease(2, **change))
        await asyncio.sleep(1000)

        assert resolver.state.lease == OLD
        assert phase_of(resolver) is ResolverPhase.STALE
        assert isinstance(resolver.state.error, MalformedMessageError)


@in_virtual_time
async def test_it_starts_from_disk_while_discovery_is_away(tmp_path: Path) -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    first = resolver_of(server, tmp_path / "cache")
    await first.resolve()
    first.connected(SECOND)
    server.trouble = away

    second = resolver_of(server, tmp_path / "cache")

    assert phase_of(second) is ResolverPhase.STALE
    assert second.endpoints() == (SECOND, FIRST)
    assert await second.resolve() == OLD


@in_virtual_time
async def test_a_torn_cache_file_is_told_and_the_server_asked(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b'{"winner": "')
    server = FakeDiscovery(VirtualClock(), OLD)
    resolver = resolver_of(server, tmp_path / "cache")
    assert "damaged" in resolver.state.cache_problem
    assert phase_of(resolver) is ResolverPhase.UNKNOWN

    assert await resolver.resolve() == OLD
    assert resolver.state.cache_problem == ""


@in_virtual_time
async def test_a_change_is_known_at_once() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server) as resolver:
        await asyncio.sleep(10)
        assert is_following(resolver)
        server.change(NEW)
        await asyncio.sleep(0.001)

        assert resolver.state.lease == NEW
        assert resolver.endpoints() == NEW.registration.endpoints


@in_virtual_time
async def test_revisions_that_go_back_do_not_matter() -> None:
    server = FakeDiscovery(VirtualClock(), lease(9))
    async with resolver_of(server) as resolver:
        await asyncio.sleep(1)
        server.revision = -1
        server.change(lease(0, pubkey=key(3)))
        await asyncio.sleep(1)

        assert resolver.state.lease == lease(0, pubkey=key(3))


@in_virtual_time
async def test_an_absence_does_not_erase_the_colony() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server) as resolver:
        await asyncio.sleep(10)
        server.change(None)
        await asyncio.sleep(100)
        assert phase_of(resolver) is ResolverPhase.ABSENT
        assert resolver.state.lease == OLD
        assert resolver.endpoints() == (FIRST, SECOND)

        server.change(NEW)
        await asyncio.sleep(0.001)
        assert phase_of(resolver) is ResolverPhase.CURRENT
        assert resolver.state.lease == NEW


@in_virtual_time
async def test_an_absence_stays_one_while_discovery_is_away() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server) as resolver:
        await asyncio.sleep(10)
        server.change(None)
        await asyncio.sleep(1)
        since_us = resolver.state.since_us
        server.trouble = away
        server.cut()
        await asyncio.sleep(1000)

        assert phase_of(resolver) is ResolverPhase.ABSENT
        assert resolver.state.since_us == since_us
        assert isinstance(resolver.state.error, UnreachableError)


@in_virtual_time
async def test_a_watch_that_was_cut_is_opened_again_without_doubt_on_the_colony() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server) as resolver:
        phases = set()
        while server.clock.seconds() < DAY:
            await asyncio.sleep(61)
            server.cut()
            await asyncio.sleep(0.001)
            phases.add(resolver.state.phase)
            assert not is_following(resolver)
            await asyncio.sleep(1 + 2 * LATENCY)
            assert is_following(resolver)
            assert resolver.state.error is None

    assert phases == {ResolverPhase.CURRENT}


@in_virtual_time
async def test_an_outage_is_noticed_and_so_is_its_end() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server) as resolver:
        await asyncio.sleep(100)
        server.trouble = away
        server.cut()
        await asyncio.sleep(5)
        assert phase_of(resolver) is ResolverPhase.STALE
        await asyncio.sleep(600)
        server.known, server.trouble = NEW, lambda: None
        await asyncio.sleep(CAP + 2 * LATENCY)

        assert phase_of(resolver) is ResolverPhase.CURRENT
        assert resolver.state.lease == NEW


@pytest.mark.parametrize(
    "trouble",
    [lambda: UnimplementedError("no watch"), lambda: UnreachableError("cut by a proxy")],
    ids=["refused", "cut"],
)
@in_virtual_time
async def test_without_a_watch_it_polls(trouble: Callable[[], DiscoveryError]) -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    server.watch_trouble = trouble
    async with resolver_of(server, lookup_interval=100) as resolver:
        await asyncio.sleep(5)
        assert resolver.state.lease == OLD
        server.known = NEW
        await asyncio.sleep(101)
        assert resolver.state.lease == NEW
        await asyncio.sleep(1000)

        assert phase_of(resolver) is ResolverPhase.CURRENT
        assert not is_following(resolver)
        assert 10 <= len(server.lookups) <= 14


@in_virtual_time
async def test_a_watch_that_is_refused_is_tried_only_now_and_then_and_used_once_it_works() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    server.watch_trouble = lambda: UnimplementedError("no watch")
    async with resolver_of(server, lookup_interval=100) as resolver:
        await asyncio.sleep(1000)
        assert 10 <= len(server.watches) <= 12
        server.watch_trouble = lambda: None
        await asyncio.sleep(101)

        assert is_following(resolver)


@in_virtual_time
async def test_a_proxy_that_holds_the_stream_back_does_not_make_it_deaf() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server, lookup_interval=100) as resolver:
        await asyncio.sleep(10)
        server.known = NEW  # and the watch says nothing
        await asyncio.sleep(101)

        assert resolver.state.lease == NEW


@in_virtual_time
async def test_a_proxy_that_cuts_every_stream_after_its_first_message_is_not_hammered() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    server.cuts_after_the_beginning = True
    async with resolver_of(server):
        await asyncio.sleep(3600)

    assert len(server.watches) < 3600 / (CAP / 4)


@in_virtual_time
async def test_an_old_answer_to_a_lookup_does_not_undo_what_the_watch_told_meanwhile() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server) as resolver:
        await asyncio.sleep(10)
        server.latency = 5
        resolver.report_failure()
        await asyncio.sleep(1)
        server.change(NEW)
        await asyncio.sleep(10)

        assert len(server.lookups) == 1
        assert resolver.state.lease == NEW


@in_virtual_time
async def test_a_burst_of_failures_asks_once_and_at_once() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server) as resolver:
        await asyncio.sleep(10)
        for _ in range(100):
            resolver.report_failure(FIRST)
            await asyncio.sleep(LATENCY / 200)
        await asyncio.sleep(60)

        assert server.lookups == [pytest.approx(10, abs=0.001)]


async def _keep_failing(resolver: ColonyResolver, seconds: int) -> None:
    for _ in range(10 * seconds):
        resolver.report_failure()
        await asyncio.sleep(0.1)


@in_virtual_time
async def test_failures_that_go_on_are_spaced_out_until_something_connects() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    full = Pacing(clock=server.clock, spread=lambda: 1.0)
    async with ColonyResolver(server, MESH, pacing=full) as resolver:
        await _keep_failing(resolver, 3600)
        assert len(server.lookups) == pytest.approx(3600 / CAP, abs=10)

        await asyncio.sleep(CAP)
        server.lookups.clear()
        resolver.connected(FIRST)
        await _keep_failing(resolver, 10)
        since = [time - server.lookups[0] for time in server.lookups]
        assert since == pytest.approx([0, 1, 3, 7], abs=0.5)


@in_virtual_time
async def test_an_endpoint_that_failed_is_not_the_first_to_try_any_more() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    async with resolver_of(server) as resolver:
        await asyncio.sleep(10)
        resolver.connected(SECOND)
        resolver.report_failure(FIRST)
        assert resolver.endpoints() == (SECOND, FIRST)
        resolver.report_failure(SECOND)

        assert resolver.endpoints() == (FIRST, SECOND)


@in_virtual_time
async def test_a_failure_finds_the_new_address_although_no_watch_works() -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    server.watch_trouble = lambda: UnimplementedError("no watch")
    async with resolver_of(server) as resolver:
        await asyncio.sleep(10)
        resolver.connected(SECOND)
        server.known = NEW
        resolver.report_failure(SECOND)
        await asyncio.sleep(2 * LATENCY)

        assert resolver.endpoints() == NEW.registration.endpoints


@in_virtual_time
async def test_the_states_tell_the_whole_story() -> None:
    server = FakeDiscovery(VirtualClock())
    resolver = resolver_of(server)
    seen: list[ResolverPhase] = []

    async def observe() -> None:
        seen.extend([state.phase async for state in resolver.states()])

    async with resolver:
        watching = asyncio.create_task(observe())
        await asyncio.sleep(1)
        server.change(OLD)
        await asyncio.sleep(1)
        server.trouble = away
        server.cut()
        await asyncio.sleep(30)
    await watching

    assert [phase for phase, _ in itertools.groupby(seen)] == [
        ResolverPhase.UNKNOWN,
        ResolverPhase.ABSENT,
        ResolverPhase.CURRENT,
        ResolverPhase.STALE,
    ]
    assert not is_following(resolver)


@pytest.mark.parametrize("steps", range(25))
@pytest.mark.parametrize("trouble", [lambda: None, away], ids=["server", "no server"])
@in_virtual_time
async def test_a_program_may_be_cancelled_at_any_moment(
    trouble: Callable[[], DiscoveryError | None], steps: int
) -> None:
    server = FakeDiscovery(VirtualClock(), OLD)
    server.latency, server.trouble = 0, trouble

    async def program() -> None:
        async with resolver_of(server) as resolver:
            async for _ in resolver.states():
                resolver.report_failure()
                with suppress(UnreachableError):
                    await resolver.resolve()

    running = asyncio.create_task(program())
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()

    with suppress(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert server.watchers == 0


@in_virtual_time
async def test_a_defect_is_raised_at_the_end() -> None:
    server = FakeDiscovery(VirtualClock())
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def defect() -> DiscoveryError | None:
        raise ZeroDivisionError

    server.trouble = defect
    with pytest.raises(ExceptionGroup) as raised:
        async with resolver_of(server):
            await asyncio.sleep(5)

    assert raised.group_contains(ZeroDivisionError)


AGENTS = 1000
CROWD = 100
"""At most this many requests of one kind in any second: a tenth. See the registrars' test of the same."""


async def _arrivals_after_an_outage(*, jitter: bool, many: int) -> tuple[list[float], list[float]]:
    """Return when each of so many resolvers watches again after an outage, and looks up, since its end.

    Three minutes are enough for every wait to have reached its cap.
    """
    clock = VirtualClock()
    servers = [FakeDiscovery(clock, OLD) for _ in range(many)]
    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        for seed, server in enumerate(servers):
            paced = pacing(clock, seed) if jitter else Pacing(clock=clock, spread=lambda: 1.0)
            group.create_task(_keep(ColonyResolver(server, MESH, pacing=paced), stop))
        await asyncio.sleep(1)
        for server in servers:
            server.trouble = away
            server.cut()
        await asyncio.sleep(60)
        back = clock.seconds()
        for server in servers:
            server.trouble = lambda: None
        await asyncio.sleep(CAP + 1)
        assert all(server.watchers == 1 for server in servers)
        stop.set()
    watches = [max(server.watches) - back for server in servers]
    return watches, [time - back for server in servers for time in server.lookups if time > back]


async def _keep(resolver: ColonyResolver, stop: asyncio.Event) -> None:
    async with resolver:
        await stop.wait()


@in_virtual_time
async def test_a_thousand_agents_do_not_come_back_together() -> None:
    watches, lookups = await _arrivals_after_an_outage(jitter=True, many=AGENTS)

    assert max(watches) <= CAP
    assert most_in_a_second(watches) <= CROWD
    assert most_in_a_second(lookups) <= CROWD


@in_virtual_time
async def test_without_jitter_they_would_all_come_back_together() -> None:
    watches, _ = await _arrivals_after_an_outage(jitter=False, many=100)

    assert most_in_a_second(watches) == 100
