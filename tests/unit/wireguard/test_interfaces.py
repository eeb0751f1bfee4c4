"""Where this machine says that it may be reached, and how it notices that this changed."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from types import SimpleNamespace

import psutil
import pytest

from discovery.validation import MAX_ENDPOINTS, IPAddress, check_registration
from discovery.wireguard.interfaces import address_changes, local_addresses, local_endpoints
from tests.support import registration


def _addresses(*texts: str) -> list[IPAddress]:
    return [ipaddress.ip_address(text) for text in texts]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return the machine's interfaces and their addresses; one whose name ends in `-down` is down."""
    interfaces: dict[str, list[str]] = {}

    def addresses() -> dict[str, list[SimpleNamespace]]:
        mac = SimpleNamespace(family=psutil.AF_LINK, address="02:00:00:00:00:01")
        return {name: [mac, *map(_entry, texts)] for name, texts in interfaces.items()}

    def states() -> dict[str, SimpleNamespace]:
        # Interfaces come and go between the two calls.
        return {n: SimpleNamespace(isup=not n.endswith("-down")) for n in interfaces if n != "new"}

    monkeypatch.setattr(psutil, "net_if_addrs", addresses)
    monkeypatch.setattr(psutil, "net_if_stats", states)
    return interfaces


def _entry(text: str) -> SimpleNamespace:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return SimpleNamespace(family=family, address=text)


def test_addresses_that_others_can_use_are_found_ipv4_first(machine: dict[str, list[str]]) -> None:
    machine["lo"] = ["127.0.0.1", "::1"]
    machine["eth0"] = ["fe80::1%eth0", "2001:db8::5", "10.0.0.5", "169.254.1.1"]
    machine["eth1"] = ["10.0.0.5", "fd12::1%eth1", "203.0.113.5", "0.0.0.0", "::", "224.0.0.1"]
    machine["eth2-down"] = ["10.0.0.6"]
    machine["coral-1234abcd"] = ["fdaa::1"]
    machine["new"] = ["10.0.0.7"]

    assert local_addresses() == _addresses("10.0.0.5", "203.0.113.5", "2001:db8::5", "fd12::1")


def test_this_machine_is_read_without_failing() -> None:
    for address in local_addresses():
        assert not address.is_loopback
        assert not address.is_link_local


def test_the_most_promising_endpoints_come_first() -> None:
    own = _addresses("10.0.0.5", "8.8.8.8", "fd12::1", "2600::5")

    assert local_endpoints(41820, "9.9.9.9", own) == [
        "8.8.8.8:41820",
        "[2600::5]:41820",
        "9.9.9.9:41820",
        "10.0.0.5:41820",
        "[fd12::1]:41820",
    ]


@pytest.mark.parametrize(
    "observed",
    [None, "8.8.8.8", "::ffff:8.8.8.8", "127.0.0.1", "::1", "fe80::1", "0.0.0.0", "", "unix:", "x"],
)
def test_what_discovery_saw_counts_only_if_it_is_new_and_of_use(observed: str | None) -> None:
    assert local_endpoints(1, observed, _addresses("8.8.8.8")) == ["8.8.8.8:1"]


def test_a_private_address_that_discovery_saw_comes_before_the_others() -> None:
    own = _addresses("10.0.0.5", "10.0.0.6")

    assert local_endpoints(1, "10.0.0.6", own) == ["10.0.0.6:1", "10.0.0.5:1"]


def test_a_machine_of_many_addresses_says_as_many_as_it_may() -> None:
    own = [ipaddress.ip_address(f"10.0.0.{i}") for i in range(1, 100)]

    endpoints = local_endpoints(1, "8.8.8.8", own)

    assert len(endpoints) == MAX_ENDPOINTS
    assert endpoints[0] == "8.8.8.8:1"
    assert list(check_registration(registration(endpoints=tuple(endpoints)))) == []


def test_a_machine_without_addresses_has_no_endpoints() -> None:
    assert local_endpoints(1, None, []) == []


async def test_each_change_of_the_set_is_told_once() -> None:
    one, two, three = _addresses("10.0.0.1", "10.0.0.2", "10.0.0.3")
    looks: Iterable[list[IPAddress]] = iter(
        [[one], [one], [one, two], [two, one], [], [], [three], [one]]
    )
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    changes = address_changes(0.25, read=lambda: next(iter(looks)), sleep=sleep)
    seen = [await anext(changes) for _ in range(4)]
    await changes.aclose()

    assert seen == [[one, two], [], [three], [one]]
    assert slept == [0.25] * 7
