from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from rich.text import Text

from discovery.ctl.lines import event_line
from discovery.ctl.output import Format, first, key, make_console, moment, plain
from discovery.ctl.records import of_event, of_record
from discovery.ctl.text import ago, clean, counted, duration, on_one_line, rfc3339
from tests.support import KEY
from tests.unit.ctl.support import HOSTILE, NOW, before, event, printed, printer, record

COLUMNS = [("mesh_id", plain), ("pubkey", key), ("metadata", plain)]


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_that_others_wrote_reaches_the_terminal_as_a_command(terminal: bool) -> None:
    row = {"mesh_id": HOSTILE, "pubkey": HOSTILE, "metadata": {HOSTILE: HOSTILE}}
    made = printer("table", terminal=False)
    made.rows([row], COLUMNS, "none")
    made.record(row)
    made.item(row, event_line(event("refused", message=HOSTILE, address=HOSTILE)))
    made.say(row, HOSTILE)
    made.console.no_color = not terminal
    assert is_harmless(printed(made))
    assert "[bold red]x[/]" in printed(made)


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_nothing_that_others_wrote_is_raw_in_what_programs_read(output: Format) -> None:
    made = printer(output)
    made.record({"metadata": {"a": HOSTILE}})
    made.item({"message": HOSTILE}, Text(""))
    assert is_harmless(printed(made))


def test_a_list_is_an_array_for_jq_also_when_it_is_empty() -> None:
    made = printer("json")
    made.rows([of_record(record())], COLUMNS, "none")
    (row,) = json.loads(printed(made))
    assert row["pubkey"] == KEY
    assert row["expires_at"] == "2026-11-24T12:04:30Z"
    assert row["key_name"] is None
    empty = printer("json")
    empty.rows([], COLUMNS, "none")
    assert json.loads(printed(empty)) == []


def test_a_stream_is_one_object_a_line() -> None:
    made = printer("json")
    for message in ("a\nb", "c"):
        made.item(of_event(event("refused", message=message)), Text(""))
    lines = printed(made).splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["a\nb", "c"]


def test_a_stream_of_yaml_is_a_document_each() -> None:
    made = printer("yaml")
    made.item({"a": 1}, Text(""))
    made.item({"a": 2}, Text(""))
    assert list(yaml.safe_load_all(printed(made))) == [{"a": 1}, {"a": 2}]


def test_a_table_fits_the_terminal_and_shortens_keys() -> None:
    made = printer("table", width=40)
    rows = [{"mesh_id": "m" * 100, "pubkey": KEY, "metadata": {"a": "b"}}]
    made.rows(rows, COLUMNS, "none")
    lines = printed(made).splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 40 for line in lines)
    assert KEY not in printed(made)


@pytest.mark.parametrize(
    "endpoints,shown", [([], "-"), (["a:1"], "a:1"), (["a:1", "b:2", "c:3"], "a:1 (+2)")]
)
def test_of_many_endpoints_a_table_shows_the_first(endpoints: list[str], shown: str) -> None:
    assert first(endpoints) == shown


def test_one_thing_is_shown_whole() -> None:
    made = printer("table", width=80)
    made.record({"pubkey": KEY, "endpoints": ["a:1", "b:2"], "metadata": {}, "draining": False})
    shown = printed(made)
    assert KEY in shown
    assert [line.split()[-1] for line in shown.splitlines()[1:]] == ["a:1", "b:2", "-", "no"]


def test_an_empty_table_says_so() -> None:
    made = printer("table")
    made.rows([], COLUMNS, "No colonies are registered.")
    assert printed(made) == "No colonies are registered.\n"


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(terminal: bool) -> str:
        made = printer("table", terminal=terminal)
        made.console.print(event_line(event("refused")))
        return printed(made)

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[31m" in shown(terminal=True)
    assert "\x1b" not in shown(terminal=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in shown(terminal=True)


def test_where_there_is_no_terminal_nothing_is_cut() -> None:
    assert make_console().width > 1000


def test_a_gap_in_the_events_is_said() -> None:
    assert event_line(event("gone"), missed=3).plain.startswith("(missed 3) ")
    assert event_line(event("gone")).plain.startswith("2026-11-24T12:00:00Z gone ")


@pytest.mark.parametrize(
    "seconds,text",
    [(0, "0s"), (59.6, "1m0s"), (61, "1m1s"), (3600, "1h0m"), (90061, "1d1h"), (-5, "0s")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_moments_are_told_from_now() -> None:
    assert ago(before(5), NOW) == "5s ago"
    assert ago(before(-5), NOW) == "in 5s"
    assert moment(None) == "-"
    assert moment(rfc3339(datetime.now(UTC) - timedelta(hours=3))) == "3h ago"
    assert moment(rfc3339(datetime.now(UTC) + timedelta(hours=3, seconds=30))) == "in 3h0m"


def test_words_for_numbers() -> None:
    assert counted(1, "colony") == "1 colony"
    assert counted(2, "colony") == "2 colonies"
    assert counted(0, "agent") == "0 agents"


def test_cleaning_leaves_what_people_write() -> None:
    assert clean("Zürich 東京 100%") == "Zürich 東京 100%"
    assert clean("a\x1bb\x9bc\u202e") == r"a\x1bb\x9bc\u202e"
    assert on_one_line(" a\n\tb ") == "a b"
