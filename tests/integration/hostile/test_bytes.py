"""Frames that are wrong, and bytes that are none."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest
from h2.errors import ErrorCodes

from discovery.client import DiscoveryClient
from tests.integration.hostile.harm import (
    OK,
)
from tests.integration.raw import (
    RawConnection,
    framed,
    raw_connection,
    raw_socket,
    request_headers,
)
from tests.integration.support import PATIENCE, Running


def frame(kind: int, stream_id: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    return (
        len(payload).to_bytes(3, "big")
        + bytes([kind, flags])
        + stream_id.to_bytes(4, "big")
        + payload
    )


async def test_frames_of_unknown_types_are_ignored(bad: RawConnection) -> None:
    """RFC 9113 section 5.5."""
    stream = bad.begin(request_headers())
    await bad.send(frame(0xFA, payload=b"grease") + frame(0xFB, stream, b"grease", flags=0xFF))
    bad.data(stream, framed(b""))
    await bad.send(frame(0x0A, payload=b"\0\x01ax"))
    assert (await bad.answer(stream)).status == OK


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(frame(0x0, 0, b"data"), id="DATA on the connection"),
        pytest.param(frame(0x0, 99, b"data"), id="DATA on an idle stream"),
        pytest.param(frame(0x1, 2, b"\x82"), id="HEADERS on an even stream"),
        pytest.param(frame(0x1, 1, b"\xff" * 20, flags=0x4), id="HEADERS that hpack cannot read"),
        pytest.param(frame(0x3, 99, bytes(4)), id="RST_STREAM on an idle stream"),
        pytest.param(frame(0x4, 0, b"odd"), id="SETTINGS of an odd length"),
        pytest.param(frame(0x5, 1, bytes(8)), id="PUSH_PROMISE from a client"),
        pytest.param(frame(0x8, 0, bytes(4)), id="WINDOW_UPDATE by nothing"),
        pytest.param(frame(0x9, 1, b"\x82"), id="CONTINUATION of nothing"),
    ],
)
async def test_a_broken_frame_ends_the_connection_with_a_goaway(
    bad: RawConnection, broken: bytes
) -> None:
    await bad.send(broken)
    await bad.closed_by_server()
    assert bad.goaways[-1].error_code != ErrorCodes.NO_ERROR


async def test_a_frame_beyond_the_agreed_size_is_refused_before_it_is_there(
    bad: RawConnection,
) -> None:
    """RFC 9113 section 4.2. Until it is, a server that waits for the frame's end keeps up to 16 MiB of it."""
    await bad.send(b"\xff\xff\xff\xfa" + bytes(5) + bytes(20_000))
    await bad.closed_by_server()
    assert bad.goaways[-1].error_code == ErrorCodes.FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", id="nearly HTTP/2"),
        pytest.param(bytes(1000), id="zeros"),
        pytest.param(random.Random(1).randbytes(1000), id="noise"),
    ],
)
async def test_bytes_of_no_protocol_end_the_connection(server: Running, data: bytes) -> None:
    async with raw_socket(server.port) as (reader, writer):
        writer.write(data)
        await read_to_end(reader)


async def test_http_1_is_answered_or_refused(server: Running) -> None:
    async with raw_socket(server.port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await read_to_end(reader)


async def read_to_end(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionResetError):
            while await reader.read(65536):
                pass


async def test_a_client_that_says_nothing_holds_nobody_up(server: Running) -> None:
    async with raw_socket(server.port), raw_socket(server.port) as (_, half_a_preface):
        half_a_preface.write(b"PRI * HT")
        async with DiscoveryClient(server.url, timeout=PATIENCE) as good:
            assert (await good.health()).status == "ok"


async def test_a_client_that_leaves_in_the_middle_of_a_call_is_forgotten(server: Running) -> None:
    async with raw_connection(server.port) as leaver:
        leaver.begin(request_headers("RegisterColony"))
        await leaver.seen()


async def test_a_client_that_does_not_read_its_answers_holds_nobody_up(
    bad: RawConnection, server: Running
) -> None:
    """It grants the server no window, so that no answer may be sent to it."""
    bad.h2.update_settings({4: 0})
    await bad.seen()
    for _ in range(50):
        bad.request("Health", b"")
    await bad.seen()
    async with DiscoveryClient(server.url, timeout=PATIENCE) as good:
        assert (await good.health()).status == "ok"
