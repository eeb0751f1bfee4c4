"""The story of a name: a verdict, and what happened to it lately."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.text import Text

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.admin import AdminClient
from discovery.ctl.explain import Explanation, alike, explain
from discovery.ctl.lines import event_line
from discovery.ctl.output import Printer
from discovery.ctl.records import Fields, of_event, of_record
from discovery.ctl.text import clean, rfc3339

_SAME_BEGINNING = 3
_STYLES = {"registered": "bold green", "late": "bold yellow"}


async def print_story(client: AdminClient, mesh_id: str, agent_id: str, printer: Printer) -> None:
    """Ask for what is known of a name, and print it."""
    found = await client.inspect(mesh_id, agent_id)
    name = f"agent {agent_id!r} of mesh {mesh_id!r}" if agent_id else f"colony {mesh_id!r}"
    told = explain(name, found, datetime.now(UTC))
    similar = await _similar(client, mesh_id) if told.state == "never_seen" else []
    if printer.for_people:
        _print(told, similar, found, printer)
    else:
        printer.record(_fields(mesh_id, agent_id, told, similar, found))


async def _similar(client: AdminClient, mesh_id: str) -> Sequence[str]:
    """Return registered meshes that were perhaps meant, of the first page of those that begin alike."""
    page = await client.page(
        pb.ListRegistrationsRequest(mesh_prefix=mesh_id[:_SAME_BEGINNING], page_size=0)
    )
    return alike(mesh_id, [record.mesh_id for record in page.records])


def _print(
    told: Explanation, similar: Sequence[str], found: pb.InspectResponse, printer: Printer
) -> None:
    print_line = printer.console.print
    verdict = f"{told.verdict[:1].upper()}{told.verdict[1:]}."
    print_line(Text(clean(verdict), style=_STYLES.get(told.state, "bold red")))
    if similar:
        print_line(Text(clean(f"Did you mean {' or '.join(similar)}?")))
    if told.hint:
        print_line(Text(told.hint))
    if found.events:
        print_line()
    for event in found.events:
        print_line(event_line(event), soft_wrap=True)


def _fields(
    mesh_id: str,
    agent_id: str,
    told: Explanation,
    similar: Sequence[str],
    found: pb.InspectResponse,
) -> Fields:
    return {
        "mesh_id": mesh_id,
        "agent_id": agent_id or None,
        "state": told.state,
        "verdict": told.verdict,
        "hint": told.hint or None,
        "similar": list(similar),
        "record": of_record(found.record) if found.is_set("record") else None,
        "reserved_for": found.reserved_for or None,
        "reserved_until": rfc3339(found.reserved_until) if found.reserved_for else None,
        "events_since": rfc3339(found.events_since),
        "events": [of_event(event) for event in found.events],
    }
