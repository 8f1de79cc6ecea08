# SPDX-License-Identifier: Apache-2.0
"""Does a launch cost more when the caller is large? Against os.fork of the same caller."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

from bench.harness import Bench, Budget, Contender, each
from bench.ways import TRUE, oneshot

__all__ = ["run"]

MIB = 1 << 20
POINTS = (10, 100, 1024)
FULL_POINTS = (*POINTS, 4096)
TOUCHED = b"1" * MIB
SPARE = 3  # times as much as we take has to be free


def free_mib() -> int:
    """What the machine can give."""
    with open("/proc/meminfo") as file:
        rows = dict(line.split(":") for line in file)
    return int(rows["MemAvailable"].split()[0]) >> 10


def grown(mib: int, block: Callable[[int], list[float]]) -> Callable[[int], list[float]]:
    """A block that is run with so much memory touched."""

    def run_grown(count: int) -> list[float]:
        with mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            for _ in range(mib):
                memory.write(TOUCHED)
            return block(count)

    return run_grown


def forked() -> None:
    """What subprocess.run with a preexec_fn, and multiprocessing's fork, do."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def run(bench: Bench) -> None:
    """From 10 MB to what may be taken."""
    wanted = FULL_POINTS if bench.full else POINTS
    points = [mib for mib in wanted if mib * SPARE < free_mib()]
    ours = [
        Contender(f"isolate, {mib} MiB", grown(mib, oneshot(TRUE)), x=float(mib)) for mib in points
    ]
    theirs = [
        Contender(
            f"os.fork, {mib} MiB", grown(mib, each(forked)), "no exec, no isolation", mib, 0.5
        )
        for mib in points
    ]
    row = "caller of 1 GiB against 10 MB resident"
    first = f"isolate, {points[0]} MiB"
    budgets = [
        Budget(f"isolate, {mib} MiB", first, 1.1, row if mib == 1024 else "") for mib in points[1:]
    ]
    left_out = [f"{mib} MiB left out: not {SPARE} times as much free" for mib in wanted]
    remarks = [text for mib, text in zip(wanted, left_out, strict=True) if mib not in points]
    bench.compare("one-shot /bin/true, by what the caller has resident", [*ours, *theirs],
                  budgets, remarks=remarks)  # fmt: skip
