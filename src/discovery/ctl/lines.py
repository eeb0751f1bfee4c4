"""Things that come one after another, each on a line for people."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.text import Text

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.records import kind_name
from discovery.ctl.text import clean, short_key
from discovery.models import WatchEvent

_STYLES = {
    pb.EventKind.REGISTERED: "green",
    pb.EventKind.GONE: "yellow",
    pb.EventKind.EXPIRED: "yellow",
    pb.EventKind.CONFLICT: "red",
    pb.EventKind.REFUSED: "red",
    pb.EventKind.EVICTED: "yellow",
}
_KIND_WIDTH = len("registered")


def event_line(event: pb.Event, *, missed: int = 0) -> Text:
    """Return what happened on one line, and before it how many events were missed, if there were any."""
    line = Text(f"(missed {missed}) " if missed else "", style="yellow")
    line.append(f"{_second(event.at)} ", style="dim")
    kind = kind_name(event.kind).ljust(_KIND_WIDTH)
    line.append(kind, style=_STYLES.get(event.kind, ""))
    name = "/".join(filter(None, (event.mesh_id, event.agent_id)))
    return line.append(clean(f" {name or '-'}{_about(event)}"), style="default")


def state_line(state: WatchEvent) -> Text:
    """Return a colony's state on one line."""
    line = Text(f"{_second(datetime.now(UTC))} ", style="dim")
    if state.lease is None:
        return line.append("absent", style="yellow")
    said = state.lease.registration
    line.append("registered", style="green")
    endpoints = ", ".join(said.endpoints) or "no endpoints"
    return line.append(clean(f" {short_key(said.pubkey)} {endpoints}"), style="default")


def _about(event: pb.Event) -> str:
    parts = (
        ("key", short_key(event.pubkey)),
        ("api key", event.key_name),
        ("from", event.address),
        ("because of", event.reason),
    )
    said = "".join(f" {label} {value}" for label, value in parts if value)
    return f"{said}: {event.message}" if event.message else said


def _second(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
