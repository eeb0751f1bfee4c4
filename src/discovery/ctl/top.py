"""The view of `top`: how busy a replica is."""

from __future__ import annotations

from rich.text import Text

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.output import Printer, plain
from discovery.ctl.rates import MethodRate, rates
from discovery.ctl.records import of_stats
from discovery.ctl.text import clean, counted, duration

_COLUMNS = [
    ("method", plain),
    ("per_second", plain),
    ("errors_per_second", plain),
    ("total", plain),
]


def frame(
    before: pb.StatsResponse, after: pb.StatsResponse, seconds: float, printer: Printer
) -> None:
    """Print one frame, made of two counts that are `seconds` apart."""
    found = [_row(rate) for rate in rates(before, after, seconds)]
    if not printer.for_people:
        printer.record({**of_stats(after), "calls": found})
        return
    printer.console.print(Text(_summary(after), style="bold"))
    printer.console.print()
    printer.rows(found, _COLUMNS, "No calls yet.")


def _row(rate: MethodRate) -> dict[str, object]:
    return {
        "method": rate.method,
        "per_second": round(rate.per_second, 1),
        "errors_per_second": round(rate.errors_per_second, 1),
        "total": rate.total,
    }


def _summary(stats: pb.StatsResponse) -> str:
    state = "drains" if stats.draining else f"up for {duration(stats.uptime_seconds)}"
    counts = (
        counted(stats.colonies, "colony"),
        counted(stats.agents, "agent"),
        counted(stats.connections, "connection"),
        f"{stats.watches} watch" + ("" if stats.watches == 1 else "es"),
    )
    return clean(f"{stats.version} on {stats.store}, {state}: {', '.join(counts)}")
