"""The benchmarks' own logic: what they read, count and compare. Nothing is started or loaded here."""

from __future__ import annotations

import json
import struct
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PingFrame

from benchmarks import raw, report
from benchmarks.builds import BrokenError
from benchmarks.calls import (
    HEARTBEATS_PER_LOOKUP,
    MESHES,
    Coral,
    Etcd,
    WrongAnswerError,
    call_file,
    calls_of,
    preparation,
)
from benchmarks.generators import read_h2load, read_loader
from benchmarks.picture import picture
from benchmarks.results import (
    Latency,
    Load,
    Results,
    Row,
    Sample,
    Target,
    ratio,
    sample_of,
    verdicts,
)
from benchmarks.runner import good
from benchmarks.workloads import TRANSPORTS, WORKLOADS, Kind, Protocol, Workload
from discovery._gen.coral.discovery.v1 import LookupColonyResponse, RegisterColonyResponse
from discovery.models import Registration
from discovery.validation import check_registration

H2LOAD = """\
starting benchmark...
Application protocol: h2c

finished in 2.00s, 2975.00 req/s, 395.89KB/s
requests: 5950 total, 6014 started, 5950 done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout
status codes: {good} 2xx, 0 3xx, 0 4xx, {bad} 5xx
traffic: 791.78KB (810784) total, 24.02KB (24600) headers (space savings 95.65%), 604.30KB ({data}) data
                     min         max         mean         sd        +/- sd
time for request:      858us     91.56ms     20.94ms     16.02ms    79.36%
"""
ANSWER = 104
"""Bytes of the right answer; h2load's has gRPC's prefix of 5 too, but what is compared is rougher than that."""


def h2load(**changes: int) -> str:
    numbers = {"succeeded": 5950, "good": 5950, "bad": 0, "data": 618800} | changes
    return H2LOAD.format(**numbers)


class TestReadingLoadGenerators:
    def test_h2load_says_how_many_calls_in_what_time(self) -> None:
        assert read_h2load(h2load(), ANSWER) == Load(calls=5950, failed=0, seconds=2.0)

    def test_an_http_error_that_h2load_saw_is_a_failure(self) -> None:
        load = read_h2load(h2load(good=5000, bad=950), ANSWER)
        assert (load.calls, load.failed) == (5000, 950)

    def test_grpc_errors_that_h2load_takes_for_success_are_failures(self) -> None:
        load = read_h2load(h2load(data=0), ANSWER)
        assert (load.calls, load.failed) == (0, 5950)

    @pytest.mark.parametrize("shown,seconds", [("980.12ms", 0.98012), ("12us", 12e-6)])
    def test_h2load_may_say_the_time_in_other_units(self, shown: str, seconds: float) -> None:
        output = h2load().replace("2.00s,", f"{shown},")
        assert read_h2load(output, ANSWER).seconds == pytest.approx(seconds)

    def test_output_without_numbers_is_an_error_that_shows_it(self) -> None:
        with pytest.raises(BrokenError, match="could not connect"):
            read_h2load("could not connect", ANSWER)

    def test_the_load_program_says_what_failed_calls_were_told(self) -> None:
        said = {"calls": 7, "failed": 1, "example": "no", "seconds": 0.5, "p50_ms": 1, "p99_ms": 2}
        assert read_loader(json.dumps(said)) == Load(7, 1, 0.5, "no", 1, 2)

    def test_a_run_with_failures_is_no_measurement_and_says_an_example(self) -> None:
        with pytest.raises(BrokenError, match="1 of 10 failed: told no"):
            good(Load(9, 1, 1.0, "told no"))

    def test_a_run_without_calls_is_no_measurement(self) -> None:
        with pytest.raises(BrokenError, match="no call"):
            good(Load(0, 0, 1.0))


def row(*rates: float, cpu_us: float = 10.0) -> Row:
    return Row([Sample(rate, cpu_us) for rate in rates])


class TestNumbers:
    def test_a_sample_is_calls_a_second_and_processor_time_a_call(self) -> None:
        assert sample_of(Load(2000, 0, 4.0, cpu_seconds=3.0)) == Sample(rate=500, cpu_us=1500)

    def test_a_row_is_its_median_round_however_far_the_others_are(self) -> None:
        assert row(100, 1, 110).rate == 100

    def test_the_spread_is_from_the_slowest_to_the_fastest_round(self) -> None:
        assert row(90, 100, 120).spread == pytest.approx(0.3)

    def test_a_ratio_says_how_many_times_faster_and_how_many_times_cheaper(self) -> None:
        found = ratio({"a": row(300, cpu_us=2), "b": row(100, cpu_us=8)}, "a", "b")
        assert found is not None
        assert (found.by_rate, found.by_cpu) == (3, 4)

    @pytest.mark.parametrize("other", [Row(), Row([Sample(1, 1)], error="lost"), None])
    def test_there_is_no_ratio_to_what_was_not_measured(self, other: Row | None) -> None:
        rows = {"a": row(300)} | ({} if other is None else {"b": other})
        assert ratio(rows, "a", "b") is None

    def test_a_target_is_judged_on_each_workload_that_was_run(self) -> None:
        target = Target(("fast", "slow", "not run"), "a", "b", times=2)
        rows = {"fast": {"a": row(20), "b": row(10)}, "slow": {"a": row(19), "b": row(10)}}
        judged = {one.workload: one.met for one in verdicts(rows, [target])}
        assert judged == {"fast": True, "slow": False}


