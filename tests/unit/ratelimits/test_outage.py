"""While Redis is slow or lost: calls hardly wait, are decided as the operator said, and the log has one line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from discovery.errors import RateLimitedError, StoreUnavailableError
from discovery.ratelimits import Limiter, MemoryMeter, RateLimiter, circuit, parse_rules, tolerant
from discovery.ratelimits.circuit import Circuit
from discovery.ratelimits.shared import SharedMeter
from discovery.ratelimits.tolerant import TolerantLimiter
from tests.support import ManualClock, captured_logs
from tests.unit.ratelimits.fakes import FakeWindows

RULES = parse_rules(["off", "mesh:*=3/minute"])


class Rig:
    def __init__(self, fault: str = "open") -> None:
        self.clock = ManualClock()
        self.windows = FakeWindows(self.clock)
        self.undecided = 0
        self._circuit = Circuit(self.windows, self.clock, structlog.get_logger())
        own: Limiter = RateLimiter(RULES, lambda r: MemoryMeter(r.rate, self.clock))
        shared = RateLimiter(RULES, lambda r: SharedMeter(r, self._circuit, self.clock))
        self._limiter = TolerantLimiter(shared, own if fault == "open" else None, self._count)

    def _count(self) -> None:
        self.undecided += 1

    async def call(self, mesh_id: str = "mesh-1") -> str:
        """Return how it went, and that within the time it may take."""
        try:
            async with asyncio.timeout(20):
                await self._limiter.check("RegisterColony", mesh_id=mesh_id)
        except RateLimitedError:
            return "refused"
        except StoreUnavailableError as error:
            return "unavailable" if error.retry_after else "for ever"
        return "admitted"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a busy machine is not taken for an outage."""
    monkeypatch.setattr(circuit, "ANSWER", 10)
    monkeypatch.setattr(tolerant, "PATIENCE", 15)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    """So that a test of what takes too long need not take long."""
    monkeypatch.setattr(circuit, "ANSWER", 0.02)
    monkeypatch.setattr(tolerant, "PATIENCE", 0.03)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_open_is_that_each_replica_counts_for_itself(how: str) -> None:
    rig = Rig("open")
    setattr(rig.windows, how, True)

    answers = [await rig.call() for _ in range(5)]

    assert answers == ["admitted"] * 3 + ["refused"] * 2
    assert rig.undecided == 5


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_closed_is_that_calls_are_refused_as_unavailable(how: str) -> None:
    rig = Rig("closed")
    setattr(rig.windows, how, True)

    assert [await rig.call() for _ in range(3)] == ["unavailable"] * 3
    assert rig.undecided == 3


@pytest.mark.parametrize("fault", ["open", "closed"])
async def test_a_refusal_is_an_answer_and_no_fault(fault: str) -> None:
    rig = Rig(fault)

    assert [await rig.call() for _ in range(5)] == ["admitted"] * 3 + ["refused"] * 2
    assert rig.undecided == 0


async def test_after_a_failure_nobody_asks_for_a_while_and_then_one() -> None:
    rig = Rig()
    rig.windows.failing = True
    await rig.call()
    asked = len(rig.windows.asked)

    await asyncio.gather(*(rig.call(f"mesh-{n}") for n in range(100)))
    rig.clock.advance(4.9)
    await rig.call()
    assert len(rig.windows.asked) == asked

    rig.clock.advance(0.1)
    await asyncio.gather(*(rig.call(f"mesh-{n}") for n in range(100)))
    assert len(rig.windows.asked) == asked + 1


async def test_the_shared_count_is_asked_again_once_it_answers() -> None:
    rig = Rig()
    rig.windows.failing = True
    await rig.call()
    rig.windows.failing = False
    rig.clock.advance(5)

    assert [await rig.call() for _ in range(4)] == ["admitted"] * 3 + ["refused"]
    assert rig.undecided == 1


async def test_a_caller_who_gives_up_while_it_tries_does_not_keep_others_from_it_for_long() -> None:
    rig = Rig()
    rig.windows.failing = True
    await rig.call()
    rig.windows.failing, rig.windows.hanging = False, True
    rig.clock.advance(5)
    trying = asyncio.create_task(rig.call())
    await asyncio.sleep(0)
    trying.cancel()
    await asyncio.gather(trying, return_exceptions=True)

    rig.windows.hanging = False
    rig.clock.advance(5)
    await rig.call("mesh-2")

    assert rig.undecided == 1


async def test_an_outage_is_one_line_in_the_log_and_its_end_another() -> None:
    rig = Rig()
    with captured_logs() as lines:
        rig.windows.failing = True
        for _ in range(10):
            await asyncio.gather(*(rig.call(f"mesh-{n}") for n in range(10)))
            rig.clock.advance(3)
        rig.windows.failing = False
        rig.clock.advance(5)
        await asyncio.gather(*(rig.call(f"mesh-{n}") for n in range(10)))
        await rig.call()

    said: list[Any] = [(line["event"], line["log_level"]) for line in lines]
    assert said == [("rate_limits_lost", "warning"), ("rate_limits_back", "info")]
    assert lines[0]["error"] == "Redis failed: ConnectionError"


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_hangs_costs_those_who_wait_for_the_same_name_no_more() -> None:
    rig = Rig()
    rig.windows.hanging = True
    loop = asyncio.get_running_loop()
    started = loop.time()

    await asyncio.gather(*(rig.call() for _ in range(1000)))

    assert len(rig.windows.asked) == 1
    assert loop.time() - started < 5  # seconds that a busy machine may add


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_is_slow_for_each_of_many_delays_none_of_them_for_long() -> None:
    rig = Rig()
    rig.windows.delay = circuit.ANSWER * 3 / 4

    await asyncio.gather(*(rig.call() for _ in range(10)))

    assert rig.undecided >= 7


async def test_a_defect_is_not_taken_for_an_outage() -> None:
    rig = Rig()

    async def defect(*_: object) -> bool:
        raise ZeroDivisionError

    rig.windows.acquire_sliding_window_entry = defect  # type: ignore[assignment, method-assign]
    with pytest.raises(ZeroDivisionError):
        await rig.call()
