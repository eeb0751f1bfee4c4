"""Headers that are wrong, missing or too many."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from tests.integration.hostile.harm import (
    OK,
    ask,
)
from tests.integration.raw import (
    Header,
    RawConnection,
    request_headers,
)


async def test_metadata_of_17_kib_is_no_harm(bad: RawConnection) -> None:
    assert (await ask(bad, b"", ("x-large", "m" * 17 * 1024))).status == OK


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(("x-trace-bin", "a"), id="half a byte of base64"),
        pytest.param(("x-trace-bin", "!"), id="no base64"),
        pytest.param(("grpc-timeout", ""), id="empty timeout"),
        pytest.param(("grpc-timeout", "soon"), id="timeout without number"),
        pytest.param(("grpc-timeout", "1"), id="timeout without unit"),
        pytest.param(("grpc-timeout", "-1S"), id="timeout below zero"),
        pytest.param(("grpc-timeout", "9" * 400 + "H"), id="timeout beyond any number"),
    ],
)
async def test_a_header_that_nobody_can_read_is_answered(
    bad: RawConnection, header: Header
) -> None:
    answer = await ask(bad, b"", header)
    assert answer.headers[":status"]
    assert (await ask(bad)).status == OK


@pytest.mark.parametrize(
    "name, value, http_status",
    [
        (":method", "GET", "405"),
        ("content-type", "text/plain", "415"),
        ("content-type", None, "415"),
        ("te", None, "400"),
    ],
)
async def test_what_is_no_grpc_request_is_answered_with_an_http_status(
    bad: RawConnection, name: str, value: str | None, http_status: str
) -> None:
    headers = [header for header in request_headers() if header[0] != name]
    if value is not None:
        headers.insert(0, (name, value))
        headers.sort(key=lambda header: str(header[0])[0] != ":")
    stream = bad.begin(headers, end=True)
    await bad.send()
    assert (await bad.answer(stream)).headers[":status"] == http_status
    assert (await ask(bad)).status == OK


@pytest.mark.parametrize("name", [":method", ":path", ":scheme"])
async def test_a_request_without_a_pseudo_header_ends_the_connection(
    bad: RawConnection, name: str
) -> None:
    bad.begin([header for header in request_headers() if header[0] != name], end=True)
    await bad.send()
    await bad.closed_by_server()
    assert bad.goaways[-1].error_code == ErrorCodes.PROTOCOL_ERROR


async def test_a_header_in_capitals_ends_the_connection(bad: RawConnection) -> None:
    bad.begin(request_headers("Health", (b"X-Name", b"value")), end=True)
    await bad.send()
    await bad.closed_by_server()
    assert bad.goaways[-1].error_code == ErrorCodes.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "header",
    [
        pytest.param((b"x-name", b"caf\xe9"), id="Latin-1 value"),
        pytest.param((b"x-name-bin", b"\xff"), id="binary value as it is"),
        pytest.param((b"x-n\xc3\xa4me", b"value"), id="UTF-8 name"),
    ],
)
async def test_a_header_beyond_ascii_is_answered_or_the_connection_ended_with_a_word(
    bad: RawConnection, header: Header
) -> None:
    stream = bad.request("Health", b"", header)
    await bad.send()
    await bad.answer_or_end(stream)


async def test_endless_headers_end_the_connection(bad: RawConnection) -> None:
    bad.begin(request_headers("Health", *[("x-large", "m" * 8000)] * 20), end=True)
    await bad.send()
    await bad.closed_by_server()
    assert bad.goaways
