"""The results for people: tables on a terminal and in Markdown, and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.results import Ratio, Results, Row, Rows, Verdict, ratio, verdicts
from benchmarks.servers import OURS

COLUMNS = (
    "workload",
    "server",
    "calls/s",
    "spread",
    "CPU µs/call",
    "coral does",
    "by CPU",
    "p50 ms",
    "p99 ms",
)
_TEXT_COLUMNS = 2
"""The first ones; numbers, to the right of them, stand to the right."""

TARGET_COLUMNS = ("target", "workload", "measured", "by CPU", "met")

RESULTS_BEGIN, RESULTS_END = "<!-- results -->", "<!-- /results -->"


def lines(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield a table line for each server of each workload, the fastest first."""
    for workload, rows in results.rows.items():
        ordered = sorted(rows, key=lambda name: -rows[name].rate if rows[name].measured else 0)
        yield from (_line(workload, name, rows) for name in ordered)


def _line(workload: str, name: str, rows: Rows) -> tuple[str, ...]:
    row = rows[name]
    if not row.measured:
        return (workload, name, "failed", *[""] * (len(COLUMNS) - 3))
    times = ratio(rows, OURS.name, name) if name != OURS.name else None
    return (
        workload,
        name,
        f"{row.rate:,.0f}",
        f"{row.spread:.0%}",
        f"{row.cpu_us:.1f}",
        *_times(times),
        *_latency(row),
    )


def _times(times: Ratio | None) -> tuple[str, str]:
    return ("", "") if times is None else (f"{times.by_rate:.2f} x", f"{times.by_cpu:.2f} x")


def _latency(row: Row) -> tuple[str, str]:
    found = row.latency
    return ("", "") if found is None else (f"{found.p50_ms:.2f}", f"{found.p99_ms:.2f}")


def target_line(verdict: Verdict) -> tuple[str, ...]:
    """Return a table line for a target on one workload."""
    target, found = verdict.target, verdict.ratio
    return (
        f"{target.one} at least {target.times:.3g} x {target.other}",
        verdict.workload,
        f"{found.by_rate:.2f} x",
        f"{found.by_cpu:.2f} x",
        "yes" if verdict.met else "no",
    )


def show(results: Results, console: Console) -> None:
    """Print everything."""
    _print(console, COLUMNS, lines(results))
    if judged := verdicts(results.rows):
        _print(console, TARGET_COLUMNS, map(target_line, judged))
    for remark in remarks(results):
        console.print(remark, highlight=False, markup=False)


def remarks(results: Results) -> Iterator[str]:
    """Yield a sentence for everything that has no numbers."""
    for name, reason in results.skipped.items():
        yield f"Left out: {name}: {reason}"
    for workload, rows in results.rows.items():
        for name, row in rows.items():
            if row.error:
                yield f"Failed: {workload}, {name}: {row.error}"


def _print(console: Console, columns: Sequence[str], rows: Iterator[tuple[str, ...]]) -> None:
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < _TEXT_COLUMNS else "right")
    group = ""
    for row in rows:
        if row[0] != group:
            table.add_section()
            group = row[0]
        table.add_row(*row)
    console.print(table)


def markdown(results: Results) -> str:
    """Return the results as they stand in the README."""
    parts = [
        _markdown_table(("what", "value"), iter(results.machine.items())),
        f"Rounds: {results.rounds}, of {results.seconds:g} s each, interleaved; medians.",
        _markdown_table(TARGET_COLUMNS, map(target_line, verdicts(results.rows))),
        _markdown_table(COLUMNS, lines(results)),
        *remarks(results),
    ]
    return "\n\n".join(parts)


def _markdown_table(columns: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    head = [columns, ["---" if n < _TEXT_COLUMNS else "--:" for n in range(len(columns))]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (*head, *rows))


def into_readme(text: str, results: Results) -> str:
    """Return the README's text with these results in the place of the last."""
    before, begin, rest = text.partition(RESULTS_BEGIN)
    _, end, after = rest.partition(RESULTS_END)
    if not (begin and end):
        raise ValueError(f"no {RESULTS_BEGIN} ... {RESULTS_END} in the README")
    return f"{before}{begin}\n\n{markdown(results)}\n\n{end}{after}"


def write_json(results: Results, file: Path) -> None:
    """Write every sample."""
    file.write_text(json.dumps(asdict(results), indent=2) + "\n", encoding="utf-8")
