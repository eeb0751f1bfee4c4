"""What an end of a tunnel says of where it can be reached."""

from __future__ import annotations

import ipaddress

import pytest

from discovery.models import Registration
from discovery.runners import presence
from discovery.runners.presence import Presence
from tests.support import registration

INSIDE = "fddc:1::7"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [ipaddress.ip_address(text) for text in ("10.0.0.5", "fd12::1", INSIDE)]
    monkeypatch.setattr(presence, "local_addresses", lambda: own)


def describe(endpoints: tuple[str, ...]) -> Registration:
    return registration(endpoints=endpoints)


def test_the_tunnel_is_no_way_to_its_own_end() -> None:
    here = Presence(41820, (), describe, INSIDE)

    assert here.registration().endpoints == ("10.0.0.5:41820", "[fd12::1]:41820")


def test_without_a_tunnel_every_address_is_a_way() -> None:
    assert f"[{INSIDE}]:41820" in Presence(41820, (), describe).endpoints


def test_what_the_user_says_is_not_second_guessed() -> None:
    given = (f"[{INSIDE}]:1",)

    assert Presence(41820, given, describe, INSIDE).endpoints == given
