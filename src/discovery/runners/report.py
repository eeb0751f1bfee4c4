"""What a command tells: text for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import sys
from typing import Protocol, TextIO


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
        """See Report."""
        del event, data
        print(text, file=self._out, flush=True)

    def warn(self, event: str, text: str, **data: object) -> None:
        """See Report."""
        del event, data
        print(f"coral: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the same


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
        print(json.dumps(line, default=str), flush=True)  # noqa: T201
