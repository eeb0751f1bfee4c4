from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.client.pacing import Pacing
from discovery.client.registrar import AgentRegistrar, ColonyRegistrar
from discovery.client.state import RegistrarPhase, RegistrarState
from discovery.errors import (
    Code,
    DeadlineExceededError,
    DiscoveryError,
    InvalidFieldError,
    MeshIdTakenError,
    NotOwnerError,
    OtherError,
    TooLargeError,
    UnreachableError,
)
from discovery.models import refresh_after
from tests.support import KEY, MESH, OTHER_KEY, examples, registration
from tests.unit.client.fakes import DAY, LATENCY, FakeRegistry, away, most_in_a_second, pacing
from tests.unit.client.virtual_time import VirtualClock, in_virtual_time

CAP = 30.0
MOVED = registration(endpoints=("198.51.100.7:41820",))
MOVED_AGAIN = registration(endpoints=("198.51.100.8:41820",))


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def phase_of(registrar: ColonyRegistrar) -> RegistrarPhase:
    """Return it by a call, which mypy does not take for a value that stays."""
    return registrar.state.phase


def registrar_of(server: FakeRegistry, **options: float) -> ColonyRegistrar:
    return ColonyRegistrar(server, registration(), pacing=pacing(server.clock), **options)


@in_virtual_time
async def test_a_day_of_heartbeats_keeps_the_lease_alive() -> None:
    clock = VirtualClock()
    server = FakeRegistry(clock)
    spread = random.Random(7).random
    async with registrar_of(server) as registrar:
        while clock.seconds() < DAY:
            server.refresh_after = refresh_after(300, spread())
            await asyncio.sleep(10)
            assert clock.seconds() < server.lease_end
            assert phase_of(registrar) is RegistrarPhase.REGISTERED

    assert max(gaps(server.arrivals)) <= 66 + 0.1
    assert min(gaps(server.arrivals)) >= 54 - 0.1


@pytest.mark.parametrize(
    "ttl, told, interval, longest",
    [
        (300, 60, None, 60),
        (300, 280, None, 150),
        (300, 60, 20.0, 20),
        (300, 60, 500.0, 60),
        (300, 280, 500.0, 150),
        (300, 0, None, 66),
        (2, 1, None, 1),
        (1, 1, None, 0.5),
        (0, 0, None, 0.5),
        (300, -7, None, 66),
    ],
)
@in_virtual_time
async def test_renewals_come_when_told_but_never_later_than_allowed(
    ttl: int, told: int, interval: float | None, longest: float
) -> None:
    clock = VirtualClock()
    server = FakeRegistry(clock, ttl=ttl, refresh_after=told)
    client = ColonyRegistrar(server, registration(), interval=interval, pacing=pacing(clock))
    async with client:
        await asyncio.sleep(20 * max(ttl, 1))

    assert longest * 0.8 <= max(gaps(server.arrivals)) <= longest + 0.001


@in_virtual_time
async def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        registrar_of(FakeRegistry(VirtualClock()), interval=0)


@in_virtual_time
async def test_a_slow_answer_takes_from_the_time_to_the_next_renewal() -> None:
    server = FakeRegistry(VirtualClock())
    server.latency = 8
    async with registrar_of(server):
        await asyncio.sleep(1000)

    assert max(gaps(server.arrivals)) <= 60.001


@given(seed=st.integers(0, 2**32 - 1))
@examples(4)
@in_virtual_time
async def test_after_every_outage_of_a_day_the_lease_is_back_within_one_cap(seed: int) -> None:
    rng = random.Random(seed)
    clock = VirtualClock()
    server = FakeRegistry(clock)
    kinds = [away, lambda: DeadlineExceededError("late"), lambda: OtherError(Code.ABORTED, "", "")]
    client = ColonyRegistrar(server, registration(), pacing=pacing(clock, seed))
    async with client as registrar:
        while clock.seconds() < DAY:
            await asyncio.sleep(rng.uniform(60, 7200))
            assert phase_of(registrar) is RegistrarPhase.REGISTERED
            server.trouble = rng.choice(kinds)
            await asyncio.sleep(rng.uniform(0, 1200))
            server.trouble = lambda: None
            await asyncio.sleep(CAP + 2 * LATENCY)

            assert clock.seconds() < server.lease_end
            assert phase_of(registrar) is RegistrarPhase.REGISTERED


