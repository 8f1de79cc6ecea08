# SPDX-License-Identifier: Apache-2.0
"""Tables as text and as JSON."""

from __future__ import annotations

import json
from typing import Any

from bench.harness import Budget, Table
from bench.stats import Ratio

__all__ = ["as_json", "as_text", "verdict"]


def micros(seconds: float) -> str:
    """Microseconds, three digits or more."""
    value = seconds * 1e6
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def verdict(budget: Budget, found: Ratio) -> str:
    """Met, missed by how much, or only a figure."""
    kept = budget.kept(found)
    if kept is None or budget.limit is None:
        return ""
    bound = f"{'at least' if budget.least else 'at most'} {budget.limit:g} x"
    if kept:
        return f"{bound}: met"
    off = found.value / budget.limit if not budget.least else budget.limit / found.value
    return f"{bound}: MISSED by {off:.2f} x"


def processor(table: Table, budget: Budget) -> str:
    """The ratio of processor time, where both are known."""
    found = {each.name: summary.cpu for each, summary in table.rows}
    over, under = found[budget.over], found[budget.under]
    return f", processor time {over / under:.2f} x" if over and under else ""


def as_text(table: Table) -> str:
    """For the terminal, and for the docs."""
    width = max([len(each.name) for each, _ in table.rows] + [10])
    lines = [f"\n## {table.case}: {table.title}", ""]
    lines.append(f"{'':{width}}  {'n':>6} {'median us':>10} {'p10':>9} {'p99':>9} {'cpu':>7}")
    for each, found in table.rows:
        figures = (micros(found.median), micros(found.p10), micros(found.p99))
        row = f"{each.name:{width}}  {found.count:6} {figures[0]:>10} {figures[1]:>9} "
        cpu = "" if found.cpu is None else micros(found.cpu)
        lines.append((row + f"{figures[2]:>9} {cpu:>7}  {each.note}").rstrip())
    for budget, found in table.ratios:
        told = verdict(budget, found)
        what = f"{budget.over} / {budget.under}: {found.value:.2f} x"
        beside = f"undisturbed {found.quiet:.2f} x{processor(table, budget)}"
        lines.append(f"  {what} [{found.low:.2f} to {found.high:.2f}], {beside}  {told}".rstrip())
    lines += [f"  {remark}" for remark in table.remarks]
    return "\n".join(lines)


def table_json(table: Table) -> dict[str, Any]:
    """Plain data."""
    return {
        "case": table.case,
        "title": table.title,
        "rows": [
            {
                "name": each.name,
                "note": each.note,
                "x": each.x,
                "count": found.count,
                "median_us": found.median * 1e6,
                "p10_us": found.p10 * 1e6,
                "p99_us": found.p99 * 1e6,
                "cpu_us": None if found.cpu is None else found.cpu * 1e6,
            }
            for each, found in table.rows
        ],
        "ratios": [
            {
                "over": budget.over,
                "under": budget.under,
                "row": budget.row,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "quiet": found.quiet,
                "limit": budget.limit,
                "least": budget.least,
                "met": budget.kept(found),
            }
            for budget, found in table.ratios
        ],
        "remarks": table.remarks,
    }


def as_json(tables: list[Table], about: dict[str, object]) -> str:
    """Everything of one run."""
    return json.dumps({"machine": about, "tables": [table_json(each) for each in tables]}, indent=1)
