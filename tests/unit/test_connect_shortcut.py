"""What the short cut takes for a request: what uvicorn's parser takes for the same one, or nothing."""

from __future__ import annotations

import httptools
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from discovery._gen.coral.discovery.v1 import DiscoveryServiceBase
from discovery.transport.bounds import Bounds
from discovery.transport.connect_shortcut import ConnectShortCut, Head
from discovery.transport.drain import DrainGate
from discovery.transport.pipeline import Pipeline
from discovery.transport.proxies import TrustedProxies
from tests.support import examples, shown

PATH = "/coral.discovery.v1.DiscoveryService/LookupColony"
FIELDS = (
    "host: localhost:8080",
    "content-type: application/json",
    "content-length: 2",
)
BODY = b"{}"


def request(*lines: str, first: str = f"POST {PATH} HTTP/1.1", body: bytes = BODY) -> bytes:
    return "".join(f"{line}\r\n" for line in (first, *lines, "")).encode("latin-1") + body


def make_short_cut(**bounds: int) -> ConnectShortCut:
    pipeline = Pipeline({}, DrainGate(), structlog.get_logger())
    limits = Bounds(**bounds)
    return ConnectShortCut(pipeline, TrustedProxies(), limits, DiscoveryServiceBase, at_once=True)


def read(data: bytes, **bounds: int) -> Head | None:
    return make_short_cut(**bounds).read(data)


