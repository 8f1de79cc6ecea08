# SPDX-License-Identifier: Apache-2.0
"""Does a box cost more when many others are alive?"""

from __future__ import annotations

from contextlib import ExitStack

from bench.harness import CLOCK, Bench, Budget, Contender
from bench.ways import oneshot, sandbox, static_true

__all__ = ["run"]

POINTS = (1, 10, 100)
FULL_POINTS = (*POINTS, 300, 1000)


class Crowd:
    """Live boxes, grown and shrunk to a number. Opening one is what is timed."""

    def __init__(self) -> None:
        self.boxes = ExitStack()
        self.alive = 0
        self.opened: list[float] = []

    def reach(self, number: int) -> None:
        """As many alive as that."""
        if self.alive > number:
            self.close()
        while self.alive < number:
            began = CLOCK()
            box = sandbox().open()
            self.opened.append(CLOCK() - began)
            self.boxes.callback(box.close)
            self.alive += 1

    def close(self) -> None:
        """All of them."""
        self.boxes.close()
        self.alive = 0


def run(bench: Bench) -> None:
    """One point after the other: a thousand boxes can't take turns with one."""
    crowd = Crowd()
    bench.stack.callback(crowd.close)
    program = static_true()
    once, blocks = oneshot(program), {}
    points = FULL_POINTS if bench.full else POINTS
    for number in points:
        crowd.reach(number)
        blocks[number] = [once(bench.scale.count) for _ in range(bench.scale.rounds)]
    crowd.close()
    contenders, rounds = [], {}
    for number in points:
        name = f"isolate, {number} alive"
        rounds[name] = blocks[number]
        contenders.append(Contender(name, once, x=float(number)))
    first = f"isolate, {points[0]} alive"
    row = "cost per box, 1 to 1,000 alive"
    budgets = [
        Budget(f"isolate, {number} alive", first, 1.3, row if number == points[-1] else "")
        for number in points[1:]
    ]
    remark = "one point after the other, not in turns: drift of the machine is in the ratio"
    bench.record("one-shot, by boxes alive", contenders, rounds, budgets, [remark])
