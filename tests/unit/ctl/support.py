"""Messages of the admin API, and a place to print to."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.output import Format, Printer
from tests.support import KEY, MESH

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOSTILE = "\x1b]0;owned\x07\x1b[31m[bold red]x[/]\u202e\n"


def before(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def event(kind: str, seconds_ago: float = 0, **fields: Any) -> pb.Event:
    given = {"mesh_id": MESH, **fields}
    return pb.Event(at=before(seconds_ago), kind=pb.EventKind[kind.upper()], **given)


def record(**fields: Any) -> pb.Record:
    lease: dict[str, Any] = {
        "mesh_id": MESH,
        "pubkey": KEY,
        "endpoints": ["203.0.113.5:41820"],
        "granted_at": before(3600),
        "last_seen": before(30),
        "expires_at": before(-270),
        "revision": 7,
    }
    return pb.Record(**{**lease, **fields})


def inspected(*events: pb.Event, **fields: Any) -> pb.InspectResponse:
    return pb.InspectResponse(events=list(events), events_since=before(7200), **fields)


class Paper(io.StringIO):
    """Where a test prints to; a terminal, if it shall be one."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def printer(output: Format, *, terminal: bool = False, width: int = 200) -> Printer:
    return Printer(
        output,
        Console(
            file=Paper(terminal),
            width=width,
            force_terminal=terminal,
            highlight=False,
            markup=False,
            emoji=False,
        ),
    )


def printed(made: Printer) -> str:
    file = made.console.file
    assert isinstance(file, Paper)
    return file.getvalue()
