"""What the log looks like, and that libraries write to the same one."""

from __future__ import annotations

import io
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from discovery.config import LogFormat, LogLevel
from discovery.logs import set_up_logs

pytestmark = pytest.mark.usefixtures("root_logger")

SECRET = "hunter2"
LEVELS: list[LogLevel] = ["debug", "info", "warning", "error"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "log_format, stream, is_json",
    [
        (None, io.StringIO, True),
        (None, Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_a_terminal_gets_console_and_anything_else_json_unless_told_otherwise(
    log_format: LogFormat | None, stream: type[io.StringIO], is_json: bool
) -> None:
    log = set_up_logs("info", log_format, opened := stream())
    log.info("hello", port=8080)

    assert _is_json(opened.getvalue()) == is_json
    assert "hello" in opened.getvalue()


@pytest.mark.parametrize("stream, coloured", [(io.StringIO, False), (Terminal, True)])
def test_only_a_terminal_gets_colours(stream: type[io.StringIO], coloured: bool) -> None:
    log = set_up_logs("info", "console", opened := stream())
    log.info("hello")

    assert ("\x1b[" in opened.getvalue()) == coloured


def test_json_is_one_object_a_line_with_event_level_and_time() -> None:
    before = datetime.now(UTC)
    log = set_up_logs("info", "json", stream := io.StringIO())
    log.info("first\nstill first", port=8080)
    log.warning("second", path="\u2028\x85")

    first, second = _lines(stream)
    assert (first["event"], first["level"], first["port"]) == ("first\nstill first", "info", 8080)
    assert (second["event"], second["level"]) == ("second", "warning")
    assert before <= datetime.fromisoformat(first["timestamp"]) <= datetime.now(UTC)


def test_the_log_goes_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    set_up_logs("info", None).info("hello")

    assert _lines(stream)[0]["event"] == "hello"


@pytest.mark.parametrize("level", LEVELS)
def test_less_than_the_level_is_not_logged(level: LogLevel) -> None:
    log = set_up_logs(level, "json", stream := io.StringIO())
    for name in LEVELS:
        getattr(log, name)("hello")

    assert [line["level"] for line in _lines(stream)] == LEVELS[LEVELS.index(level) :]


def test_libraries_write_to_the_same_log() -> None:
    set_up_logs("info", "json", stream := io.StringIO())
    logging.getLogger("grpclib.server").warning("odd: %s", "request")

    [line] = _lines(stream)
    assert (line["event"], line["level"]) == ("odd: request", "warning")
    assert line["logger"] == "grpclib.server"
    assert line["timestamp"]


def test_libraries_write_to_the_console_too() -> None:
    set_up_logs("info", "console", stream := io.StringIO())
    logging.getLogger("grpclib.server").error("odd")

    assert "odd" in stream.getvalue()
    assert not _is_json(stream.getvalue())


@pytest.mark.parametrize(
    "level, shown",
    [
        ("debug", ["warning", "error"]),
        ("info", ["warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_chatter_of_libraries_is_not_logged(level: LogLevel, shown: list[str]) -> None:
    set_up_logs(level, "json", stream := io.StringIO())
    for name in LEVELS:
        getattr(logging.getLogger("asyncio"), name)("hello")

    assert [line["level"] for line in _lines(stream)] == shown


def test_setting_up_twice_does_not_log_twice() -> None:
    set_up_logs("info", "json", first := io.StringIO())
    set_up_logs("info", "json", second := io.StringIO())
    logging.getLogger("asyncio").warning("hello")

    assert first.getvalue() == ""
    assert len(_lines(second)) == 1


def test_an_exception_of_a_library_is_one_line_of_json() -> None:
    set_up_logs("info", "json", stream := io.StringIO())
    try:
        raise KeyError("boom")  # noqa: TRY301 - an exception needs a traceback
    except KeyError:
        logging.getLogger("asyncio").exception("it failed")

    [line] = _lines(stream)
    assert line["event"] == "it failed"
    assert "KeyError" in json.dumps(line["exception"])


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_values_of_variables(log_format: LogFormat) -> None:
    log = set_up_logs("info", log_format, stream := io.StringIO())

    def fail(token: str) -> None:
        raise KeyError

    try:
        fail(SECRET)
    except KeyError:
        log.exception("ours failed")
        logging.getLogger("asyncio").exception("theirs failed")

    assert "ours failed" in stream.getvalue()
    assert "theirs failed" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_nothing_global_but_the_root_logger_is_touched() -> None:
    set_up_logs("info", "json", io.StringIO())

    assert not structlog.is_configured()


def test_context_is_logged() -> None:
    log = set_up_logs("info", "json", stream := io.StringIO())
    with structlog.contextvars.bound_contextvars(connection=7):
        log.info("inside")
    log.info("outside")

    inside, outside = _lines(stream)
    assert inside["connection"] == 7
    assert "connection" not in outside


def test_what_json_does_not_know_is_logged_somehow() -> None:
    log = set_up_logs("info", "json", stream := io.StringIO())
    log.info("hello", value=b"\xff", kind=object)

    assert len(_lines(stream)) == 1
