from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.errors import ConfigError
from discovery.transport.proxies import TrustedProxies
from tests.support import examples

PROXY = "10.0.0.1"
PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:ffff::/48"])


def xff(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", line.encode("latin-1")) for line in lines]


def forwarded(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"forwarded", line.encode("latin-1")) for line in lines]


# -- Whom to believe ------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [xff("192.0.2.1"), forwarded("for=192.0.2.1")])
@pytest.mark.parametrize("peer", ["203.0.113.9", "2001:db8::1", None])
def test_a_stranger_is_who_the_socket_says(
    peer: str | None, headers: list[tuple[bytes, bytes]]
) -> None:
    assert PROXIES.client(peer, headers) == peer


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert TrustedProxies().client(PROXY, xff("192.0.2.1")) == PROXY


@pytest.mark.parametrize("peer", [PROXY, "::ffff:10.0.0.1", "2001:db8:ffff::7"])
@pytest.mark.parametrize("headers", [xff("192.0.2.1"), forwarded("for=192.0.2.1")])
def test_a_trusted_proxy_is_believed(peer: str, headers: list[tuple[bytes, bytes]]) -> None:
    assert PROXIES.client(peer, headers) == "192.0.2.1"


def test_a_trusted_proxy_that_names_nobody_is_the_client_itself() -> None:
    assert PROXIES.client(PROXY, [(b"host", b"localhost")]) == PROXY


def test_a_single_address_can_be_trusted() -> None:
    proxies = TrustedProxies(["192.0.2.7"])
    assert [proxies.trusts(peer) for peer in ("192.0.2.7", "192.0.2.8", "x")] == [
        True,
        False,
        False,
    ]


def test_a_unix_socket_is_trusted_only_by_name() -> None:
    headers = xff("192.0.2.1")
    assert TrustedProxies(["unix:"]).client(None, headers) == "192.0.2.1"
    assert TrustedProxies(["0.0.0.0/0", "::/0"]).client(None, headers) is None


@pytest.mark.parametrize("cidr", ["", "10.0.0.0/33", "10.0.0.1/8", "proxy.example", "unix"])
def test_a_network_that_is_none_is_refused(cidr: str) -> None:
    with pytest.raises(ConfigError, match="trusted-proxy must be a network"):
        TrustedProxies([cidr])


def test_ipv4_dressed_as_ipv6_is_refused_because_it_would_never_match() -> None:
    with pytest.raises(ConfigError, match="write it as IPv4"):
        TrustedProxies(["::ffff:10.0.0.0/104"])


# -- The way from the right -----------------------------------------------------------------------


def test_what_a_client_invents_stands_left_and_is_not_read() -> None:
    assert PROXIES.client(PROXY, xff("198.51.100.1, 192.0.2.1")) == "192.0.2.1"
    assert (
        PROXIES.client(PROXY, forwarded("for=198.51.100.1, for=10.0.0.2, for=192.0.2.1"))
        == "192.0.2.1"
    )


def test_trusted_proxies_are_passed_on_the_way() -> None:
    assert PROXIES.client(PROXY, xff("192.0.2.1, 10.0.0.3, 10.0.0.2")) == "192.0.2.1"


def test_where_all_are_trusted_the_farthest_is_the_client() -> None:
    assert PROXIES.client(PROXY, xff("10.0.0.3, 10.0.0.2")) == "10.0.0.3"


def test_several_lines_are_one_list() -> None:
    assert PROXIES.client(PROXY, xff("198.51.100.1", "192.0.2.1", "10.0.0.2")) == "192.0.2.1"


def test_x_forwarded_for_wins() -> None:
    headers = [*forwarded("for=198.51.100.1"), *xff("192.0.2.1"), *forwarded("for=198.51.100.2")]
    assert PROXIES.client(PROXY, headers) == "192.0.2.1"


def test_headers_may_be_a_mapping_of_text_with_names_in_any_case() -> None:
    assert PROXIES.client(PROXY, {"X-Forwarded-For": "192.0.2.1"}) == "192.0.2.1"
    assert PROXIES.client(PROXY, {"Forwarded": b"for=192.0.2.1"}) == "192.0.2.1"


@pytest.mark.parametrize("garbage", ["unknown", "_hidden", "x", "1.2.3", "::1::", "127.0.0.01"])
def test_nothing_left_of_garbage_is_believed(garbage: str) -> None:
    assert PROXIES.client(PROXY, xff(f"192.0.2.1, {garbage}, 10.0.0.2")) == "10.0.0.2"
    assert (
        PROXIES.client(PROXY, forwarded(f'for=192.0.2.1, for="{garbage}", for=10.0.0.2'))
        == "10.0.0.2"
    )


