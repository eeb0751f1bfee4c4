"""What happened: `events` and `explain`."""

from __future__ import annotations

import enum
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.cli.ctl.options import (
    CODES,
    Mesh,
    Output,
    to_admin,
)
from discovery.cli.ctl.working import follow, show
from discovery.ctl.access import Access

if TYPE_CHECKING:
    from discovery.ctl.output import Printer


class _Kind(enum.StrEnum):
    """What happened, as the admin API has it."""

    REGISTERED = enum.auto()
    CHANGED = enum.auto()
    GONE = enum.auto()
    EXPIRED = enum.auto()
    CONFLICT = enum.auto()
    REFUSED = enum.auto()
    EVICTED = enum.auto()


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (events, explain):
        app.command(epilog=CODES)(command)


@to_admin()
def events(
    reach: Access,
    mesh: Annotated[
        str, typer.Option("--mesh", metavar="PREFIX", help="Only meshes that begin so.")
    ] = "",
    kind: Annotated[
        list[_Kind] | None, typer.Option("--kind", help="Only this kind; repeatable.")
    ] = None,
    output: Output = "table",
) -> None:
    """Follow what happens from now on.

    There is a line for each event, until Ctrl-C. These are the changes on all replicas, and what this one refused.
    """

    async def work() -> None:
        from discovery._gen.coral.discovery.admin.v1 import EventKind
        from discovery.ctl.lines import event_line
        from discovery.ctl.output import Printer
        from discovery.ctl.records import of_event

        kinds = [EventKind[each.name] for each in kind or ()]
        printer = Printer(output)
        async with reach.admin_client() as client, aclosing(client.events(mesh, kinds)) as replies:
            async for reply in replies:
                row = {**of_event(reply.event), "missed": reply.missed}
                printer.item(row, event_line(reply.event, missed=reply.missed))

    follow(work())


@to_admin(live=True)
def explain(
    reach: Access,
    mesh: Mesh,
    agent: Annotated[
        str, typer.Option("--agent", metavar="AGENT", help="One of its agents, not the colony.")
    ] = "",
    output: Output = "table",
    every: float | None = None,
) -> None:
    """Say why a colony or an agent is not found.

    First in one sentence, then by what happened to it lately. A replica knows what happened since it started;
    what others refused, only they know. The exit code is 0 whatever
    the verdict: it is `state` in JSON.
    """

    async def render(printer: Printer) -> None:
        from discovery.ctl.story import print_story

        async with reach.admin_client() as client:
            await print_story(client, mesh, agent, printer)

    show(render, output, every=every)
