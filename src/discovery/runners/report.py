"""What a command tells: text for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Protocol, TextIO

from discovery.supervisor import Supervisor

# A colony is registered, an agent connected.
_READY = frozenset({"registered", "connected"})


class Report(Protocol):
    """Is told what happens. `event` names it for programs, `text` says it to people, `data` has it in parts."""

    def say(self, event: str, text: str, **data: object) -> None:
        """Tell what the command is for: it goes to stdout."""
        ...

    def warn(self, event: str, text: str, **data: object) -> None:
        """Tell what is wrong, while the command goes on."""
        ...


class TextReport:
    """Lines of text; warnings on stderr."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        """Say what there is to say on `out`: stderr, if stdout is for something else."""
        self._out = out

    def say(self, event: str, text: str, **data: object) -> None:
        """See Report. `text` is ours, and may have several lines."""
        del event, data
        _print("\n".join(map(_plain, text.split("\n"))), self._out)

    def warn(self, event: str, text: str, **data: object) -> None:
        """See Report. `text` may be a server's."""
        del event, data
        _print(f"coral: {_plain(text)}", sys.stderr)


class JsonReport:
    """One JSON object a line, all on stdout; what `warn` tells has `"level": "warning"`."""

    def say(self, event: str, text: str, **data: object) -> None:
        """See Report."""
        del text
        self._write({"event": event, "level": "info", **data})

    def warn(self, event: str, text: str, **data: object) -> None:
        """See Report."""
        self._write({"event": event, "level": "warning", "message": text, **data})

    def _write(self, line: dict[str, object]) -> None:
        _print(json.dumps(line, default=str), sys.stdout)


class SupervisedReport:
    """Passes on to another report what is told, and the same to whoever runs this program as a service."""

    def __init__(self, report: Report, supervisor: Supervisor) -> None:
        """Tell both."""
        self._report = report
        self._supervisor = supervisor

    def say(self, event: str, text: str, **data: object) -> None:
        """See Report. What was told last is the status, and some of it says that the command has what it is for."""
        tell = self._supervisor.ready if event in _READY else self._supervisor.status
        tell(text)
        self._report.say(event, text, **data)

    def warn(self, event: str, text: str, **data: object) -> None:
        """See Report."""
        self._supervisor.status(text)
        self._report.warn(event, text, **data)


def _print(text: str, out: TextIO) -> None:
    """Print to whoever still reads: a colony does not end because its output's reader has."""
    with suppress(BrokenPipeError):
        print(text, file=out, flush=True)


def _plain(text: str) -> str:
    """Return `text` without what a terminal would obey, or what would forge a line."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