def test_a_chain_of_trusted_proxies_that_is_absurdly_long_is_cut() -> None:
    assert PROXIES.client(PROXY, xff(", ".join(["192.0.2.1"] + ["10.0.0.2"] * 40))) == "10.0.0.2"


# -- How addresses are written --------------------------------------------------------------------


@pytest.mark.parametrize(
    "written,meant",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("  192.0.2.1\t", "192.0.2.1"),
        (",192.0.2.1,,", "192.0.2.1"),
        ("x" * 2000 + ", 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, " + "x" * 2000, PROXY),
    ],
)
def test_x_forwarded_for_as_proxies_write_it(written: str, meant: str) -> None:
    assert PROXIES.client(PROXY, xff(written)) == meant


@pytest.mark.parametrize(
    "written,meant",
    [
        ("for=192.0.2.43", "192.0.2.43"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ('for="[2001:db8:cafe::17]"', "2001:db8:cafe::17"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("proto=http ; FOR=192.0.2.60", "192.0.2.60"),
        ('for="192.0.2.43:47011"', "192.0.2.43"),
        ('for="192.0.2.43:_secret"', "192.0.2.43"),
        ("for=192.0.2.43:47011", "192.0.2.43"),
        (r'for="\1\9\2.0.2.43"', "192.0.2.43"),
        (';for=192.0.2.43;;host="a,b;for=c"', "192.0.2.43"),
        (r'host="a\", for=198.51.100.1, \"";for=192.0.2.43', "192.0.2.43"),
        ("for=192.0.2.43, , ", "192.0.2.43"),
    ],
)
def test_forwarded_as_rfc_7239_writes_it(written: str, meant: str) -> None:
    assert PROXIES.client(PROXY, forwarded(written)) == meant


@pytest.mark.parametrize(
    "written",
    [
        "",
        "proto=https",
        "for=192.0.2.1;for=192.0.2.2",
        "for",
        "for=",
        'for="',
        'for="192.0.2.1',
        "for =192.0.2.1",
        "for=[2001:db8::1",
        'for="192.0.2.1:123456"',
        "xfor=192.0.2.1",
        "by=for=192.0.2.1",
        'for=192.0.2.1;host="' + "a," * 20 + '"',
    ],
)
def test_a_forwarded_that_names_nobody_leaves_the_proxy(written: str) -> None:
    assert PROXIES.client(PROXY, forwarded(written)) == PROXY


@pytest.mark.parametrize(
    "invented", ['for="8.8.8.8', 'for=8.8.8.8;x="', '"', "\\", 'for="8.8.8.8\\']
)
def test_a_quote_that_a_client_leaves_open_hides_nothing(invented: str) -> None:
    added = 'for="[2001:db8::1]:4711";proto=https'
    assert PROXIES.client(PROXY, forwarded(f"{invented}, {added}")) == "2001:db8::1"


def test_a_host_that_a_client_chose_is_not_taken_for_its_address() -> None:
    assert PROXIES.client(PROXY, forwarded('host="x;for=8.8.8.8";proto=http')) == PROXY


@pytest.mark.parametrize("padding", ["; ", " ", "a=b;", 'a="', "\\", ",", ", ", '","'])
def test_a_header_made_to_be_slow_is_not(padding: str) -> None:
    headers = forwarded(padding * 15_000 + "!", "for=192.0.2.1")
    assert PROXIES.client(PROXY, headers) == "192.0.2.1"
    assert PROXIES.client(PROXY, forwarded("for=10.0.0.2", padding * 15_000 + "!")) == PROXY


# -- Whatever comes -------------------------------------------------------------------------------

NAMES = st.sampled_from([b"x-forwarded-for", b"X-Forwarded-For", b"forwarded", b"host", b""])
FRAGMENTS = st.sampled_from(
    [
        b"for=",
        b"10.0.0.2",
        b"192.0.2.1",
        b'"',
        b",",
        b";",
        b"[",
        b"]",
        b":1",
        b"\\",
        b" ",
        b"unknown",
    ]
)
VALUES = st.binary(max_size=40) | st.lists(FRAGMENTS, max_size=12).map(b"".join)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
@examples(300)
def test_whatever_the_headers_hold_the_answer_is_an_address(
    headers: list[tuple[bytes, bytes]],
) -> None:
    client = PROXIES.client(PROXY, headers)
    assert client is not None
    ipaddress.ip_address(client)


@given(VALUES)
@examples(300)
def test_whatever_a_client_sends_the_address_that_the_proxy_adds_is_found(value: bytes) -> None:
    sent = value.decode("latin-1")
    assert PROXIES.client(PROXY, xff(f"{sent}, 203.0.113.5")) == "203.0.113.5"
    assert PROXIES.client(PROXY, forwarded(f"{sent}, for=203.0.113.5")) == "203.0.113.5"
