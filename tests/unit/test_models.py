from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.models import (
    Endpoint,
    Lease,
    Presence,
    Registration,
    WatchEvent,
    next_revision,
    observed_endpoint,
    plain_address,
    refresh_after,
)
from tests.support import examples, registration

SPREADS = st.floats(min_value=0, max_value=1, exclude_max=True)
REVISIONS = st.integers(min_value=0, max_value=2**64 - 2)


@pytest.mark.parametrize(
    "ttl, spread, expected",
    [
        (300, 0.0, 54),
        (300, 0.5, 60),
        (300, 0.999999, 66),
        (60, 0.5, 12),
        (3600, 0.0, 648),
        (3600, 0.5, 720),
        (1, 0.0, 1),
        (1, 0.999999, 1),
        (2, 0.5, 1),
    ],
)
def test_a_lease_is_renewed_after_about_a_fifth_of_it(
    ttl: int, spread: float, expected: int
) -> None:
    assert refresh_after(ttl, spread) == expected


@given(ttl=st.integers(min_value=1, max_value=2_592_000), spread=SPREADS)
@examples(200)
def test_renewals_are_spread_by_a_tenth_either_way(ttl: int, spread: float) -> None:
    seconds = refresh_after(ttl, spread)

    assert seconds >= 1
    assert ttl * 0.18 - 0.5 <= seconds <= max(1, ttl * 0.22 + 0.5)


@given(ttl=st.integers(min_value=2, max_value=2_592_000), spread=SPREADS)
@examples(200)
def test_a_renewal_comes_before_the_lease_ends(ttl: int, spread: float) -> None:
    assert refresh_after(ttl, spread) < ttl


@given(previous=REVISIONS, unix_us=st.integers(min_value=-(2**53), max_value=2**53))
@examples(200)
def test_a_revision_is_greater_than_the_one_before_and_not_before_its_time(
    previous: int, unix_us: int
) -> None:
    revision = next_revision(previous, unix_us)

    assert revision > previous
    assert revision >= unix_us
    assert revision in {previous + 1, unix_us}


@pytest.mark.parametrize(
    "address, plain",
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8::5", "2001:db8::5"),
        ("2001:DB8:0:0::5", "2001:db8::5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("::ffff:cb00:7105", "203.0.113.5"),
        ("fe80::1%eth0", "fe80::1"),
        ("::", "::"),
        ("::1", "::1"),
        ("", None),
        ("localhost", None),
        ("/run/coral.sock", None),
        ("203.0.113.5:8080", None),
        ("[::1]", None),
        ("203.0.113.05", None),
    ],
)
def test_an_address_is_told_as_people_write_it(address: str, plain: str | None) -> None:
    assert plain_address(address) == plain


@given(address=st.text())
@examples(200)
def test_any_text_is_an_address_or_is_none(address: str) -> None:
    plain = plain_address(address)

    assert plain is None or plain_address(plain) == plain


def test_the_port_of_a_caller_is_not_told() -> None:
    assert observed_endpoint("203.0.113.5") == Endpoint("203.0.113.5", 0, "tcp")


def test_a_caller_without_an_address_is_no_endpoint() -> None:
    assert observed_endpoint(None) is None


def test_an_event_with_a_lease_is_a_presence() -> None:
    lease = Lease(registration(), 7, 0, 1)

    assert WatchEvent("mesh-1", 7, lease).presence is Presence.REGISTERED
    assert WatchEvent("mesh-1", 8, None).presence is Presence.ABSENT


def test_equal_registrations_mean_that_nothing_changed() -> None:
    assert Registration("m", "k", metadata={}) == Registration("m", "k")
    assert registration() == registration()
    assert registration() != registration(public_port=1)


def test_registrations_are_frozen() -> None:
    with pytest.raises(AttributeError):
        registration().mesh_id = "other"  # type: ignore[misc]
