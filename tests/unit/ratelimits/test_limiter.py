"""Whose calls count together, and what a refusal says."""

from __future__ import annotations

import pytest

from discovery.errors import Code, RateLimitedError
from discovery.models import site_of
from discovery.ratelimits import Rate, RateLimiter, Rule, Scope, parse_rules


class FakeMeter:
    """Remembers who asked, and refuses where `wait` says so."""

    def __init__(self, rule: Rule, asked: list[tuple[Scope, str]], wait: float) -> None:
        self._scope = rule.scope
        self._asked = asked
        self._wait = wait

    async def take(self, name: str) -> float:
        self._asked.append((self._scope, name))
        return self._wait


ALL = parse_rules(["off", "key:*=7/day", "mesh:*=7/day", "address:*=7/day"])


class Rig:
    def __init__(
        self, rules: tuple[Rule, ...] = ALL, refusing: Scope | None = None, spread: float = 0.0
    ) -> None:
        self.asked: list[tuple[Scope, str]] = []
        self.limiter = RateLimiter(
            rules,
            lambda rule: FakeMeter(rule, self.asked, 8.0 if rule.scope is refusing else 0.0),
            lambda: spread,
        )


async def test_a_call_counts_for_each_name_that_it_has_the_address_first() -> None:
    rig = Rig()

    await rig.limiter.check("RegisterColony", address="192.0.2.1", mesh_id="mesh-1", key="ci")

    assert rig.asked == [(Scope.ADDRESS, "192.0.2.1"), (Scope.MESH, "mesh-1"), (Scope.KEY, "ci")]


async def test_the_address_can_be_checked_before_there_is_a_message() -> None:
    rig = Rig()

    await rig.limiter.check("RegisterColony", address="192.0.2.1")
    assert rig.asked == [(Scope.ADDRESS, "192.0.2.1")]
    await rig.limiter.check("RegisterColony", mesh_id="mesh-1")
    assert rig.asked[1:] == [(Scope.MESH, "mesh-1")]


async def test_a_unix_socket_and_a_call_without_mesh_or_key_are_not_limited_by_them() -> None:
    rig = Rig()

    await rig.limiter.check("RegisterColony", address=None, mesh_id="", key=None)

    assert rig.asked == []


async def test_a_refusal_by_address_uses_nothing_of_the_mesh_or_key() -> None:
    rig = Rig(refusing=Scope.ADDRESS)

    with pytest.raises(RateLimitedError):
        await rig.limiter.check("RegisterColony", address="192.0.2.1", mesh_id="mesh-1", key="ci")

    assert rig.asked == [(Scope.ADDRESS, "192.0.2.1")]


@pytest.mark.parametrize("method", ["LookupColony", "Unheard", "", "\ud800"])
async def test_methods_without_a_rule_are_not_limited(method: str) -> None:
    rig = Rig(parse_rules(["off", "address:RegisterColony=1/day"]), refusing=Scope.ADDRESS)

    await rig.limiter.check(method, address="192.0.2.1")

    assert rig.asked == []


@pytest.mark.parametrize("scope", Scope)
async def test_a_refusal_says_what_is_limited_and_never_who(scope: Scope) -> None:
    rig = Rig(refusing=scope)

    with pytest.raises(RateLimitedError) as refusal:
        await rig.limiter.check("LookupColony", address="192.0.2.1", mesh_id="mesh-1", key="ci")

    assert (
        refusal.value.message
        == f"too many calls of LookupColony for one {scope.value}: at most 7/day"
    )
    assert refusal.value.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("spread, retry_after", [(0.0, 8.0), (0.5, 9.5), (0.99, 10.97)])
async def test_the_refused_are_told_to_return_when_there_is_room_and_not_all_at_once(
    spread: float, retry_after: float
) -> None:
    rig = Rig(refusing=Scope.MESH, spread=spread)

    with pytest.raises(RateLimitedError) as refusal:
        await rig.limiter.check("LookupColony", mesh_id="mesh-1")

    assert refusal.value.retry_after == pytest.approx(retry_after)


async def test_each_rule_has_a_meter_of_its_own() -> None:
    rates: list[Rate] = []
    rig = Rig()

    def meter(rule: Rule) -> FakeMeter:
        rates.append(rule.rate)
        return FakeMeter(rule, rig.asked, 0.0)

    rules = parse_rules(["off", "mesh:*=10/second", "mesh:*=1000/day"])
    await RateLimiter(rules, meter).check("Health", mesh_id="mesh-1")

    assert rates == [Rate(10, 1), Rate(1000, 86_400)]
    assert rig.asked == [(Scope.MESH, "mesh-1")] * 2


@pytest.mark.parametrize(
    "address, site",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("not an address", "not an address"),
    ],
)
def test_ipv6_counts_by_its_64_and_ipv4_by_itself(address: str, site: str) -> None:
    assert site_of(address) == site
