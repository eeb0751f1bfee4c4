"""The page of the programs: every command, its options, and the exit codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from discovery.cli import coral, ctl, server
from tools.reference import markdown
from tools.reference.commands import Command, Option, commands_of
from tools.reference.markdown import anchor, code, table

_INTRODUCTION = """\
What `--help` says of each command. Variables stand in for options that are not given. Errors are one line on stderr."""

_PROGRAMS = (("coral-discovery", server.app), ("coral", coral.app), ("coral-discoveryctl", ctl.app))

# Every program has these, and they are about the program itself.
_COMMON = {"version", "install_completion", "show_completion", "help"}


def page() -> str:
    """Return the page."""
    programs = (_program(name, commands_of(app, name)) for name, app in _PROGRAMS)
    return markdown.page(
        "Command reference", _INTRODUCTION, *(part for parts in programs for part in parts)
    )


def _program(name: str, commands: Sequence[Command]) -> Iterator[str]:
    yield f"## {name}"
    if len(commands) > 1:
        rows = ((f"[`{each.name}`]({anchor(each.name)})", _first(each.text)) for each in commands)
        yield table(("command", "what it does"), rows)
    yield table(("exit code", "when"), commands[0].exit_codes)
    for command in commands:
        if len(commands) > 1:
            yield f"### {command.name}"
        yield from _command(command)


def _command(command: Command) -> Iterator[str]:
    yield f"```text\n{command.usage}\n```"
    yield command.text
    yield table(("argument", "what it is"), ((code(a.said), a.text) for a in command.arguments))
    own = [option for option in command.options if option.name not in _COMMON]
    yield table(("option", "default", "what it does, and its variable"), map(_row, own))


def _row(option: Option) -> Sequence[str]:
    default = "required" if option.required else option.default
    text = "<br>".join(filter(None, (option.text, code(option.variable))))
    return code(option.said), default, text


def _first(text: str) -> str:
    return text.partition("\n\n")[0]
