# SPDX-License-Identifier: Apache-2.0
"""Does a box cost more when many others are alive?"""

from __future__ import annotations

from bench.harness import CLOCK, Bench, Budget, Contender
from bench.ways import floor, oneshot, sandbox, static_true
from isolate.sandbox import Box

__all__ = ["run"]

POINTS = (1, 10, 100)
FULL_POINTS = (*POINTS, 300, 1000)
MOST = 12
MOST_TURNS = 8


class Crowd:
    """Live boxes, grown and shrunk to a number. Opening one is what is timed."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.alive = 0
        self.opened: list[float] = []

    def reach(self, number: int) -> None:
        """As many alive as that; the last ones go first."""
        while self.alive > number:
            self.boxes.pop().close()
            self.alive -= 1
        while self.alive < number:
            began = CLOCK()
            box = sandbox().open()
            self.opened.append(CLOCK() - began)
            self.boxes.append(box)
            self.alive += 1

    def close(self) -> None:
        """All of them."""
        self.reach(0)


def run(bench: Bench) -> None:
    """The points take turns: the crowd grows through them and shrinks through them, again and
    again. Beside each stands the floor, which tells what of the cost is the kernel's."""
    crowd = Crowd()
    bench.stack.callback(crowd.close)
    points = FULL_POINTS if bench.full else POINTS
    ways = {"isolate": oneshot(static_true()), "floor": floor(bench, "template").block}
    rounds: dict[str, list[list[float]]] = {}
    count = min(bench.scale.count, MOST)
    for turn in range(min(bench.scale.rounds, MOST_TURNS)):
        for number in points if turn % 2 == 0 else reversed(points):
            crowd.reach(number)
            for way, block in ways.items():
                rounds.setdefault(f"{way}, {number} alive", []).append(block(count))
    crowd.close()
    contenders = [
        Contender(f"{way}, {number} alive", block, x=float(number))
        for way, block in ways.items()
        for number in points
    ]
    row = "cost per box, 1 to 1,000 alive"
    budgets = [
        Budget(f"{way}, {n} alive", f"{way}, {points[0]} alive", 1.3 if way == "isolate" else None,
               row if way == "isolate" and n == points[-1] else "")
        for n in points[1:]
        for way in ways
    ]  # fmt: skip
    bench.record("one-shot, by boxes alive", contenders, rounds, budgets)
