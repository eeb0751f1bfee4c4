"""One replica as a whole: `status`, `top` and `drain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from discovery.cli.ctl.options import (
    CODES,
    Every,
    Output,
    seconds,
    to_admin,
)
from discovery.cli.ctl.working import do, show
from discovery.ctl.access import Access

if TYPE_CHECKING:
    from discovery.ctl.output import Printer

_SHORTEST_SAMPLE = 0.01


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (status, top, drain):
        app.command(epilog=CODES)(command)


@to_admin(live=True)
def status(
    reach: Access,
    output: Output = "table",
    every: float | None = None,
) -> None:
    """Show how a replica is.

    That is its version and store, how much is registered, and how its calls were answered.
    """

    async def render(printer: Printer) -> None:
        from discovery.ctl.output import plain
        from discovery.ctl.records import of_stats
        from discovery.ctl.text import duration

        async with reach.admin_client() as client:
            stats = await client.stats()
        row = of_stats(stats)
        if not printer.for_people:
            printer.record(row)
            return
        summary = {name: value for name, value in row.items() if name != "calls"}
        del summary["uptime_seconds"]
        printer.record({**summary, "up_for": duration(stats.uptime_seconds)})
        printer.console.print()
        calls = [{"method": c.method, "status": c.status, "count": c.count} for c in stats.calls]
        columns = [("method", plain), ("status", plain), ("count", plain)]
        printer.rows(calls, columns, "No calls yet.")

    show(render, output, every=every)


@to_admin()
def top(
    reach: Access,
    output: Output = "table",
    every: Every = "1s",
) -> None:
    """Show how busy a replica is, live.

    It goes on until q or Ctrl-C is pressed. Where there is no terminal, and as JSON or YAML, it is shown once.
    """
    pause = max(seconds("--every", every), _SHORTEST_SAMPLE)

    async def render(printer: Printer) -> None:
        import asyncio
        import time

        from discovery.ctl.top import frame

        async with reach.admin_client() as client:
            before, started = await client.stats(), time.monotonic()
            await asyncio.sleep(pause)
            after = await client.stats()
        frame(before, after, time.monotonic() - started, printer)

    show(render, output, every=0 if output == "table" and _on_terminal() else None)


@to_admin()
def drain(
    reach: Access,
    output: Output = "table",
) -> None:
    """Stop a replica cleanly.

    As with SIGTERM it leads its clients away, finishes what is in flight, and exits.
    """

    async def work() -> None:
        from discovery.ctl.output import Printer

        async with reach.admin_client() as client:
            await client.drain()
        Printer(output).say({"draining": True}, f"{reach.admin} drains.")

    do(work())


def _on_terminal() -> bool:
    import sys

    return sys.stdout.isatty()
