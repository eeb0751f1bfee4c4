"""What a command tells, to people and to programs, whatever a server has said."""

from __future__ import annotations

import json

import pytest

from discovery.runners.report import JsonReport, TextReport

FORGED = "no\nConnected successfully\x1b[31m"


def test_a_server_can_neither_forge_a_line_nor_rule_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    TextReport().warn("waiting", FORGED)
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        said.err
        == "coral: no\N{REPLACEMENT CHARACTER}Connected successfully\N{REPLACEMENT CHARACTER}[31m\n"
    )


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = JsonReport()
    report.say("found", "Found colony", endpoints=("a:1",))
    report.warn("waiting", FORGED)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said == [
        {"event": "found", "level": "info", "endpoints": ["a:1"]},
        {"event": "waiting", "level": "warning", "message": FORGED},
    ]


def test_a_reader_who_has_gone_is_no_error() -> None:
    class Closed:
        def write(self, _text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    TextReport(Closed()).say("started", "Colony started")  # type: ignore[arg-type]
