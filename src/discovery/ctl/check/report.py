"""What is told of a check."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import nullcontext

from rich.text import Text

from discovery.ctl.check.run import Result
from discovery.ctl.output import Printer
from discovery.ctl.text import clean

_STYLES = {"pass": "green", "fail": "bold red", "skip": "yellow"}


async def report(results: AsyncIterator[Result], total: int, printer: Printer) -> bool:
    """Print the results, for people as they come, and return whether no promise was broken."""
    found: list[Result] = []
    console = printer.console
    live = printer.for_people and console.is_terminal
    with console.status("") if live else nullcontext() as status:
        if status is not None:
            status.update(f"0 of {total} checked")
        async for result in results:
            found.append(result)
            if printer.for_people:
                console.print(_line(result), soft_wrap=True)
                console.file.flush()
            if status is not None:
                status.update(f"{len(found)} of {total} checked")
    if printer.for_people:
        console.print(Text(_summary(found)))
    else:
        printer.rows([dataclasses.asdict(result) for result in found], (), "")
    return all(result.result != "fail" for result in found)


def _line(result: Result) -> Text:
    line = Text(f"{result.result}  ", style=_STYLES[result.result])
    why = f": {result.why}" if result.why else ""
    return line.append(clean(f"{result.promise}{why}"), style="not bold default")


def _summary(found: list[Result]) -> str:
    counts = Counter(result.result for result in found)
    return f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped"
