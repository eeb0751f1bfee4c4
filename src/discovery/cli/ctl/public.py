"""What anybody may ask, through the public API: `lookup` and `watch`."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.cli.ctl.options import (
    CODES,
    Mesh,
    Output,
    to_server,
)
from discovery.cli.ctl.working import follow, show
from discovery.ctl.access import Access

if TYPE_CHECKING:
    from discovery.ctl.output import Printer


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (lookup, watch):
        app.command(epilog=CODES)(command)


@to_server(live=True)
def lookup(
    reach: Access,
    mesh: Mesh,
    agent: Annotated[
        str, typer.Argument(metavar="[AGENT]", help="One of its agents, instead of the colony.")
    ] = "",
    output: Output = "table",
    every: float | None = None,
) -> None:
    """Look a colony or an agent up, as an agent would.

    It asks the public API, not the admin's.
    """

    async def render(printer: Printer) -> None:
        from discovery.ctl.records import of_lease

        async with reach.client() as client:
            found = await (
                client.lookup_agent(mesh, agent) if agent else client.lookup_colony(mesh)
            )
        printer.record(of_lease(found))

    show(render, output, every=every)


@to_server()
def watch(
    reach: Access,
    mesh: Mesh,
    output: Output = "table",
) -> None:
    """Follow a colony, as an agent would.

    There is a line for its state now, and one for each change, until Ctrl-C.
    """

    async def work() -> None:
        from discovery.ctl.lines import state_line
        from discovery.ctl.output import Printer
        from discovery.ctl.records import of_state

        printer = Printer(output)
        async with reach.client() as client, aclosing(client.watch_colony(mesh)) as states:
            async for state in states:
                printer.item(of_state(state), state_line(state))

    follow(work())
