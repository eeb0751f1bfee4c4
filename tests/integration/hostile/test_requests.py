"""Messages that are none, bodies that do not come, and resets."""

from __future__ import annotations

import random

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from discovery.client import DiscoveryClient
from tests.integration.grpcio_client import Schema
from tests.integration.hostile.harm import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    ask,
    open_connections,
)
from tests.integration.raw import (
    RawConnection,
    framed,
    request_headers,
)
from tests.integration.support import PATIENCE, Running

# -- Messages -------------------------------------------------------------------------------------


async def test_random_bytes_as_a_message_are_refused_and_the_connection_lives_on(
    bad: RawConnection,
) -> None:
    answer = await ask(bad, b"\xff" * 100)
    assert (answer.status, answer.reason) == (INTERNAL, "MALFORMED_MESSAGE")
    assert (await ask(bad)).status == OK


async def test_no_bytes_whatsoever_are_a_defect(bad: RawConnection, schema: Schema) -> None:
    """The server answers each with a status that names a fault of the request, or with what it asked for."""
    chance = random.Random(2)
    valid = schema.new(
        "RegisterColonyRequest",
        mesh_id="m",
        pubkey="k" * 44,
        endpoints=["a:1"],
        public_endpoint=schema.new("PublicEndpointInfo", url="u"),
    ).SerializeToString()
    for _ in range(300):
        spoilt = bytearray(valid)
        spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        stream = bad.request("RegisterColony", bytes(spoilt))
        await bad.send()
        answer = await bad.answer(stream)
        assert answer.reason in {"", "MALFORMED_MESSAGE", "INVALID_FIELD", "MESH_ID_TAKEN"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="no message"),
        pytest.param(b"\0\0", id="half a prefix"),
        pytest.param(framed(b"abc", size=1000), id="prefix says more than comes"),
        pytest.param(framed(b"\x0a\x05hello", size=3), id="prefix says less than comes"),
    ],
)
async def test_a_truncated_message_is_refused_and_the_connection_lives_on(
    bad: RawConnection, body: bytes
) -> None:
    stream = bad.begin(request_headers("LookupColony"))
    bad.data(stream, body)
    await bad.send()
    answer = await bad.answer(stream)
    assert (answer.status, answer.reason) == (INTERNAL, "MALFORMED_MESSAGE")
    assert (await ask(bad)).status == OK


async def test_a_message_may_come_in_pieces_and_some_of_them_empty(bad: RawConnection) -> None:
    stream = bad.begin(request_headers())
    for piece in (b"", framed(b"")[:2], b"", framed(b"")[2:]):
        bad.data(stream, piece, end=False)
        await bad.send()
    bad.data(stream, b"")
    await bad.send()
    assert (await bad.answer(stream)).status == OK


async def test_a_compressed_message_is_refused(bad: RawConnection) -> None:
    stream = bad.begin(request_headers("Health", ("grpc-encoding", "gzip")))
    bad.data(stream, framed(b"zzz", compressed=1))
    await bad.send()
    assert (await bad.answer(stream)).status == UNIMPLEMENTED


async def test_a_request_of_1_mib_is_refused_and_the_connection_lives_on(
    bad: RawConnection,
) -> None:
    stream = bad.begin(request_headers("RegisterColony"))
    bad.data(stream, framed(b"x" * 16_000, size=2**20), end=False)
    await bad.send()
    answer = await bad.answer(stream)
    assert (answer.status, answer.reason) == (RESOURCE_EXHAUSTED, "TOO_LARGE")
    assert (await ask(bad)).status == OK


async def test_a_prefix_of_4_gib_is_refused_before_anything_is_kept(bad: RawConnection) -> None:
    stream = bad.begin(request_headers("RegisterColony"))
    bad.data(stream, framed(b"", size=2**32 - 1), end=False)
    await bad.send()
    assert (await bad.answer(stream)).status == RESOURCE_EXHAUSTED


# -- Bodies that do not come ------------------------------------------------------------------------


async def test_a_request_that_does_not_end_is_answered_when_its_message_is_there(
    bad: RawConnection,
) -> None:
    stream = bad.begin(request_headers())
    bad.data(stream, framed(b""), end=False)
    await bad.send()
    assert (await bad.answer(stream)).status == OK


