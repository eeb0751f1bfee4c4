"""The notation of rules, what a wrong one is told, and what the defaults let a fleet do."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import pytest

from discovery.errors import ConfigError, RateLimitedError
from discovery.ratelimits import (
    DEFAULT_RULES,
    METHODS,
    MemoryMeter,
    Rate,
    RateLimiter,
    Rule,
    Scope,
    parse_rules,
)
from discovery.service import DiscoveryService
from discovery.transport.rpcs import DiscoveryRpcs
from tests.support import ManualClock, shown


def test_a_rule_names_a_scope_methods_and_a_rate() -> None:
    assert parse_rules(["off", "mesh:RegisterColony,DeregisterColony=60/minute"]) == (
        Rule(Scope.MESH, frozenset({"RegisterColony", "DeregisterColony"}), Rate(60, 60)),
    )


@pytest.mark.parametrize(
    "text, rate",
    [
        ("1/second", Rate(1, 1)),
        ("60/minutes", Rate(60, 60)),
        ("1000/2hours", Rate(1000, 7200)),
        ("999999999/day", Rate(999_999_999, 86_400)),
        ("1/30day", Rate(1, 30 * 86_400)),
    ],
)
def test_a_rate_is_so_many_calls_in_so_many_units(text: str, rate: Rate) -> None:
    [rule] = parse_rules(["off", f"key:*={text}"])

    assert rule == Rule(Scope.KEY, METHODS, rate)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "on",
        "OFF",
        "60/minute",
        "mesh=60/minute",
        "mesh:=60/minute",
        "mesh:RegisterColony",
        "mesh:RegisterColony=",
        "mesh:RegisterColony,=60/minute",
        "tenant:RegisterColony=60/minute",
        "Mesh:RegisterColony=60/minute",
        "mesh:Register-Colony=60/minute",
        "mesh:registercolony=60/minute",
        "mesh:*,Health=60/minute",
        "mesh:RegisterColony=60",
        "mesh:RegisterColony=0/minute",
        "mesh:RegisterColony=-1/minute",
        "mesh:RegisterColony=1.5/minute",
        "mesh:RegisterColony=5/0minute",
        "mesh:RegisterColony=5/fortnight",
        "mesh:RegisterColony=5/month",
        "mesh:RegisterColony=5/31days",
        "mesh:RegisterColony=5/minute;10/hour",
        "mesh:RegisterColony=5/minute,10/hour",
        "mesh:RegisterColony=٦/minute",
        "mesh:RegisterColony=1000000000/second",
        "mesh:RegisterColony=60 per minute",
        "mesh:RegisterColony=60/minute\nmesh:*=1/day",
    ],
    ids=shown,
)
def test_what_is_no_rule_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^rate-limit .*") as refusal:
        parse_rules([text])

    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text, hint",
    [
        ("mesh:60/minute", "mesh:RegisterColony=60/minute"),
        ("mesh:RegisterColonies=60/minute", "RegisterAgent, RegisterColony, WatchAgents"),
        ("mesh:RegisterColony=lots", "10/second"),
    ],
)
def test_a_refusal_says_what_is_right(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_rules([text])

    assert hint in str(refusal.value)


def test_without_rules_there_are_the_defaults() -> None:
    assert parse_rules([]) == DEFAULT_RULES


def test_off_takes_all_defaults_away_wherever_it_stands() -> None:
    rule = "address:Health=1/second"

    assert parse_rules(["off"]) == ()
    assert parse_rules([rule, "off"]) == parse_rules(["off", rule])
    assert len(parse_rules(["off", rule])) == 1


def test_a_rule_replaces_the_defaults_for_its_scope_and_methods_alone() -> None:
    rules = parse_rules(["mesh:RegisterColony=60/minute"])

    def rate(scope: Scope, method: str) -> list[Rate]:
        return [r.rate for r in rules if r.scope is scope and method in r.methods]

    assert rate(Scope.MESH, "RegisterColony") == [Rate(60, 60)]
    assert rate(Scope.MESH, "DeregisterColony") == [Rate(12_000, 60)]
    assert rate(Scope.ADDRESS, "RegisterColony") == [Rate(6_000, 60)]


def test_several_rates_for_the_same_calls_all_hold() -> None:
    rules = parse_rules(["off", "mesh:*=10/second", "mesh:*=1000/day"])

    assert [rule.rate for rule in rules] == [Rate(10, 1), Rate(1000, 86_400)]


@pytest.mark.parametrize("rule", DEFAULT_RULES, ids=str)
def test_a_rule_is_shown_as_it_is_written(rule: Rule) -> None:
    assert parse_rules(["off", str(rule)]) == (rule,)
    assert str(Rate(1000, 7200)) == "1000/2hour"


def test_every_method_of_the_service_can_be_limited_and_is() -> None:
    rpcs = DiscoveryRpcs(mock.create_autospec(DiscoveryService))
    served = {path.rpartition("/")[2] for path in (*rpcs.handlers(), *rpcs.streams())}

    assert served == METHODS
    by_address = Counter(m for r in DEFAULT_RULES if r.scope is Scope.ADDRESS for m in r.methods)
    assert by_address == Counter(served)


# What the defaults let a fleet do


class _Fleet:
    """Whoever calls, at a time that stands still until it is wound."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._limiter = RateLimiter(DEFAULT_RULES, lambda r: MemoryMeter(r.rate, self.clock))

    async def call(self, method: str, mesh_id: str, address: str = "192.0.2.1") -> None:
        await self._limiter.check(method, address=address, mesh_id=mesh_id, key="the-fleet's")

    async def may_call(self, method: str, mesh_id: str, address: str = "192.0.2.1") -> bool:
        try:
            await self.call(method, mesh_id, address)
        except RateLimitedError:
            return False
        return True


