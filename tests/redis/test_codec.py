"""Leases as bytes: nothing is lost, equal is equal, and other versions' bytes can be read."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.errors import StoreUnavailableError
from discovery.models import (
    CertificateFingerprint,
    Endpoint,
    Lease,
    PublicEndpoint,
    Registration,
    Reservation,
    WatchEvent,
)
from discovery.remembered import ROOM
from discovery.stores.redis.codec import (
    decode_event,
    decode_lease,
    decode_reservation,
    encode_owner,
    encode_registration,
)
from tests.support import KEY, MESH, examples, registration, shown

# Any string at all, lone surrogates too: what may be in a registration is not for the store to say.
TEXT = st.text(st.characters(), max_size=20)
NUMBER = st.integers(min_value=0, max_value=2**32 - 1)

ENDPOINTS = st.builds(Endpoint, TEXT, NUMBER, TEXT, via_relay=st.booleans())
PUBLIC_ENDPOINTS = st.builds(
    PublicEndpoint,
    enabled=st.booleans(),
    url=TEXT,
    ca_cert=TEXT,
    ca_fingerprint=st.none() | st.builds(CertificateFingerprint, NUMBER, st.binary(max_size=40)),
    updated_at_us=st.none() | st.integers(min_value=-(2**62), max_value=2**62),
)
REGISTRATIONS = st.builds(
    Registration,
    mesh_id=st.just(MESH),
    pubkey=st.just(KEY),
    endpoints=st.lists(TEXT, max_size=4).map(tuple),
    metadata=st.dictionaries(TEXT, TEXT, max_size=4),
    mesh_ipv4=TEXT,
    mesh_ipv6=TEXT,
    connect_port=NUMBER,
    public_port=NUMBER,
    observed_endpoint=st.none() | ENDPOINTS,
    public_endpoint=st.none() | PUBLIC_ENDPOINTS,
    agent_id=TEXT,
)


def stored(body: bytes, head: bytes = b"1 10 20 30 key") -> bytes:
    return head + b"\n" + body


@given(REGISTRATIONS)
@examples(200)
def test_what_is_encoded_is_decoded(wanted: Registration) -> None:
    lease = decode_lease(stored(encode_registration(wanted)))

    assert lease == Lease(wanted, 10, 20, 30)


@given(REGISTRATIONS, REGISTRATIONS)
@examples(100)
def test_bytes_are_equal_if_and_only_if_registrations_are(
    one: Registration, other: Registration
) -> None:
    assert (encode_registration(one) == encode_registration(other)) is (one == other)


def test_the_order_of_metadata_makes_no_difference() -> None:
    one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}

    assert encode_registration(registration(metadata=one)) == encode_registration(
        registration(metadata=other)
    )


def test_an_empty_public_endpoint_is_not_none() -> None:
    empty = replace(registration(), public_endpoint=PublicEndpoint())

    assert encode_registration(empty) != encode_registration(registration())


def test_the_form_stays_as_it_is() -> None:
    """Replicas of two versions work side by side, and compare bytes: this must never change."""
    wanted = registration(
        connect_port=9000,
        observed_endpoint=Endpoint("198.51.100.7", 41820),
        public_endpoint=PublicEndpoint(
            enabled=True,
            url="https://é",
            ca_fingerprint=CertificateFingerprint(1, b"\x00\xff"),
            updated_at_us=7,
        ),
    )

    assert encode_registration(wanted).decode() == (
        '{"connect_port":9000,"endpoints":["203.0.113.5:41820","[2001:db8::5]:41820"],'
        '"mesh_id":"mesh-1","metadata":{"region":"eu-west"},'
        '"observed_endpoint":{"ip":"198.51.100.7","port":41820,"protocol":"udp","via_relay":false},'
        '"pubkey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=",'
        '"public_endpoint":{"ca_fingerprint":[1,"00ff"],"enabled":true,"updated_at_us":7,'
        '"url":"https://\\u00e9"}}'
    )


def test_an_agents_form_stays_as_it_is_too() -> None:
    agent = Registration(MESH, KEY, agent_id="agent-1")

    assert encode_registration(agent).decode() == (
        '{"agent_id":"agent-1","mesh_id":"mesh-1",'
        '"pubkey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="}'
    )


def test_an_agents_events_are_told_from_a_colonys() -> None:
    agent = registration(agent_id="a")
    value = stored(encode_registration(agent))

    assert decode_event([b"mesh", b"mesh-1", b"agent_lease", value, b"agent", b"a"]) == WatchEvent(
        MESH, 10, Lease(agent, 10, 20, 30), "a"
    )
    assert decode_event([b"mesh", b"m", b"agent_absent", b"7", b"agent", b"a"]) == WatchEvent(
        "m", 7, None, "a"
    )


def test_words_and_fields_of_a_later_version_are_ignored() -> None:
    document = json.loads(encode_registration(registration()))
    body = json.dumps({**document, "of_a_later_version": {"a": [1]}}).encode()

    lease = decode_lease(stored(body, b"1 10 20 30 key 5 an-owner more words"))

    assert lease == Lease(registration(), 10, 20, 30)
    assert (lease.granted_at_us, lease.owner) == (5, "an-owner")


def test_an_earlier_versions_lease_says_neither_when_it_was_granted_nor_whose_it_is() -> None:
    lease = decode_lease(stored(encode_registration(registration())))

    assert (lease.granted_at_us, lease.owner) == (0, "")


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["", "-", "%2D", "a b"]))
@examples(200)
def test_an_owner_is_one_word_whatever_the_name(owner: str) -> None:
    word = encode_owner(owner)
    head = b"1 10 20 30 key 5 %b" % word

    assert re.fullmatch(rb"[A-Za-z0-9_.~%-]+", word)
    assert decode_lease(stored(encode_registration(registration()), head)).owner == owner


@pytest.mark.parametrize("word", [b"%ff", b"\xff"])
def test_an_owner_that_is_none_is_an_error(word: bytes) -> None:
    head = b"1 10 20 30 key 5 %b" % word
    with pytest.raises(StoreUnavailableError):
        decode_lease(stored(encode_registration(registration()), head))


def test_a_reservation_is_decoded_and_words_of_a_later_version_are_ignored() -> None:
    assert decode_reservation(b"1 30 key") == Reservation("key", 30)
    assert decode_reservation(b"1 30 key more words") == Reservation("key", 30)


@pytest.mark.parametrize("value", [b"", b"1", b"1 30", b"2 30 key", b"1 x key", b"1 30 \xff"])
def test_what_is_no_reservation_is_an_error_and_no_absence(value: bytes) -> None:
    with pytest.raises(StoreUnavailableError):
        decode_reservation(value)


RUBBISH = [
    b"",
    b"rubbish",
    b"2 10 20 30 key\n{}",
    b"1 10 20\n{}",
    b"1 10 x 30 key\n{}",
    b"1 10 20 30 key x owner\n{}",
    stored(b""),
    stored(b"{}"),
    stored(b"[]"),
    stored(b"null"),
    stored(b'{"mesh_id":"m","pubkey":"k","endpoints":5}'),
    stored(b'{"mesh_id":"m","pubkey":"k","observed_endpoint":{}}'),
    stored(b'{"mesh_id":"m","pubkey":"k","public_endpoint":{"ca_fingerprint":[1,"xyz"]}}'),
    stored(b'{"mesh_id":"m\xff"}'),
]


@pytest.mark.parametrize("value", RUBBISH, ids=shown)
def test_what_is_no_lease_is_an_error_and_no_absence(value: bytes) -> None:
    with pytest.raises(StoreUnavailableError):
        decode_lease(value)
    with pytest.raises(StoreUnavailableError):
        decode_event([b"mesh", b"m", b"lease", value])
    with pytest.raises(StoreUnavailableError):
        decode_event([b"mesh", b"m", b"agent_lease", value, b"agent", b"a"])


@pytest.mark.parametrize(
    "fields",
    [
        [b"mesh"],
        [b"absent", b"5"],
        [b"mesh", b"m", b"absent", b"x"],
        [b"mesh", b"\xff", b"absent", b"1"],
        [b"mesh", b"m", b"agent_absent", b"1"],
        [b"mesh", b"m", b"agent", b"a", b"agent_absent", b"x"],
    ],
    ids=shown,
)
def test_what_is_no_event_is_an_error(fields: list[bytes]) -> None:
    with pytest.raises(StoreUnavailableError):
        decode_event(fields)


def test_an_event_of_a_later_kind_is_none_of_ours() -> None:
    assert decode_event([b"mesh", b"m", b"relay", b"..."]) is None


def test_what_was_written_of_an_object_is_remembered_if_it_is_short() -> None:
    short = registration()
    long = registration(metadata={"a": "\1" * 300})

    assert encode_registration(short) is encode_registration(short)
    assert encode_registration(long) is not encode_registration(long)


def test_only_so_much_is_remembered() -> None:
    first = registration()
    before = encode_registration(first)
    others = [registration(mesh_id=f"mesh-{number}") for number in range(ROOM)]
    for number, other in enumerate(others):
        assert json.loads(encode_registration(other))["mesh_id"] == f"mesh-{number}"

    after = encode_registration(first)
    assert after == before
    assert after is not before
