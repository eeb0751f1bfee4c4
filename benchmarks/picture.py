"""The results as a picture: bars of calls a second, in groups by workload, as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from benchmarks.results import Results, Row

COLUMNS = 2
WIDTH = 480
"""Of one column, in it the labels and the numbers; all in pixels."""
LABELS = 110
NUMBERS = 70
MARGIN = 12
BAR = 16
GAP = 4
HEADING = 30

COLOURS = {
    "coral": "#e4572e",
    "coral-general": "#f0997d",
    "coral-redis": "#f6c4b3",
    "grpclib": "#7a8fa6",
    "grpcio": "#3b6ea5",
    "connectrpc": "#6b5b95",
    "connect-go": "#2a9d8f",
    "etcd": "#8d99ae",
}
_OTHER = "#999999"


def picture(results: Results) -> str:
    """Return an SVG drawing. Within a workload, bars are to scale; between workloads they are not."""
    body: list[str] = []
    groups = list(_groups(results))
    height = 0
    for first in range(0, len(groups), COLUMNS):
        row = groups[first : first + COLUMNS]
        for column, (workload, rows) in enumerate(row):
            body += _group(workload, rows, column * (WIDTH + MARGIN), height)
        height += HEADING + max(len(rows) for _, rows in row) * (BAR + GAP) + MARGIN
    width = COLUMNS * (WIDTH + MARGIN)
    style = "text{font:12px sans-serif;fill:#222}.heading{font-weight:bold}"
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
            "<title>Calls a second on one core</title>",
            f"<style>{style}</style>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        )
    )


def _groups(results: Results) -> Iterator[tuple[str, dict[str, Row]]]:
    for workload, rows in results.rows.items():
        measured = {name: row for name, row in rows.items() if row.measured}
        if measured:
            yield workload, measured


def _group(workload: str, rows: dict[str, Row], left: int, top: int) -> Iterator[str]:
    yield f'<g transform="translate({left} {top})">'
    yield f'<text x="{LABELS}" y="20" class="heading">{escape(workload)}</text>'
    most = max(row.rate for row in rows.values())
    for number, (name, row) in enumerate(sorted(rows.items(), key=lambda pair: -pair[1].rate)):
        y = HEADING + number * (BAR + GAP)
        long = round(row.rate / most * (WIDTH - LABELS - NUMBERS), 1)
        colour = COLOURS.get(name, _OTHER)
        base = y + BAR - 4
        yield f'<text x="{LABELS - 8}" y="{base}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{LABELS}" y="{y}" width="{long}" height="{BAR}" fill="{colour}"/>'
        yield f'<text x="{LABELS + long + 6}" y="{base}">{row.rate:,.0f}</text>'
    yield "</g>"
