"""`python -m benchmarks`: run every server side by side, each on one core, and compare."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import report
from benchmarks.builds import HERE, BrokenError, Scratch, SkipError, tool
from benchmarks.machine import machine
from benchmarks.picture import picture
from benchmarks.results import Results
from benchmarks.runner import Plan, measure, running
from benchmarks.servers import OURS, servers
from benchmarks.workloads import WORKLOADS

SECONDS, QUICK_SECONDS = 4.0, 1.0
WARM_UP, QUICK_WARM_UP = 2.0, 0.5
ROUNDS, QUICK_ROUNDS = 5, 1
EXIT_TERMINATED = 128 + signal.SIGTERM
WIDTH = 120
"""Of the tables, in a file or a pipe."""

README = HERE / "README.md"
PICTURE = HERE / "results.svg"


class Named(Protocol):
    """Has a name that patterns go by."""

    @property
    def name(self) -> str:
        """The name."""
        ...


T = TypeVar("T", bound=Named)


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="One short round: does it work?")] = False,
    only: Annotated[
        list[str], typer.Option(metavar="WORKLOAD", help="Such as lookup/grpc or '*/json*'.")
    ] = ["*"],  # noqa: B006 - typer's way; nobody changes it
    peers: Annotated[
        list[str], typer.Option(metavar="SERVER", help="Beside ours; such as grpcio or 'coral-*'.")
    ] = ["*"],  # noqa: B006
    rounds: Annotated[int | None, typer.Option(min=1, help="Of each server.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every sample there.")
    ] = None,
    readme: Annotated[
        bool, typer.Option("--readme", help="Put the results into benchmarks/README.md.")
    ] = False,
) -> None:
    """Run our server and its peers side by side, each on one core, and compare them.

    Options that name workloads and servers are patterns, and may be repeated.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # and so end every server
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    try:
        results = _run(_plan(quick, only, peers, rounds), console)
    except (SkipError, BrokenError) as error:
        console.print(f"benchmarks: {error}", style="red", highlight=False)
        raise typer.Exit(1) from error
    report.show(results, console)
    if json_file is not None:
        report.write_json(results, json_file)
    if readme:
        _publish(results)


def _plan(quick: bool, only: list[str], peers: list[str], rounds: int | None) -> Plan:  # noqa: FBT001
    return Plan(
        servers=_chosen(servers(), [OURS.name, *peers], "server"),
        workloads=_chosen(WORKLOADS, only, "workload"),
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        seconds=QUICK_SECONDS if quick else SECONDS,
        warm_up=QUICK_WARM_UP if quick else WARM_UP,
    )


def _chosen(known: Sequence[T], patterns: Sequence[str], what: str) -> Sequence[T]:
    names = [one.name for one in known]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise typer.BadParameter(f"no {what} {pattern!r}; there are {', '.join(names)}")
    return [one for one in known if any(fnmatch(one.name, pattern) for pattern in patterns)]


def _run(plan: Plan, console: Console) -> Results:
    for program in ("taskset", "h2load"):
        tool(program)
    results = Results(machine(), plan.seconds, plan.rounds)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=plan.steps())

        def told(what: str) -> None:
            progress.update(task, description=what)

        def stepped(what: str) -> None:
            progress.update(task, description=what, advance=1)

        with (
            Scratch.opened() as scratch,
            running(plan, scratch, results, told) as bench,
        ):
            measure(plan, bench, results, stepped)
    return results


def _publish(results: Results) -> None:
    README.write_text(report.into_readme(README.read_text("utf-8"), results), "utf-8")
    PICTURE.write_text(picture(results), "utf-8")


if __name__ == "__main__":
    typer.run(main)
