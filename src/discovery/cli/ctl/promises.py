"""Whether a server does what it should: `check`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from discovery.cli.ctl.options import (
    CODES,
    Output,
    seconds,
    to_any,
)
from discovery.cli.ctl.working import do
from discovery.ctl.access import Access


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog=CODES)(check)


@to_any
def check(
    reach: Access,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="The public API, as http://localhost:8080.", show_default=False
        ),
    ],
    max_wait: Annotated[
        str,
        typer.Option("--max-wait", metavar="DURATION", help="Wait at most so long for an expiry."),
    ] = "30s",
    mesh_prefix: Annotated[
        str,
        typer.Option("--mesh-prefix", metavar="TEXT", help="How the made-up mesh ids begin."),
    ] = "coral-check-",
    output: Output = "table",
) -> None:
    """Check that a live server keeps its promises.

    It does so from outside, and says pass, fail or skip for each. It registers colonies and agents with made-up
    mesh ids, and removes them again; nobody else's are touched. The API key, if one is asked for, needs the roles
    register and lookup for meshes that begin with --mesh-prefix.
    """
    server = dataclasses.replace(reach, server=url)
    patience = seconds("--max-wait", max_wait)

    async def work() -> None:
        from discovery.ctl.check.promises import PROMISES
        from discovery.ctl.check.report import report
        from discovery.ctl.check.run import check as check_all
        from discovery.ctl.failures import ExitCode
        from discovery.ctl.output import Printer

        results = check_all(server, mesh_prefix, patience)
        if not await report(results, len(PROMISES), Printer(output)):
            raise typer.Exit(ExitCode.FAILED)

    do(work())