class Parsed:
    """What uvicorn's parser makes of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.fields: list[tuple[str, str]] = []
        self.body = b""
        self.ends = 0
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)
        self.method = self._parser.get_method()
        self.version = self._parser.get_http_version()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode().lower(), value.decode()))

    def on_headers_complete(self) -> None:
        self.keep_alive = self._parser.should_keep_alive()
        self.upgrade = self._parser.should_upgrade()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ends += 1


def assert_the_parser_agrees(data: bytes, head: Head) -> None:
    parsed = Parsed(data)
    assert (parsed.method, parsed.version, parsed.url) == (b"POST", "1.1", head.rpc.path.encode())
    assert parsed.fields == list(head.fields.items())
    assert parsed.body == data[len(data) - head.size :]
    assert parsed.ends == 1
    assert parsed.keep_alive == head.keep_alive
    assert not parsed.upgrade


USUAL = {
    "plain": FIELDS,
    "binary": (FIELDS[0], "content-type: application/proto", FIELDS[2]),
    "names in capitals": ("Host: a", "Content-Type: application/json", "CONTENT-LENGTH: 2"),
    "version": (*FIELDS, "connect-protocol-version: 1"),
    "timeout": (*FIELDS, "connect-timeout-ms: 5000"),
    "gzip": (*FIELDS, "accept-encoding: gzip, br"),
    "keep-alive": (*FIELDS, "connection: Keep-Alive"),
    "close": (*FIELDS, "connection: close"),
    "a key": (*FIELDS, "authorization: Bearer abc"),
    "a proxy's": (*FIELDS, "x-forwarded-for: 203.0.113.5, 10.0.0.1", 'forwarded: for="[::1]"'),
    "spaces within": (*FIELDS, "user-agent: a (b; c)  d"),
    "without a host": FIELDS[1:],
}


@pytest.mark.parametrize("lines", USUAL.values(), ids=USUAL)
def test_usual_requests_are_read_as_the_parser_reads_them(lines: tuple[str, ...]) -> None:
    data = request(*lines)

    head = read(data)

    assert head is not None
    assert_the_parser_agrees(data, head)


UNUSUAL = {
    "nothing": b"",
    "no end": request(*FIELDS)[:-4],
    "a body that is not all there": request(*FIELDS, body=b"{"),
    "a second request": request(*FIELDS) + b"P",
    "GET": request(*FIELDS, first=f"GET {PATH} HTTP/1.1"),
    "HTTP/1.0": request(*FIELDS, first=f"POST {PATH} HTTP/1.0"),
    "a query": request(*FIELDS, first=f"POST {PATH}?a=b HTTP/1.1"),
    "a whole URL": request(*FIELDS, first=f"POST http://localhost{PATH} HTTP/1.1"),
    "an escape": request(*FIELDS, first=f"POST {PATH[:-1]}%79 HTTP/1.1"),
    "another path": request(*FIELDS, first="POST /v1/colony/register HTTP/1.1"),
    "a stream": request(*FIELDS, first=f"POST {PATH.replace('Lookup', 'Watch')} HTTP/1.1"),
    "another type": request(FIELDS[0], "content-type: application/grpc", FIELDS[2]),
    "a parameter": request(FIELDS[0], "content-type: application/json; charset=utf-8", FIELDS[2]),
    "no type": request(FIELDS[0], FIELDS[2]),
    "no length": request(*FIELDS[:2], body=b""),
    "two lengths": request(*FIELDS, FIELDS[2]),
    "a signed length": request(*FIELDS[:2], "content-length: +2"),
    "a list of lengths": request(*FIELDS[:2], "content-length: 2, 2"),
    "chunks": request(*FIELDS[:2], "transfer-encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "both": request(*FIELDS, "transfer-encoding: chunked"),
    "a packed body": request(*FIELDS, "content-encoding: gzip"),
    "expect": request(*FIELDS, "expect: 100-continue"),
    "upgrade": request(*FIELDS, "connection: upgrade", "upgrade: websocket"),
    "another connection": request(*FIELDS, "connection: keep-alive, te"),
    "a proxy's connection": request(*FIELDS, "proxy-connection: close"),
    "a later version": request(*FIELDS, "connect-protocol-version: 2"),
    "no time": request(*FIELDS, "connect-timeout-ms: 0"),
    "a strange time": request(*FIELDS, "connect-timeout-ms: 1_0"),
    "a long time": request(*FIELDS, "connect-timeout-ms: 10000000000"),
    "a field twice": request(*FIELDS, "a: b", "A: b"),
    "a folded field": request(*FIELDS, "a: b", " c"),
    "an empty field": request(*FIELDS, "a: "),
    "no space": request(*FIELDS, "a:b"),
    "two spaces": request(*FIELDS, "a:  b"),
    "a space at the end": request(*FIELDS, "a: b "),
    "a space in a name": request(*FIELDS, "a : b"),
    "a tab": request(*FIELDS, "a: b\tc"),
    "beyond ASCII": request(*FIELDS, "a: \xe9"),
    "a bare line feed": request(*FIELDS, "a: b\nc: d"),
    "a bare carriage return": request(*FIELDS, "a: b\rc: d"),
    "a zero": request(*FIELDS, "a: b\0"),
    "an empty line first": b"\r\n" + request(*FIELDS),
    "a long head": request(*FIELDS, "a: " + "b" * 4096),
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_whatever_is_unusual_is_left_alone(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize("bounds", [{"request_bytes": 1}, {"header_bytes": 100}], ids=shown)
def test_what_may_be_too_large_is_left_alone(bounds: dict[str, int]) -> None:
    assert read(request(*FIELDS)) is not None
    assert read(request(*FIELDS), **bounds) is None


def mostly(usual: str, *others: str) -> st.SearchStrategy[str]:
    return st.sampled_from([usual] * 3 * len(others) + list(others))


_TEXT = st.text(st.characters(max_codepoint=0xFF), max_size=6)
_NAMES = st.sampled_from(["a", "connection", "content-length", "expect", "te", "upgrade"])
_VALUES = st.sampled_from(["", "2", "02", "close", "keep-alive", "Close", "chunked", "identity"])
_LINES = st.tuples(
    _NAMES | st.from_regex(r"[a-z-]{1,3}", fullmatch=True) | _TEXT,
    mostly(": ", ":", " :", ":\t", ":  "),
    _VALUES | st.from_regex(r"[ -~]{1,5}", fullmatch=True) | _TEXT,
    mostly("\r\n", "\n", "\r", " \r\n"),
)


@given(st.lists(_LINES.map("".join), max_size=3), mostly("{}", "", "{", "{}}"))
@examples(300)
def test_no_request_is_read_in_another_way_than_by_the_parser(lines: list[str], body: str) -> None:
    """Some of these are usual, some have no meaning, and what is read of any must be beyond doubt."""
    data = request(*FIELDS, body=b"")[:-2] + f"{''.join(lines)}\r\n{body}".encode("latin-1")

    head = read(data)

    if head is not None:
        assert_the_parser_agrees(data, head)


def test_heads_are_remembered_by_their_bytes_alone() -> None:
    short_cut = make_short_cut()

    first = short_cut.read(request(*FIELDS))

    assert first is not None
    assert short_cut.read(request(*FIELDS, body=b"[]")) is first
    assert short_cut.read(request(*FIELDS, "a: b")) is not first