async def test_heartbeats_never_meet_a_limit() -> None:
    fleet = _Fleet()

    for _ in range(24 * 60):
        await fleet.call("RegisterColony", "mesh-1")
        fleet.clock.advance(60)


async def test_a_thousand_colonies_behind_one_address_may_restart_at_once() -> None:
    fleet = _Fleet()

    for method in ("RegisterColony", "DeregisterColony", "RegisterColony", "RegisterColony"):
        for number in range(1000):
            await fleet.call(method, f"mesh-{number}")
    for _ in range(10):
        fleet.clock.advance(60)
        for number in range(1000):
            await fleet.call("RegisterColony", f"mesh-{number}")


async def test_ten_thousand_agents_behind_one_address_may_come_back_to_one_mesh_at_once() -> None:
    fleet = _Fleet()

    for method in ("LookupColony", "WatchColony", "LookupColony", "WatchAgents", "RegisterAgent"):
        for _ in range(10_000):
            await fleet.call(method, "mesh-1")


async def test_ci_may_register_and_remove_meshes_from_many_addresses_with_one_key() -> None:
    fleet = _Fleet()

    for job in range(10_000):
        await fleet.call("RegisterColony", f"job-{job}", f"192.0.2.{job % 100}")
        await fleet.call("DeregisterColony", f"job-{job}", f"192.0.2.{job % 100}")


async def test_a_flood_from_one_address_is_cut_to_a_hundred_a_second() -> None:
    fleet, admitted = _Fleet(), 0

    for _ in range(60):
        for number in range(1000):
            admitted += await fleet.may_call("RegisterColony", f"made-up-{number}")
        fleet.clock.advance(0.1)

    assert admitted == 6000 + 59 * 10


async def test_nobody_uses_up_a_meshs_calls_from_one_address() -> None:
    fleet = _Fleet()

    for _ in range(100):
        while await fleet.may_call("RegisterColony", "mesh-1", "198.51.100.66"):
            pass
        await fleet.call("RegisterColony", "mesh-1")
        fleet.clock.advance(1)
