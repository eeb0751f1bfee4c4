"""The command lines, as typer has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import typer

_NOTES = re.compile(r"\s*\[((?:env var|default|required)[^\]]*)\]")
_CODES = re.compile(r"Exit codes?:? (\d.*)\.$", re.DOTALL)
_NEXT_CODE = re.compile(r",\s+(?=\d)")
_ARGUMENT_TYPE = re.compile(r" <\w+>$")
# Not every release of typer says of choices that they are a list.
_LIST = re.compile(r"<list\[(.*)\]>")


@dataclass(frozen=True, slots=True)
class Option:
    """An option, or an argument, as `--help` has it; `name` is that of its parameter."""

    name: str
    said: str
    """How it is given, such as `--port PORT`."""
    variable: str
    default: str
    required: bool
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command that can be run: its words, such as `coral colony start`, and what it takes."""

    name: str
    text: str
    arguments: Sequence[Option]
    options: Sequence[Option]
    exit_codes: Sequence[Sequence[str]]
    """Each with what it stands for."""

    @property
    def usage(self) -> str:
        """The line that says how to call it."""
        return " ".join((self.name, "[OPTIONS]", *(argument.said for argument in self.arguments)))


def commands_of(app: typer.Typer, name: str) -> Sequence[Command]:
    """Return each command of a program, in the order of its help."""
    return list(_commands(typer.main.get_command(app), name))


def _commands(command: Any, name: str) -> Iterator[Command]:  # noqa: ANN401 - typer has no type for it
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield _command(command, name)
        return
    for word, subcommand in subcommands.items():
        yield from _commands(subcommand, f"{name} {word}")


def _command(command: Any, name: str) -> Command:  # noqa: ANN401
    context = typer.Context(command, info_name=name)
    kinds: dict[str, list[Option]] = {"argument": [], "option": []}
    for parameter in command.params:
        kinds[parameter.param_type_name].append(_option(parameter, context))
    text = "\n\n".join(filter(None, (command.help, command.epilog)))
    return Command(
        name=name,
        text=_CODES.sub("", text).strip(),
        arguments=kinds["argument"],
        options=kinds["option"],
        exit_codes=_exit_codes(text),
    )


def _option(parameter: Any, context: typer.Context) -> Option:  # noqa: ANN401
    said, help_text = parameter.get_help_record(context)
    notes = [note for found in _NOTES.findall(help_text) for note in found.split("; ")]
    told = dict(note.split(": ", 1) for note in notes if ": " in note)
    return Option(
        name=parameter.name,
        said=_LIST.sub(r"<\1>", _ARGUMENT_TYPE.sub("", said)),
        variable=told.get("env var", ""),
        default=told.get("default", ""),
        required="required" in notes,
        text=_NOTES.sub("", help_text).strip(),
    )


def _exit_codes(text: str) -> Sequence[Sequence[str]]:
    found = _CODES.search(text)
    codes = _NEXT_CODE.split(found[1]) if found else []
    return [" ".join(each.split()).split(" ", 1) for each in codes]