@pytest.mark.parametrize("ttl", [10, 60, 300])
@in_virtual_time
async def test_an_outage_of_half_a_lease_costs_no_lease(ttl: int) -> None:
    clock = VirtualClock()
    server = FakeRegistry(clock, ttl=ttl, refresh_after=ttl // 5)
    async with registrar_of(server):
        await asyncio.sleep(1)
        for _ in range(100):
            server.trouble = away
            await asyncio.sleep(ttl / 2)
            server.trouble = lambda: None
            await asyncio.sleep(ttl / 5 + 1)
            assert clock.seconds() < server.lease_end


@in_virtual_time
async def test_while_the_lease_lives_a_failed_renewal_is_only_an_error() -> None:
    server = FakeRegistry(VirtualClock())
    async with registrar_of(server) as registrar:
        await asyncio.sleep(59)
        server.trouble = away

        await asyncio.sleep(200)
        assert phase_of(registrar) is RegistrarPhase.REGISTERED
        assert isinstance(registrar.state.error, UnreachableError)
        await asyncio.sleep(100)
        assert phase_of(registrar) is RegistrarPhase.RETRYING
        assert registrar.state.registered is not None
        server.trouble = lambda: None
        await asyncio.sleep(CAP + 1)
        assert phase_of(registrar) is RegistrarPhase.REGISTERED
        assert registrar.state.error is None


@in_virtual_time
async def test_a_server_that_asks_for_patience_gets_it() -> None:
    server = FakeRegistry(VirtualClock())
    error = OtherError(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "slowly")
    error.retry_after = 20.0
    server.trouble = lambda: error
    async with registrar_of(server):
        await asyncio.sleep(1000)

    assert len(server.arrivals) > 10
    assert min(gaps(server.arrivals)) >= 20


PERMANENT: list[DiscoveryError] = [
    MeshIdTakenError(MESH, 0),
    InvalidFieldError(()),
    TooLargeError("too large"),
    OtherError(Code.PERMISSION_DENIED, "", "no"),
    OtherError(Code.UNAUTHENTICATED, "", "who?"),
    OtherError(Code.UNIMPLEMENTED, "", "what?"),
]


@pytest.mark.parametrize("error", PERMANENT, ids=lambda error: error.reason or error.code.name)
@in_virtual_time
async def test_a_refusal_is_final_until_the_next_update(error: DiscoveryError) -> None:
    server = FakeRegistry(VirtualClock())
    server.trouble = lambda: error
    async with registrar_of(server) as registrar:
        await asyncio.sleep(DAY)
        assert len(server.arrivals) == 1
        assert phase_of(registrar) is RegistrarPhase.REFUSED
        assert registrar.state.error is error

        server.trouble = lambda: None
        registrar.update(MOVED)
        await asyncio.sleep(1)
        assert [wanted for _, wanted in server.granted] == [MOVED]
        assert phase_of(registrar) is RegistrarPhase.REGISTERED


@in_virtual_time
async def test_an_update_between_two_heartbeats_is_sent_at_once() -> None:
    server = FakeRegistry(VirtualClock())
    async with registrar_of(server) as registrar:
        await asyncio.sleep(30)
        registrar.update(MOVED)
        await asyncio.sleep(2 * LATENCY)

        time, wanted = server.granted[-1]
        assert time == pytest.approx(30 + LATENCY)
        assert wanted == MOVED


@in_virtual_time
async def test_an_update_amid_a_backoff_is_sent_at_once() -> None:
    server = FakeRegistry(VirtualClock())
    error = UnreachableError("away", retry_after=200)
    server.trouble = lambda: error
    async with registrar_of(server) as registrar:
        await asyncio.sleep(100)
        server.trouble = lambda: None
        registrar.update(MOVED)
        await asyncio.sleep(2 * LATENCY)

        [(time, wanted)] = server.granted
        assert time == pytest.approx(100 + LATENCY)
        assert wanted == MOVED


@in_virtual_time
async def test_the_last_update_amid_a_call_is_sent_right_after_it() -> None:
    server = FakeRegistry(VirtualClock())
    server.latency = 5
    async with registrar_of(server) as registrar:
        await asyncio.sleep(1)
        registrar.update(MOVED)
        await asyncio.sleep(1)
        registrar.update(MOVED_AGAIN)
        await asyncio.sleep(8 + LATENCY)

        assert server.granted == [(5, registration()), (10, MOVED_AGAIN)]


@in_virtual_time
async def test_renewals_repeat_the_last_update() -> None:
    server = FakeRegistry(VirtualClock())
    async with registrar_of(server) as registrar:
        await asyncio.sleep(1)
        registrar.update(MOVED)
        await asyncio.sleep(500)

    assert [wanted for _, wanted in server.granted[1:]] == [MOVED] * 9


@pytest.mark.parametrize("change", [{"mesh_id": "m2"}, {"pubkey": OTHER_KEY}, {"agent_id": "a"}])
@in_virtual_time
async def test_an_update_cannot_become_somebody_else(change: dict[str, str]) -> None:
    registrar = registrar_of(FakeRegistry(VirtualClock()))

    with pytest.raises(ValueError, match="keeps its mesh_id"):
        registrar.update(registration(**change))


@in_virtual_time
async def test_a_clean_stop_ends_the_lease() -> None:
    server = FakeRegistry(VirtualClock())
    async with registrar_of(server) as registrar:
        await asyncio.sleep(1)

    assert server.farewells == [(MESH, KEY)]
    assert phase_of(registrar) is RegistrarPhase.STOPPED
    assert registrar.state.error is None


@in_virtual_time
async def test_who_never_registered_says_no_farewell() -> None:
    server = FakeRegistry(VirtualClock())
    error = MeshIdTakenError(MESH, 0)
    server.trouble = lambda: error
    async with registrar_of(server) as registrar:
        await asyncio.sleep(1)
        server.trouble = lambda: None

    assert server.farewells == []
    assert registrar.state.error is error


@in_virtual_time
async def test_a_call_that_the_stop_cuts_off_may_have_succeeded_and_is_taken_back() -> None:
    server = FakeRegistry(VirtualClock())
    server.latency = 1
    async with registrar_of(server):
        await asyncio.sleep(0.5)

    assert server.farewells == [(MESH, KEY)]


@in_virtual_time
async def test_a_farewell_that_fails_is_told_and_harms_nobody() -> None:
    server = FakeRegistry(VirtualClock())
    error = NotOwnerError(MESH)
    async with registrar_of(server) as registrar:
        await asyncio.sleep(1)
        server.trouble = lambda: error

    assert phase_of(registrar) is RegistrarPhase.STOPPED
    assert registrar.state.error is error


@in_virtual_time
async def test_a_farewell_takes_no_longer_than_it_may() -> None:
    server = FakeRegistry(VirtualClock())
    async with registrar_of(server, stop_timeout=3) as registrar:
        await asyncio.sleep(1)
        server.latency = 1000

    assert server.clock.seconds() == pytest.approx(4)
    assert phase_of(registrar) is RegistrarPhase.STOPPED
    assert isinstance(registrar.state.error, DeadlineExceededError)


@in_virtual_time
async def test_the_lease_is_ended_also_when_the_program_fails() -> None:
    server = FakeRegistry(VirtualClock())

    async def program() -> None:
        async with registrar_of(server):
            await asyncio.sleep(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await program()

    assert server.farewells == [(MESH, KEY)]


@pytest.mark.parametrize("steps", range(25))
@pytest.mark.parametrize("trouble", [lambda: None, away], ids=["server", "no server"])
@in_virtual_time
async def test_a_program_may_be_cancelled_at_any_moment(
    trouble: Callable[[], DiscoveryError | None], steps: int
) -> None:
    server = FakeRegistry(VirtualClock(), ttl=1, refresh_after=1)
    server.latency, server.trouble = 0, trouble

    async def program() -> None:
        async with registrar_of(server) as registrar:
            async for _ in registrar.states():
                await asyncio.sleep(0)

    running = asyncio.create_task(program())
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()

    with suppress(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert bool(server.farewells) == (trouble is not away and bool(server.arrivals))


@in_virtual_time
async def test_a_cancelled_farewell_leaves_nothing_behind() -> None:
    server = FakeRegistry(VirtualClock())

    async def program() -> None:
        async with registrar_of(server):
            await asyncio.sleep(1)
            server.latency = 1000

    running = asyncio.create_task(program())
    await asyncio.sleep(2)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_a_defect_is_reported_at_once_and_raised_at_the_end() -> None:
    server = FakeRegistry(VirtualClock())
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def defect() -> DiscoveryError | None:
        raise ZeroDivisionError

    server.trouble = defect
    registrar = registrar_of(server)

    async def program() -> None:
        async with registrar:
            with pytest.raises(ZeroDivisionError):
                [_ async for _ in registrar.states()]
            assert len(reported) == 1
            server.trouble = lambda: None

    with pytest.raises(ZeroDivisionError):
        await program()
    assert phase_of(registrar) is RegistrarPhase.STOPPED


@in_virtual_time
async def test_a_registrar_is_not_started_twice() -> None:
    registrar = registrar_of(FakeRegistry(VirtualClock()))
    async with registrar:
        pass

    with pytest.raises(RuntimeError, match="started before"):
        await registrar.__aenter__()


@in_virtual_time
async def test_the_states_tell_the_whole_story_and_end_with_the_stop() -> None:
    server = FakeRegistry(VirtualClock())
    server.trouble = away
    seen: list[RegistrarState] = []

    async def observe(registrar: ColonyRegistrar) -> None:
        seen.extend([state async for state in registrar.states()])

    async with registrar_of(server) as registrar:
        watching = asyncio.create_task(observe(registrar))
        await asyncio.sleep(0.05)
        server.trouble = lambda: None
        await asyncio.sleep(CAP)
    await watching

    phases = [phase for phase, _ in itertools.groupby(state.phase for state in seen)]
    assert phases == [
        RegistrarPhase.STARTING,
        RegistrarPhase.RETRYING,
        RegistrarPhase.REGISTERED,
        RegistrarPhase.STOPPED,
    ]
    assert [s.since_us for s in seen] == sorted(s.since_us for s in seen)
    assert [state async for state in registrar.states()] == [registrar.state]


@in_virtual_time
async def test_since_is_when_the_phase_began_and_not_the_last_renewal() -> None:
    server = FakeRegistry(VirtualClock())
    async with registrar_of(server) as registrar:
        await asyncio.sleep(1)
        first = registrar.state
        await asyncio.sleep(1000)

        assert registrar.state.since_us == first.since_us
        assert registrar.state.registered != first.registered


@in_virtual_time
async def test_a_machine_that_slept_renews_soon_after_it_woke() -> None:
    server = FakeRegistry(VirtualClock())
    async with registrar_of(server):
        await asyncio.sleep(10)
        server.clock.suspend(8 * 3600)
        woke = server.clock.seconds()
        await asyncio.sleep(11)

        assert woke < server.arrivals[-1] <= woke + 10


@in_virtual_time
async def test_a_wall_clock_that_is_set_does_not_make_a_live_lease_look_dead() -> None:
    server = FakeRegistry(VirtualClock())
    async with registrar_of(server) as registrar:
        await asyncio.sleep(1)
        server.clock.step_wall(-3600)
        await asyncio.sleep(100)
        server.trouble = away
        await asyncio.sleep(100)

        assert phase_of(registrar) is RegistrarPhase.REGISTERED


@in_virtual_time
async def test_an_agent_is_registered_and_deregistered_as_one() -> None:
    server = FakeRegistry(VirtualClock())
    agent = registration(agent_id="api")
    async with AgentRegistrar(server, agent, pacing=pacing(server.clock)):
        await asyncio.sleep(100)

    assert [wanted for _, wanted in server.granted] == [agent, agent]
    assert server.farewells == [(MESH, "api", KEY)]


COLONIES = 1000
CROWD = 100
"""At most this many of them in any second: a tenth. Evenly spread they would be 33; `random(0, cap)` again and again
makes 67 a second on average, as a mean wait is half the cap."""


async def _arrivals_after_an_outage(*, jitter: bool, many: int) -> list[float]:
    """Return when each of so many registrars first gets through after an outage of three minutes, since its end."""
    clock = VirtualClock()
    servers = [FakeRegistry(clock) for _ in range(many)]
    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        for seed, server in enumerate(servers):
            paced = pacing(clock, seed) if jitter else Pacing(clock=clock, spread=lambda: 1.0)
            group.create_task(_keep(ColonyRegistrar(server, registration(), pacing=paced), stop))
        await asyncio.sleep(1)
        for server in servers:
            server.trouble = away
        await asyncio.sleep(180)
        back = clock.seconds()
        for server in servers:
            server.trouble = lambda: None
        await asyncio.sleep(CAP + 1)
        stop.set()
    return [min(time for time, _ in server.granted if time >= back) - back for server in servers]


async def _keep(registrar: ColonyRegistrar, stop: asyncio.Event) -> None:
    async with registrar:
        await stop.wait()


@in_virtual_time
async def test_a_thousand_colonies_do_not_come_back_together() -> None:
    arrivals = await _arrivals_after_an_outage(jitter=True, many=COLONIES)

    assert max(arrivals) <= CAP + LATENCY
    assert most_in_a_second(arrivals) <= CROWD


@in_virtual_time
async def test_without_jitter_they_would_all_come_back_together() -> None:
    arrivals = await _arrivals_after_an_outage(jitter=False, many=100)

    assert most_in_a_second(arrivals) == 100
