# SPDX-License-Identifier: Apache-2.0
"""A table as an SVG: bars for ways, lines for points. No library; one file a table. Pure."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.sax.saxutils import escape

from bench.harness import Contender, Table
from bench.stats import Summary

__all__ = ["as_svg", "file_name", "write_plots"]

WIDTH, LEFT, RIGHT, ROW, TOP = 900, 240, 90, 26, 56
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#718096")
Rows = list[tuple[Contender, Summary]]


def scale(values: list[float], low_edge: float, high_edge: float, log: bool = True):  # type: ignore[no-untyped-def]
    """(a function from values to places, values worth a tick)."""
    low, high = min(values), max(values)
    if not log or low <= 0:
        top = high * 1.05 or 1.0
        ticks = [top * i / 4 for i in range(5)]
        return lambda v: low_edge + (high_edge - low_edge) * v / top, ticks
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    ticks = [10.0**i for i in range(first, last + 1)]
    width = (high_edge - low_edge) / (last - first)
    return lambda v: low_edge + (math.log10(v) - first) * width, ticks


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    """Some words."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-family="sans-serif">{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    """A straight line."""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def told(micros: float) -> str:
    """A time for a tick."""
    if micros >= 1e6:
        return f"{micros / 1e6:g} s"
    return f"{micros / 1e3:g} ms" if micros >= 1e3 else f"{micros:g} us"


def bars(rows: Rows) -> tuple[list[str], int]:
    """A bar for each median, with a line from p10 to p99; the logarithm of microseconds."""
    values = [v * 1e6 for _, s in rows for v in (s.p10, s.p99)]
    place, ticks = scale(values, LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(rows)
    found = [line(place(t), TOP - 6, place(t), bottom, "#ddd") for t in ticks]
    found += [text(place(t), bottom + 16, told(t), "middle", 11) for t in ticks]
    for i, (each, s) in enumerate(rows):
        y = TOP + ROW * i
        colour = COLOURS[0] if each.name.startswith("isolate") else COLOURS[-1]
        end = place(s.median * 1e6)
        found.append(text(LEFT - 8, y + 15, each.name, "end"))
        found.append(
            f'<rect x="{LEFT}" y="{y + 3}" width="{end - LEFT:.1f}" height="16" fill="{colour}"/>'
        )
        found.append(line(place(s.p10 * 1e6), y + 11, place(s.p99 * 1e6), y + 11, "#222"))
        found.append(text(WIDTH - RIGHT + 6, y + 15, told(round(s.median * 1e6)), size=11))
    return found, bottom + 28


def series(rows: Rows) -> dict[str, Rows]:
    """Points by the name before their last comma: "isolate, 10 MB" is a point of "isolate"."""
    found: dict[str, Rows] = {}
    for each, summary in rows:
        found.setdefault(each.name.rpartition(", ")[0] or each.name, []).append((each, summary))
    return found


def curves(rows: Rows) -> tuple[list[str], int]:
    """A line for each series; both axes by what fits."""
    height = 300
    xs = [each.x or 0.0 for each, _ in rows]
    by_log = min(xs) > 0 and max(xs) / min(xs) > 20
    x_place, x_ticks = scale(xs, 80, WIDTH - 180, by_log)
    y_place, y_ticks = scale([s.median * 1e6 for _, s in rows], TOP + height, TOP)
    found = [line(80, y_place(t), WIDTH - 180, y_place(t), "#ddd") for t in y_ticks]
    found += [text(74, y_place(t) + 4, told(t), "end", 11) for t in y_ticks]
    found += [text(x_place(t), TOP + height + 18, f"{t:g}", "middle", 11) for t in x_ticks]
    for i, (name, points) in enumerate(series(rows).items()):
        colour = COLOURS[i % len(COLOURS)]
        at = [(x_place(each.x or 0.0), y_place(s.median * 1e6)) for each, s in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        found.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        found += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at]
        y = TOP + 14 + 18 * i
        found.append(text(WIDTH - 172, y, name, size=12))
        found.append(line(WIDTH - 200, y - 4, WIDTH - 178, y - 4, colour, 3))
    return found, TOP + height + 32


def as_svg(table: Table) -> str:
    """One table's picture."""
    points = all(each.x is not None for each, _ in table.rows)
    body, height = curves(table.rows) if points else bars(table.rows)
    title = text(16, 24, f"{table.case}: {table.title}", size=15)
    under = text(16, 42, "median; thin line p10 to p99" if not points else "median", size=11)
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    paper = f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', paper, title, under, *body, "</svg>\n"]
    )


def file_name(table: Table) -> str:
    """From its case and title."""
    return re.sub(r"[^a-z0-9]+", "-", f"{table.case} {table.title}".lower()).strip("-") + ".svg"


def write_plots(tables: list[Table], folder: Path) -> None:
    """One file a table."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        (folder / file_name(table)).write_text(as_svg(table))