async def test_a_body_that_never_comes_holds_nobody_up(bad: RawConnection, server: Running) -> None:
    for _ in range(50):
        bad.begin(request_headers("RegisterColony"))
    await bad.seen()
    async with DiscoveryClient(server.url, timeout=PATIENCE) as good:
        assert (await good.health()).registered_colonies == 1
    assert (await ask(bad)).status == OK


async def test_a_body_that_does_not_come_in_time_is_answered(bad: RawConnection) -> None:
    stream = bad.begin(request_headers("Health", ("grpc-timeout", "50m")))
    await bad.send()
    assert (await bad.answer(stream)).status == DEADLINE_EXCEEDED


@pytest.mark.parametrize("timeout", ["0n", "1n"])
async def test_a_deadline_that_has_passed_is_answered_so(bad: RawConnection, timeout: str) -> None:
    stream = bad.begin(request_headers("Health", ("grpc-timeout", timeout)))
    await bad.send()
    assert (await bad.answer(stream)).status == DEADLINE_EXCEEDED


# -- Resets -------------------------------------------------------------------------------------------


async def test_a_request_that_is_reset_in_its_middle_is_over(bad: RawConnection) -> None:
    stream = bad.begin(request_headers("RegisterColony"))
    await bad.seen()
    bad.h2.reset_stream(stream, ErrorCodes.CANCEL)
    await bad.seen()
    assert (await ask(bad)).status == OK


async def test_requests_that_are_reset_as_they_come_leave_nothing_behind(
    bad: RawConnection, server: Running
) -> None:
    for _ in range(200):
        bad.h2.reset_stream(bad.begin(request_headers()), ErrorCodes.CANCEL)
        await bad.send()
    await bad.seen()
    assert [len(c.processor.streams) for c in open_connections(server)] == [0, 0]


async def test_what_reset_requests_had_sent_does_not_use_up_the_connections_window(
    bad: RawConnection,
) -> None:
    """Two windows' worth: more than the server would take in if it forgot to give some of it back."""
    before = bad.h2.outbound_flow_control_window
    for _ in range(40):
        stream = bad.begin(request_headers("RegisterColony"))
        for _ in range(4):
            bad.data(stream, b"x" * 16_000, end=False)
        bad.h2.reset_stream(stream, ErrorCodes.CANCEL)
        await bad.seen()
    assert bad.h2.outbound_flow_control_window >= before // 2
    assert (await ask(bad)).status == OK


# -- More calls at once than are allowed -------------------------------------------------------------


async def test_calls_beyond_those_allowed_are_refused_and_the_others_answered(
    bad: RawConnection, server: Running
) -> None:
    """A client that has yet to be told how many it may make begins as many as it likes."""
    streams = [bad.begin(request_headers()) for _ in range(150)]
    await bad.send()
    for stream in streams:
        bad.data(stream, framed(b""))
    await bad.send()
    answers = [await bad.answer(stream) for stream in streams]
    assert [answer.status for answer in answers[:100]] == [OK] * 100
    assert {answer.reset for answer in answers[100:]} == {ErrorCodes.REFUSED_STREAM}
    assert (await ask(bad)).status == OK
    assert [len(c.processor.streams) for c in open_connections(server)] == [0, 0]


async def test_what_refused_calls_had_sent_does_not_use_up_the_connections_window(
    bad: RawConnection,
) -> None:
    await bad.seen()
    before = bad.h2.outbound_flow_control_window
    bad.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
    bad.h2.remote_settings.acknowledge()
    for _ in range(100):
        bad.begin(request_headers())
    for _ in range(100):
        stream = bad.begin(request_headers())
        bad.data(stream, b"x" * 16_000)
        await bad.send()
        assert (await bad.answer(stream)).reset == ErrorCodes.REFUSED_STREAM
    assert bad.h2.outbound_flow_control_window >= before // 2


async def test_a_client_that_does_not_stop_at_what_is_allowed_is_sent_away(
    bad: RawConnection,
) -> None:
    for _ in range(1000):
        bad.begin(request_headers())
    await bad.send()
    await bad.closed_by_server()
    assert bad.goaways[-1].error_code == ErrorCodes.ENHANCE_YOUR_CALM