def workload(kind: Kind) -> Workload:
    return Workload(kind, TRANSPORTS[0])


class TestCalls:
    @pytest.mark.parametrize("kind", [Kind.FLEET, Kind.CHANGE, Kind.MIX])
    def test_no_two_calls_under_way_at_once_are_of_one_registration(self, kind: Kind) -> None:
        most = max(transport.concurrency for transport in TRANSPORTS)
        calls = calls_of(workload(kind), Coral())
        meshes = [one.request.mesh_id for one in calls if one.reply is RegisterColonyResponse]  # type: ignore[attr-defined]  # both requests have it
        last: dict[str, int] = {}
        for number, mesh in enumerate(meshes * 2):
            assert number - last.get(mesh, -most - 1) > most
            last[mesh] = number

    def test_each_registration_of_changes_differs_from_the_one_before_it(self) -> None:
        stored: dict[object, bytes] = {}
        for call in [*calls_of(workload(Kind.CHANGE), Coral())] * 2:
            body = call.body(Protocol.GRPC)
            mesh = call.request.mesh_id  # type: ignore[attr-defined]  # a registration has it
            assert stored.get(mesh) != body
            stored[mesh] = body

    def test_the_mix_has_five_heartbeats_to_each_lookup(self) -> None:
        calls = calls_of(workload(Kind.MIX), Coral())
        lookups = [call for call in calls if call.reply is LookupColonyResponse]
        assert len(lookups) == MESHES
        assert len(calls) == MESHES * (HEARTBEATS_PER_LOOKUP + 1)

    @pytest.mark.parametrize("kind", Kind)
    def test_whatever_is_looked_up_was_registered_before(self, kind: Kind) -> None:
        registered = {
            one.request.mesh_id  # type: ignore[attr-defined]  # a registration has it
            for one in preparation(workload(kind), Coral())
        }
        looked_up = {
            one.request.mesh_id  # type: ignore[attr-defined]  # so has a lookup
            for one in calls_of(workload(kind), Coral())
            if one.reply is LookupColonyResponse
        }
        assert looked_up <= registered

    def test_what_is_registered_keeps_the_rules(self) -> None:
        for call in calls_of(workload(Kind.CHANGE), Coral()):
            message: Any = call.request
            registration = Registration(
                mesh_id=message.mesh_id,
                pubkey=message.pubkey,
                endpoints=tuple(message.endpoints),
                metadata=dict(message.metadata),
            )
            assert not list(check_registration(registration))

    def test_a_grpc_body_has_its_length_before_it_and_a_connect_body_is_bare(self) -> None:
        call = Coral().lookup(0)
        bare = call.body(Protocol.PROTO)
        assert call.body(Protocol.GRPC) == struct.pack(">BI", 0, len(bare)) + bare
        assert json.loads(call.body(Protocol.JSON)) == {"meshId": "mesh-000000"}

    def test_a_wrong_answer_is_told_from_a_right_one(self) -> None:
        call = Coral().register(0)
        call.check(Protocol.PROTO, bytes(RegisterColonyResponse(success=True, ttl=300)))
        with pytest.raises(WrongAnswerError, match="success"):
            call.check(Protocol.PROTO, b"")

    def test_etcd_is_asked_with_its_own_field_numbers(self) -> None:
        (grant,) = Etcd().begin()
        assert grant.body(Protocol.PROTO) == bytes.fromhex("0890 1c10 07")
        assert Etcd().lookup(1).body(Protocol.PROTO) == b"\x0a\x0bmesh-000001"
        put = Etcd().register(1).body(Protocol.PROTO)
        assert put.startswith(b"\x0a\x0bmesh-000001\x12")
        assert put.endswith(b"\x18\x07")

    def test_the_load_program_is_given_paths_and_bodies_in_order(self) -> None:
        given = json.loads(call_file([Coral().lookup(0), Coral().register(0)], Protocol.PROTO))
        assert [call["path"].rpartition("/")[2] for call in given] == [
            "LookupColony",
            "RegisterColony",
        ]

    def test_every_workload_has_a_name_of_its_own(self) -> None:
        assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)


