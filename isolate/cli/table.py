# SPDX-License-Identifier: Apache-2.0
"""Boxes and their statistics as rows of text. Pure; names from inside are printable by now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from isolate.supervise.boxes import BoxFacts
from isolate.supervise.leafstats import UNIFIED
from isolate.supervise.proctree import printable
from isolate.supervise.stats import Stats

__all__ = ["as_dict", "ps_table", "size", "stats_table"]

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
NONE = "-"  # not counted, or no ceiling
STATS = "BOX OWNER CPU% MEMORY LIMIT MEM% PIDS READ WRITTEN THROTTLED STATE"
PS = ("BOX", "PID", "PARENT", "STATE", "THREADS", "CPU", "MEMORY", "COMMAND")
NUMBERS = frozenset(
    "CPU% MEMORY LIMIT MEM% PIDS READ WRITTEN THROTTLED PID PARENT THREADS CPU".split()
)


def size(value: float | None) -> str:
    """Bytes for a person."""
    if value is None:
        return NONE
    unit = 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def percent(part: float | None, whole: float | None = 1.0) -> str:
    """A share."""
    return NONE if part is None or not whole else f"{100 * part / whole:.1f}"


def owner(box: BoxFacts) -> str:
    """Who opened it."""
    return f"{box.owner} {box.owner_name}".strip()


def stats_row(box: BoxFacts, now: Stats, before: Stats | None) -> tuple[str, ...]:
    """One line of the table."""
    cores = now.cores_since(before) if before is not None else None
    pids = now.pids
    within = "" if pids.limit is None else f"/{pids.limit}"
    throttled = now.cpu.throttled
    counted = not {"blkio", UNIFIED}.isdisjoint(dict(box.directories))
    return (
        box.name,
        owner(box),
        percent(cores),
        size(now.memory.current),
        size(now.memory.limit),
        percent(now.memory.current, now.memory.limit),
        NONE if pids.current is None else f"{pids.current}{within}",
        size(now.read) if counted else NONE,
        size(now.written) if counted else NONE,
        NONE if throttled is None else f"{throttled:.1f} s",
        "frozen" if now.frozen else "running" if box.processes else "idle",
    )


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Text only: nothing in it is markup."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for name in columns:
        right = name in NUMBERS
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "COMMAND")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def stats_table(
    seen: Sequence[tuple[BoxFacts, Stats]], before: Mapping[str, Stats] | None = None
) -> Table:
    """The live table; processor shares need the statistics of the time before, by name."""
    known = before or {}
    rows = [stats_row(box, stats, known.get(box.name)) for box, stats in seen]
    return table_of(STATS.split(), rows)


def ps_table(boxes: Sequence[tuple[BoxFacts, Mapping[int, str]]]) -> Table:
    """Every process of every box; `commands` are its command lines by pid."""
    rows = []
    for box, commands in boxes:
        for each in box.processes:
            command = commands.get(each.pid) or f"[{printable(each.name)}]"
            rows.append(
                (
                    box.name, str(each.pid), str(each.parent), each.state, str(each.threads),
                    f"{each.cpu:.2f}", size(each.resident), command,
                )
            )  # fmt: skip
        if not box.processes:
            rows.append((box.name, NONE, NONE, NONE, NONE, NONE, NONE, "(idle)"))
    return table_of(PS, rows)


def as_dict(box: BoxFacts, stats: Stats, before: Stats | None = None) -> dict[str, Any]:
    """One box as plain data; sizes in bytes, times in seconds, `cores` as processors in use."""
    return {
        "name": box.name,
        "owner": box.owner,
        "owner_name": box.owner_name,
        "init": box.init,
        "cores": None if before is None else stats.cores_since(before),
        "pids": [each.pid for each in box.processes],
        "stats": stats.to_dict(),
    }
