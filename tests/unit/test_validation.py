"""Every rule about what a request may hold, with values on both sides of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.errors import InvalidFieldError, Violation
from discovery.models import Endpoint, Registration
from discovery.validation import check_id, check_pubkey, check_registration, require
from tests.support import KEY, examples, key, registration, shown

MANY_ENDPOINTS = tuple(f"192.0.2.1:{port}" for port in range(1, 34))


def _violations(**changes: Any) -> list[Violation]:
    return list(check_registration(registration(**changes)))


def _fields(**changes: Any) -> list[str]:
    return [violation.field for violation in _violations(**changes)]


def test_a_valid_registration_breaks_no_rule() -> None:
    assert _violations() == []
    require(check_registration(registration()))


# mesh_id, agent_id


@pytest.mark.parametrize(
    "value", ["a", "Z", "0", "my-app.prod_2", "a" * 253, "1" + "-" * 252, "a.", "a-", "A..b"]
)
def test_a_good_id_passes(value: str) -> None:
    assert list(check_id("mesh_id", value)) == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a" * 254,
        "a" * 10_000,
        ".a",
        "-a",
        "_a",
        "a b",
        " a",
        "a ",
        "a\n",
        "a\r\n",
        "\na",
        "a\0",
        "a/b",
        "a:b",
        "{a}",
        "\u00e9",
        "a\u00e9",
        "\u0430",  # Cyrillic a
        "a\uff11",  # fullwidth 1
        "\u0663",  # Arabic 3
        "\u212a",  # Kelvin, a k where case is ignored
    ],
    ids=shown,
)
@pytest.mark.parametrize("field", ["mesh_id", "agent_id"])
def test_a_bad_id_is_one_violation(field: str, value: str) -> None:
    [violation] = check_id(field, value)

    assert violation.field == field
    assert len(violation.description) < 100


def test_a_registration_has_its_mesh_id_checked() -> None:
    assert _fields(mesh_id=".a") == ["mesh_id"]


# pubkey


@pytest.mark.parametrize("value", [KEY, key(2**256 - 1), key(2**255)])
def test_a_good_pubkey_passes(value: str) -> None:
    assert list(check_pubkey(value)) == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "not base64!",
        KEY[:-1],
        KEY + "=",
        KEY + "\n",
        " " + KEY,
        KEY[:20] + "\n" + KEY[20:],
        KEY[:-2] + "F=",  # two bits that no byte holds, set
        KEY.replace("=", "é"),
        "A" * 44,
        "=" * 44,
        base64.b64encode(bytes([1]) * 31).decode(),
        base64.b64encode(bytes([1]) * 33).decode(),
        base64.b64encode(bytes([1]) * 64).decode(),
        base64.urlsafe_b64encode(bytes([255]) * 32).decode(),
        base64.b16encode(bytes([1]) * 32).decode(),
        "A" * 100_000,
    ],
    ids=shown,
)
def test_a_pubkey_that_is_not_32_bytes_in_canonical_base64_is_refused(value: str) -> None:
    assert list(check_pubkey(value)) == [
        Violation("pubkey", "must be the base64 of 32 bytes, as `wg pubkey` prints it")
    ]


def test_an_all_zero_pubkey_is_refused() -> None:
    assert list(check_pubkey(key(0))) == [Violation("pubkey", "must not be all zero")]


def test_a_registration_has_its_pubkey_checked() -> None:
    assert _fields(pubkey="x") == ["pubkey"]


# endpoints


@pytest.mark.parametrize(
    "endpoint",
    [
        "203.0.113.5:1",
        "203.0.113.5:65535",
        "10.0.0.1:41820",
        "127.0.0.1:41820",
        "[2001:db8::5]:41820",
        "[2001:DB8:0:0::5]:41820",
        "[::1]:41820",
        "[fe80::1]:41820",
        "[::ffff:203.0.113.5]:41820",
        "colony.example.org:41820",
        "colony.example.org.:41820",
        "COLONY:41820",
        "xn--bcher-kva.example:41820",
        "3com.example:41820",
        "1-2.example.4a:41820",
        f"{'a' * 63}.example:1",
        f"{'a.' * 126}a:1",
    ],
)
def test_a_good_endpoint_passes(endpoint: str) -> None:
    assert _violations(endpoints=(endpoint,)) == []


@pytest.mark.parametrize(
    "endpoint, problem",
    [
        ("", "must be"),
        (":", "must be"),
        ("203.0.113.5", "must be"),
        ("203.0.113.5:", "must be"),
        ("203.0.113.5:0", "must be"),
        ("203.0.113.5:01", "must be"),
        ("203.0.113.5:+1", "must be"),
        ("203.0.113.5:-1", "must be"),
        ("203.0.113.5: 1", "must be"),
        ("203.0.113.5:1 ", "must be"),
        ("203.0.113.5:1\n", "must be"),
        ("203.0.113.5:1_0", "must be"),
        ("203.0.113.5:0x50", "must be"),
        ("203.0.113.5:http", "must be"),
        ("203.0.113.5:\u0664\u0662", "must be"),  # Arabic digits
        ("203.0.113.5:4\uff12", "must be"),  # a fullwidth digit
        ("203.0.113.5:100000", "must be"),
        ("203.0.113.5:65536", "above 65535"),
        ("203.0.113.5:99999", "above 65535"),
        ("udp://203.0.113.5:1", "must be"),
        ("203.0.113.5:1/udp", "must be"),
        ("a@b:1", "host name"),
        ("::1:1", "must be"),
        ("2001:db8::5:1", "must be"),
        ("[::1]", "must be"),
        ("[::1]1", "must be"),
        ("[::1]:0", "must be"),
        ("[::1]:70000", "above 65535"),
        ("[::1:1", "must be"),
        ("::1]:1", "must be"),
        ("[[::1]]:1", "must be"),
        ("[]:1", "not an IPv6"),
        ("[::1\n]:1", "not an IPv6"),
        ("[:::1]:1", "not an IPv6"),
        ("[::g]:1", "not an IPv6"),
        ("[203.0.113.5]:1", "not an IPv6"),
        ("[colony.example.org]:1", "not an IPv6"),
        ("[fe80::1%eth0]:1", "zone"),
        ("[fe80::1%]:1", "zone"),
        ("0.0.0.0:1", "unspecified"),
        ("[::]:1", "unspecified"),
        ("[0:0:0:0:0:0:0:0]:1", "unspecified"),
        ("[::ffff:0.0.0.0]:1", "unspecified"),
        ("224.0.0.1:1", "multicast"),
        ("239.255.255.255:1", "multicast"),
        ("[ff02::1]:1", "multicast"),
        ("[::ffff:224.0.0.1]:1", "multicast"),
        ("[::ffff:e000:1]:1", "multicast"),
        (":1", "host name"),
        (".:1", "host name"),
        ("a..b:1", "host name"),
        (".a:1", "host name"),
        ("-a.example:1", "host name"),
        ("a-.example:1", "host name"),
        ("a_b.example:1", "host name"),
        ("a b:1", "host name"),
        ("a\n:1", "host name"),
        ("bücher.example:1", "host name"),
        ("fe80::1%eth0:1", "must be"),
        (f"{'a' * 64}.example:1", "host name"),
        (f"{'a.' * 126}aa:1", "host name"),
        ("a" * 10_000 + ":1", "host name"),
        ("256.0.0.1:1", "IPv4"),
        ("1.2.3:1", "IPv4"),
        ("1.2.3.4.5:1", "IPv4"),
        ("01.2.3.4:1", "IPv4"),
        ("127.1:1", "IPv4"),
        ("2130706433:1", "IPv4"),
        ("example.1:1", "IPv4"),
    ],
    ids=shown,
)
def test_a_bad_endpoint_is_one_violation(endpoint: str, problem: str) -> None:
    [violation] = _violations(endpoints=("192.0.2.1:1", endpoint))

    assert violation.field == "endpoints[1]"
    assert problem in violation.description


@pytest.mark.parametrize(
    "first, second",
    [
        ("203.0.113.5:1", "203.0.113.5:1"),
        ("[2001:db8::5]:1", "[2001:DB8:0:0:0:0:0:5]:1"),
        ("[::ffff:203.0.113.5]:1", "[::ffff:cb00:7105]:1"),
        ("Colony.example:1", "colony.EXAMPLE:1"),
        ("colony.example:1", "colony.example.:1"),
    ],
)
def test_a_duplicate_is_refused_however_it_is_spelled(first: str, second: str) -> None:
    [violation] = _violations(endpoints=("192.0.2.1:1", first, second))

    assert violation.field == "endpoints[2]"
    assert violation.description.endswith("is a duplicate of endpoints[1]")


@pytest.mark.parametrize(
    "first, second",
    [
        ("203.0.113.5:1", "203.0.113.5:11"),
        ("203.0.113.5:1", "203.0.113.6:1"),
        ("[2001:db8::5]:1", "[2001:db8::6]:1"),
        ("a.example:1", "b.example:1"),
    ],
)
def test_what_only_looks_alike_is_no_duplicate(first: str, second: str) -> None:
    assert _violations(endpoints=(first, second)) == []


def test_each_of_many_duplicates_is_named() -> None:
    assert _fields(endpoints=("a.example:1",) * 3) == ["endpoints[1]", "endpoints[2]"]


def test_two_endpoints_with_the_same_fault_are_no_duplicates_but_two_faults() -> None:
    violations = _violations(endpoints=("0.0.0.0:1", "0.0.0.0:1"))

    assert [violation.field for violation in violations] == ["endpoints[0]", "endpoints[1]"]
    assert all("unspecified" in violation.description for violation in violations)


def test_32_endpoints_are_enough_and_33_too_many() -> None:
    assert _violations(endpoints=MANY_ENDPOINTS[:32]) == []
    assert _violations(endpoints=MANY_ENDPOINTS) == [Violation("endpoints", "33 given; at most 32")]


def test_endpoints_may_be_missing_only_if_one_was_observed() -> None:
    observed = Endpoint("203.0.113.5", 41820)

    assert _fields(endpoints=()) == ["endpoints"]
    assert _violations(endpoints=(), observed_endpoint=observed) == []


# observed_endpoint


@pytest.mark.parametrize("ip", ["203.0.113.5", "2001:db8::5", "10.0.0.1", "::ffff:203.0.113.5"])
def test_a_good_observed_address_passes(ip: str) -> None:
    assert _violations(observed_endpoint=Endpoint(ip, 1)) == []


@pytest.mark.parametrize(
    "ip",
    [
        "",
        "localhost",
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "224.0.0.1",
        "ff02::1",
        "::ffff:224.0.0.1",
        "203.0.113.5:1",
        "[2001:db8::5]",
        "203.0.113.5\n",
        "203.0.113.05",
        "3405803781",
        "fe80::1%eth0",
        "fe80::1%" + "\n" * 10_000,
    ],
    ids=shown,
)
def test_a_bad_observed_address_is_refused(ip: str) -> None:
    assert _fields(observed_endpoint=Endpoint(ip, 1)) == ["observed_endpoint.ip"]


@pytest.mark.parametrize("port", [1, 65535])
def test_a_good_observed_port_passes(port: int) -> None:
    assert _violations(observed_endpoint=Endpoint("203.0.113.5", port)) == []


@pytest.mark.parametrize("port", [0, 65536, 2**32 - 1])
def test_a_bad_observed_port_is_refused(port: int) -> None:
    violations = _violations(observed_endpoint=Endpoint("203.0.113.5", port))

    assert violations == [Violation("observed_endpoint.port", f"is {port}; must be 1 to 65535")]


# metadata


def _entries(count: int) -> Mapping[str, str]:
    return {f"key-{number}": "" for number in range(count)}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"": ""},
        {"any key\n": "any value\0"},
        {"k" * 128: "v"},
        {"é" * 64: "v"},
        {"k": "v" * 4096},
        {"k": "€" * 1365 + "v"},
        _entries(64),
        {str(number): "v" * 4095 for number in range(4)},
    ],
    ids=shown,
)
def test_good_metadata_passes(metadata: Mapping[str, str]) -> None:
    assert _violations(metadata=metadata) == []


@pytest.mark.parametrize(
    "metadata, expected",
    [
        ({"k" * 129: "v"}, "key is 129 bytes; at most 128"),
        ({"é" * 65: "v"}, "key is 130 bytes; at most 128"),
        ({"k": "v" * 4097}, "value is 4097 bytes; at most 4096"),
        ({"k": "€" * 1366}, "value is 4098 bytes; at most 4096"),
        ({"k": "🪸" * 1025}, "value is 4100 bytes; at most 4096"),
        (_entries(65), "65 entries; at most 64"),
        (_entries(1000), "1000 entries; at most 64"),
        ({"a": "v" * 4095, "b": "v" * 4095, "c": "v" * 4095, "d": "v" * 4095, "": "v"}, "16385"),
        ({f"{number:04}": "v" * 1084 for number in range(16)}, "17408 bytes in all"),
        ({f"{number:04}": "€" * 400 for number in range(16)}, "19264 bytes in all"),
        ({"k" * 128 + str(number): "" for number in range(3)}, "key is 129 bytes"),
    ],
    ids=shown,
)
def test_too_much_metadata_is_refused(metadata: Mapping[str, str], expected: str) -> None:
    violations = _violations(metadata=metadata)

    assert violations
    assert all(expected in violation.description for violation in violations)


def test_a_metadata_violation_names_the_key() -> None:
    assert _fields(metadata={"good": "", "k": "v" * 4097}) == ["metadata['k']"]


def test_keys_count_towards_the_16_kib_too() -> None:
    keys = {"k" * 120 + f"{number:03}": "v" * 133 for number in range(64)}

    assert _violations(metadata=keys) == []
    assert _fields(metadata={**keys, "k" * 120 + "000": "v" * 134}) == ["metadata"]


# mesh_ipv4, mesh_ipv6, ports


@pytest.mark.parametrize("field, address", [("mesh_ipv4", "10.0.0.1"), ("mesh_ipv6", "fd00::1")])
def test_a_mesh_address_is_of_its_family_or_empty(field: str, address: str) -> None:
    assert _violations(**{field: address}) == []
    assert _violations(**{field: ""}) == []


@pytest.mark.parametrize(
    "field, address",
    [
        ("mesh_ipv4", "fd00::1"),
        ("mesh_ipv4", "10.0.0.1/24"),
        ("mesh_ipv4", "10.0.0"),
        ("mesh_ipv4", "010.0.0.1"),
        ("mesh_ipv4", "10.0.0.1\n"),
        ("mesh_ipv4", "a" * 10_000),
        ("mesh_ipv6", "10.0.0.1"),
        ("mesh_ipv6", "[fd00::1]"),
        ("mesh_ipv6", "fd00::1/64"),
        ("mesh_ipv6", "fd00::1\n"),
        ("mesh_ipv6", "fe80::1%eth0"),
        ("mesh_ipv6", "fe80::1%" + "\n" * 10_000),
    ],
    ids=shown,
)
def test_a_bad_mesh_address_is_refused(field: str, address: str) -> None:
    [violation] = _violations(**{field: address})

    assert violation.field == field
    assert len(violation.description) < 200


@pytest.mark.parametrize("field", ["connect_port", "public_port"])
@pytest.mark.parametrize("port", [0, 1, 65535])
def test_a_good_port_passes(field: str, port: int) -> None:
    assert _violations(**{field: port}) == []


@pytest.mark.parametrize("field", ["connect_port", "public_port"])
@pytest.mark.parametrize("port", [-1, 65536, 2**32 - 1])
def test_a_bad_port_is_refused(field: str, port: int) -> None:
    assert _violations(**{field: port}) == [Violation(field, f"is {port}; must be 0 to 65535")]


# All of it together


WRONG_THROUGHOUT = registration(
    mesh_id="",
    pubkey="x",
    endpoints=("0.0.0.0:1", "a.example:1", "a.example:1"),
    metadata={"k": "v" * 4097, "l" * 129: ""},
    mesh_ipv4="x",
    mesh_ipv6="x",
    connect_port=65536,
    public_port=-1,
    observed_endpoint=Endpoint("x", 0),
)


def test_all_violations_are_reported_at_once() -> None:
    assert [violation.field for violation in check_registration(WRONG_THROUGHOUT)] == [
        "mesh_id",
        "pubkey",
        "endpoints[0]",
        "endpoints[2]",
        "observed_endpoint.ip",
        "observed_endpoint.port",
        "metadata['k']",
        f"metadata['{'l' * 39}\\u2026']",
        "mesh_ipv4",
        "mesh_ipv6",
        "connect_port",
        "public_port",
    ]


def test_require_raises_all_violations_in_one_error() -> None:
    violations = tuple(check_registration(WRONG_THROUGHOUT))

    with pytest.raises(InvalidFieldError) as error:
        require(iter(violations))

    assert error.value.violations == violations
    assert "mesh_id: must not be empty; pubkey: must" in error.value.message


HOSTILE = st.one_of(
    st.text(),
    st.text(alphabet="0123456789abcdef.:[]%-_ \n"),
    st.sampled_from(["\n" * 10_000, "🪸" * 10_000, "\x1b[31m", "[" * 1000, "%" * 1000, "0" * 5000]),
)
OBSERVED = st.builds(Endpoint, HOSTILE, st.integers(0, 2**32 - 1), HOSTILE)
REGISTRATIONS = st.builds(
    Registration,
    mesh_id=HOSTILE,
    pubkey=HOSTILE,
    endpoints=st.lists(HOSTILE, max_size=40).map(tuple),
    metadata=st.dictionaries(HOSTILE, HOSTILE, max_size=5),
    mesh_ipv4=HOSTILE,
    mesh_ipv6=HOSTILE,
    connect_port=st.integers(0, 2**32 - 1),
    public_port=st.integers(0, 2**32 - 1),
    observed_endpoint=st.none() | OBSERVED,
)


@given(sent=REGISTRATIONS)
@examples(300)
def test_whatever_is_sent_violations_are_short_printable_ascii(sent: Registration) -> None:
    for violation in check_registration(sent):
        assert violation.field.isascii()
        assert violation.field.isprintable()
        assert violation.description.isascii()
        assert violation.description.isprintable()
        assert len(violation.field) + len(violation.description) < 800


@given(value=HOSTILE)
@examples(300)
def test_whatever_passes_as_an_id_is_within_its_alphabet(value: str) -> None:
    if not list(check_id("mesh_id", value)):
        assert 1 <= len(value) <= 253
        assert all(char.isascii() and (char.isalnum() or char in "._-") for char in value)
        assert value[0] not in "._-"


@given(raw=st.binary(min_size=0, max_size=70))
@examples(300)
def test_a_pubkey_passes_if_it_is_32_bytes_and_not_zero(raw: bytes) -> None:
    passes = not list(check_pubkey(base64.b64encode(raw).decode()))

    assert passes == (len(raw) == 32 and any(raw))


@given(raw=st.binary(min_size=32, max_size=32).filter(any))
@examples(100)
def test_every_32_bytes_but_zero_are_a_pubkey(raw: bytes) -> None:
    assert not list(check_pubkey(base64.b64encode(raw).decode()))


@given(address=st.ip_addresses(), port=st.integers(1, 65535))
@examples(200)
def test_an_endpoint_passes_if_its_address_is_a_usable_one(address: Any, port: int) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    bare = getattr(address, "ipv4_mapped", None) or address

    passes = not _violations(endpoints=(f"{host}:{port}",))

    assert passes == (not bare.is_unspecified and not bare.is_multicast)
