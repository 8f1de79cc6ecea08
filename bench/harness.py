# SPDX-License-Identifier: Apache-2.0
"""Contenders take turns, A B A B, in one run; what is compared was measured at the same time."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from attrs import Factory, define, field, frozen

from bench.stats import Ratio, Summary, ratio, summary

__all__ = ["Bench", "Budget", "Contender", "Scale", "Table", "each", "machine", "own_cpu"]

CLOCK = time.perf_counter


@frozen
class Contender:
    """One way of doing the job.

    Attributes:
        name: as the table shows it.
        block: does the job so many times; the seconds of each.
        note: what has to be known about it: what it does less, say.
        x: where it stands on a line, if the contenders are points of one.
        share: how much of a block it takes, for what is slow.
        cpu: the processor seconds used up to now, None where they are not known. A busy machine
            makes a launch wait; it doesn't make it compute.
    """

    name: str
    block: Callable[[int], list[float]]
    note: str = ""
    x: float | None = None
    share: float = 1.0
    cpu: Callable[[], float] | None = None


@frozen
class Budget:
    """A row of DESIGN.md section 6: `over` at most `limit` times `under`; at least, if `least`."""

    over: str
    under: str
    limit: float | None
    row: str = ""
    least: bool = False

    def kept(self, found: Ratio) -> bool | None:
        """Whether it is met; None where there is no limit."""
        if self.limit is None:
            return None
        return found.value >= self.limit if self.least else found.value <= self.limit


@frozen
class Scale:
    """How long a run takes: rounds, and launches a round."""

    rounds: int
    count: int


QUICK, SHORT, FULL = Scale(2, 2), Scale(8, 12), Scale(25, 40)


@define
class Table:
    """One comparison's outcome."""

    case: str
    title: str
    rows: list[tuple[Contender, Summary]]
    ratios: list[tuple[Budget, Ratio]]
    log: bool = False
    remarks: list[str] = Factory(list)


def each(job: Callable[[], object]) -> Callable[[int], list[float]]:
    """A block that times a call."""

    def block(count: int) -> list[float]:
        found = []
        for _ in range(count):
            began = CLOCK()
            job()
            found.append(CLOCK() - began)
        return found

    return block


def own_cpu() -> float:
    """Processor seconds of this process and of all that it has reaped."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each_one.ru_utime + each_one.ru_stime for each_one in used)


def machine() -> dict[str, object]:
    """Where and when this was measured."""
    head = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1])
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "memory_mib": memory >> 10,
        "load": os.getloadavg()[0],
        "commit": head.stdout.strip() or "unknown",
    }


@define
class Bench:
    """What a case is given: its scale, a stack for what it opens, and where its tables go."""

    scale: Scale
    tables: list[Table] = Factory(list)
    stack: ExitStack = Factory(ExitStack)
    case: str = ""
    full: bool = False
    say: Callable[[str], None] = field(default=print)

    def compare(
        self,
        title: str,
        contenders: Sequence[Contender],
        budgets: Sequence[Budget] = (),
        *,
        rounds: int | None = None,
        count: int | None = None,
        remarks: Sequence[str] = (),
    ) -> Table:
        """Let them take turns; the table is kept, and shown."""
        rounds, count = rounds or self.scale.rounds, count or self.scale.count
        taken: dict[str, list[list[float]]] = {each.name: [] for each in contenders}
        cpu: dict[str, float] = {}
        if len(taken) != len(contenders):
            raise ValueError(f"{title}: two contenders of one name")
        for each_one in contenders:
            each_one.block(max(1, round(3 * each_one.share)))  # caches, imports, a first box
        for number in range(rounds):
            order = contenders if number % 2 == 0 else list(reversed(contenders))
            for each_one in order:
                share = max(1, round(count * each_one.share))
                before = each_one.cpu() if each_one.cpu else 0.0
                taken[each_one.name].append(each_one.block(share))
                if each_one.cpu:
                    cpu[each_one.name] = cpu.get(each_one.name, 0.0) + each_one.cpu() - before
        return self.record(title, contenders, taken, budgets, remarks, cpu)

    def record(
        self,
        title: str,
        contenders: Sequence[Contender],
        taken: Mapping[str, Sequence[Sequence[float]]],
        budgets: Sequence[Budget] = (),
        remarks: Sequence[str] = (),
        cpu: Mapping[str, float] | None = None,
    ) -> Table:
        """Sum up what was taken already, rounds by name."""
        table = Table(
            self.case,
            title,
            [(one, summary(taken[one.name], (cpu or {}).get(one.name))) for one in contenders],
            [(b, ratio(taken[b.over], taken[b.under])) for b in budgets],
            remarks=list(remarks),
        )
        self.keep(table)
        return table

    def keep(self, table: Table) -> None:
        """Show a table now, and keep it for the report."""
        from bench.report import as_text

        self.tables.append(table)
        self.say(as_text(table))