@pytest.fixture
def results() -> Results:
    found = Results({"processor": "a <fast> one"}, seconds=1, rounds=3)
    coral = row(100, 110, 120, cpu_us=9)
    coral.latency = Latency(55, 1.5, 2.25)
    found.rows["lookup/grpc"] = {"coral": coral, "grpcio": row(10), "etcd": Row(error="it ended")}
    found.skipped["connect-go"] = "no go here"
    return found


class TestReport:
    def test_servers_stand_from_the_fastest_to_those_without_numbers(
        self, results: Results
    ) -> None:
        assert [line[1] for line in report.lines(results)] == ["coral", "grpcio", "etcd"]

    def test_a_line_says_how_many_times_ours_is_faster(self, results: Results) -> None:
        _, grpcio, _ = report.lines(results)
        assert grpcio[2:7] == ("10", "0%", "10.0", "11.00 x", "1.11 x")

    def test_the_readme_gets_these_results_in_the_place_of_the_last(self, results: Results) -> None:
        old = "before\n<!-- results -->\nold\n<!-- /results -->\nafter\n"
        new = report.into_readme(old, results)
        assert new.startswith("before\n<!-- results -->\n\n| what")
        assert new.endswith("\n<!-- /results -->\nafter\n")
        assert "old" not in new
        assert report.into_readme(new, results) == new

    def test_a_readme_without_a_place_for_results_is_refused(self, results: Results) -> None:
        with pytest.raises(ValueError, match="results"):
            report.into_readme("nothing here", results)

    @pytest.mark.parametrize("said", ["connect-go: no go here", "lookup/grpc, etcd: it ended"])
    def test_whatever_has_no_numbers_is_said_with_its_reason(
        self, results: Results, said: str
    ) -> None:
        assert said in report.markdown(results)

    def test_each_line_of_a_markdown_table_has_as_many_cells(self, results: Results) -> None:
        table = [line for line in report.markdown(results).splitlines() if "coral" in line]
        assert {line.count("|") for line in table if line.startswith("| lookup")} <= {
            len(report.COLUMNS) + 1,
            len(report.TARGET_COLUMNS) + 1,
        }

    def test_the_picture_has_a_bar_for_each_measured_server_to_scale(
        self, results: Results
    ) -> None:
        svg = ET.fromstring(picture(results))
        bars = [bar for bar in svg.iter("{http://www.w3.org/2000/svg}rect") if bar.get("height")]
        widths = [float(bar.get("width", "")) for bar in bars if "%" not in bar.get("width", "")]
        assert len(widths) == 2
        assert widths[0] == pytest.approx(11 * widths[1], rel=0.01)


class FakeSocket:
    """Gives what it was told, a piece at each call."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, _most: int) -> bytes:
        return self._pieces.pop(0)


def wire(*pieces: bytes) -> raw.Wire:
    fake: Any = FakeSocket(*pieces)
    return raw.Wire(fake)


def answer() -> bytes:
    data = DataFrame(1, b"message").serialize()
    return data + HeadersFrame(1, b"", flags=["END_HEADERS", "END_STREAM"]).serialize()


class TestRawConnections:
    def test_a_server_takes_the_opening_for_so_many_whole_calls(self) -> None:
        server = H2Connection(H2Configuration(client_side=False))
        server.initiate_connection()
        events = server.receive_data(raw.opening("/service/Method", [b"one", b"two"]))
        paths = [
            dict(event.headers)[b":path"] for event in events if type(event) is RequestReceived
        ]
        bodies = [event.data for event in events if type(event) is DataReceived]
        assert paths == [b"/service/Method"] * 2
        assert bodies == [b"\0\0\0\0\3one", b"\0\0\0\0\3two"]
        assert sum(type(event) is StreamEnded for event in events) == 2

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_frames_are_found_however_they_are_cut(self, size: int) -> None:
        data = answer()
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        stream = wire(*pieces)
        frames = [frame for _ in pieces for frame in stream.frames()]
        assert [frame.kind for frame in frames] == [raw.DATA, HeadersFrame.type]
        assert frames[0].payload == b"message"

    def test_a_ping_is_answered_with_what_it_held(self) -> None:
        fake: Any = FakeSocket(PingFrame(0, b"12345678").serialize())
        list(raw.Wire(fake).frames())
        assert fake.sent == PingFrame(0, b"12345678", flags=["ACK"]).serialize()

    def test_the_answer_to_a_ping_is_not_answered(self) -> None:
        fake: Any = FakeSocket(PingFrame(0, b"12345678", flags=["ACK"]).serialize())
        list(raw.Wire(fake).frames())
        assert not fake.sent

    @pytest.mark.parametrize("said", [b"", GoAwayFrame(0).serialize()], ids=["closed", "goaway"])
    def test_a_connection_that_ends_is_an_error(self, said: bytes) -> None:
        with pytest.raises(BrokenError):
            list(wire(said).frames())
