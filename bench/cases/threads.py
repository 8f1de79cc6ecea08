# SPDX-License-Identifier: Apache-2.0
"""Launches from 1, 2 and 4 threads of one caller: time of each, and how many a second."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.harness import CLOCK, Bench, Contender
from bench.stats import quantile
from bench.ways import oneshot, sandbox, static_true

__all__ = ["run"]

THREADS = (1, 2, 4)


def several(
    threads: int, job: Callable[[int], list[float]], rates: list[float]
) -> Callable[[int], list[float]]:
    """A block that does its launches from so many threads at once."""

    def block(count: int) -> list[float]:
        share = max(1, count // threads)
        began = CLOCK()
        with ThreadPoolExecutor(threads) as pool:
            found = [each for part in pool.map(job, [share] * threads) for each in part]
        rates.append(len(found) / (CLOCK() - began))
        return found

    return block


def run(bench: Bench) -> None:
    """Fresh boxes, then programs in one live box."""
    program = static_true()
    box = bench.stack.enter_context(sandbox())

    def live(count: int) -> list[float]:
        found = []
        for _ in range(count):
            began = CLOCK()
            box.run([program], check=True)
            found.append(CLOCK() - began)
        return found

    for title, job in (("one-shot", oneshot(program)), ("in one live box", live)):
        rates: dict[int, list[float]] = {n: [] for n in THREADS}
        contenders = [
            Contender(f"isolate, {n} threads", several(n, job, rates[n]), x=float(n))
            for n in THREADS
        ]
        table = bench.compare(f"{title}, by launching threads", contenders)
        told = ", ".join(f"{n}: {quantile(rates[n], 0.5):.0f}" for n in THREADS)
        table.remarks.append(f"launches a second by threads: {told}")
        bench.say("  " + table.remarks[-1])
