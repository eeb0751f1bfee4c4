"""The reference pages say what the code and the protocol say, and the architecture's page knows every layer."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Annotated

import pytest
import typer
from pydantic import BaseModel, Field

from discovery.errors import Code, DiscoveryError
from discovery.settings import Duration
from discovery.transport.schema import descriptors
from tests.docs.markdown import ROOT, tables
from tools import docs
from tools.reference import errors
from tools.reference.commands import commands_of
from tools.reference.markdown import anchor, table
from tools.reference.models import settings_of

OURS = [file for file in descriptors().file if file.package.startswith("coral.")]
NAMES = [
    (file.package, part.name)
    for file in OURS
    for parts in (file.service, file.message_type, file.enum_type)
    for part in parts
]


@pytest.mark.parametrize("name", docs.PAGES)
def test_a_page_is_what_the_generator_writes(name: str) -> None:
    assert (ROOT / docs.FOLDER / name).read_text() == docs.PAGES[name](), (
        "run `python tools/docs.py`"
    )


def test_a_page_that_was_changed_by_hand_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = {"api.md": lambda: "another text", "missing.md": lambda: "a text"}
    monkeypatch.setattr(docs, "PAGES", pages)
    assert docs.check() == 1
    printed = capsys.readouterr().out
    assert "stale: docs/reference/api.md" in printed
    assert "stale: docs/reference/missing.md" in printed


@pytest.fixture(scope="module")
def sections() -> Mapping[str, str]:
    """Return the text below each heading of the protocol's page."""
    text = (ROOT / docs.FOLDER / "api.md").read_text()
    _, *parts = re.split(r"^#{2,4} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("package, name", NAMES)
def test_everything_of_the_protocol_has_a_section_with_words(
    package: str, name: str, sections: Mapping[str, str]
) -> None:
    assert sections[package] is not None
    assert re.search(r"\w{3,}", sections[name].partition("|")[0])


def test_every_call_and_field_is_there_with_its_comment(sections: Mapping[str, str]) -> None:
    for message in (message for file in OURS for message in file.message_type):
        for field in message.field:
            row = rf"^\| `{field.name}` \| {field.number} \| \S.* \| `{field.json_name}` \| \S"
            assert re.search(row, sections[message.name], re.MULTILINE), field.name
    for service in (service for file in OURS for service in file.service):
        for method in service.method:
            assert f"{service.name}/{method.name}`" in sections[method.name]


def test_an_error_without_words_stops_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_MEANINGS", {})
    with pytest.raises(KeyError):
        errors.errors_table()


def test_every_reason_that_is_sent_is_in_the_table() -> None:
    text = errors.errors_table()
    for kind in DiscoveryError.__subclasses__():
        assert (f"`{kind.reason}`" in text) == (kind.reason not in {"", "UNREACHABLE"})
        assert not kind.reason or kind.code is not Code.UNKNOWN


class _Section(BaseModel):
    wait: Annotated[Duration, Field(gt=0)] | None = None


class _Settings(BaseModel):
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    names: tuple[str, ...] = ()
    deep: _Section = _Section()


def test_settings_are_named_as_the_file_has_them_and_typed_in_words() -> None:
    found = {setting.key: setting.type for setting in settings_of(_Settings)}
    assert found == {
        "port": "whole number, 0 at least, 65535 at most",
        "names": "list of text",
        "deep.wait": "duration",
    }


def _program() -> typer.Typer:
    app = typer.Typer()

    @app.command(epilog="Exit codes: 0 if all is well, 2 if it,\nis not.")
    def go(
        where: str,
        _port: Annotated[int, typer.Option("--port", envvar="PORT", help="A | port.")] = 8080,
    ) -> None:
        """Go there."""

    return app


def test_a_command_is_read_with_its_options_and_exit_codes() -> None:
    [command] = commands_of(_program(), "go")
    [port] = [option for option in command.options if option.said.startswith("--port")]
    assert command.text == "Go there."
    assert command.exit_codes == [["0", "if all is well"], ["2", "if it, is not"]]
    assert [argument.name for argument in command.arguments] == ["where"]
    assert (port.variable, port.default, port.text) == ("PORT", "8080", "A | port.")


@pytest.mark.parametrize(
    "rows, expected",
    [([["a|b", "c"]], "| x | y |\n|---|---|\n| a\\|b | c |"), ([], "")],
)
def test_a_table_keeps_its_cells_apart(rows: Sequence[Sequence[str]], expected: str) -> None:
    assert table(("x", "y"), rows) == expected


@pytest.mark.parametrize(
    "heading, fragment",
    [("RegisterColony", "#registercolony"), ("coral colony start", "#coral-colony-start")],
)
def test_a_heading_is_led_to_as_the_site_names_it(heading: str, fragment: str) -> None:
    assert anchor(heading) == fragment


def test_the_layers_of_the_architecture_are_those_that_imports_are_held_to() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [layers] = [each["layers"] for each in contracts["contracts"] if each.get("exhaustive_ignores")]
    held = {name for layer in layers for name in layer.split(" | ")}
    rows = tables("docs/architecture.md", "layer", "what it knows")
    assert {name for row in rows for name in re.findall(r"\w+", row[0])} == held
