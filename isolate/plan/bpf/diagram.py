# SPDX-License-Identifier: Apache-2.0
"""Decision diagrams: functions of many bits, exact; equal ones are one and the same.

A function is the number of its node. A node asks one bit and has a function for 0 and one for 1;
bits are asked in ascending order on every way; a terminal asks nothing and has a value. What two
ways share is one node, so that questions that would need 2^400 cases are a few thousand steps
(R. Bryant, "Graph-Based Algorithms for Boolean Function Manipulation", 1986). Nothing recurses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from isolate.errors import Undecided

__all__ = ["MAX_NODES", "Diagrams"]

MAX_NODES = 400_000  # some 100 MB; Docker's profile needs about 10,000
NO_BIT = 1 << 30  # what a terminal asks: after all bits


class Diagrams:
    """The nodes of some functions that are combined with each other.

    Raises: Undecided, from every method that makes nodes, when there would be too many.
    """

    def __init__(self, most: int = MAX_NODES) -> None:
        self.most = most
        self.bit: list[int] = []
        self.low: list[int] = []
        self.high: list[int] = []
        self.made: dict[tuple[int, int, int], int] = {}
        self.no, self.yes = self.terminal(0), self.terminal(1)

    def terminal(self, value: int) -> int:
        """The constant function."""
        return self.unique(NO_BIT, value, value)

    def node(self, bit: int, low: int, high: int) -> int:
        """`low` where the bit is 0, else `high`; both ask only later bits."""
        return low if low == high else self.unique(bit, low, high)

    def unique(self, bit: int, low: int, high: int) -> int:
        """The one node of these three."""
        key = (bit, low, high)
        found = self.made.get(key)
        if found is None:
            found = self.made[key] = len(self.bit)
            if found >= self.most:
                raise Undecided(
                    f"the filters have more than {self.most} cases to tell apart: compare fewer "
                    "rules with arguments at a time, or ask `evaluate` about the calls that matter"
                )
            self.bit.append(bit)
            self.low.append(low)
            self.high.append(high)
        return found

    def value(self, at: int) -> int | None:
        """A terminal's value; None of others."""
        return self.low[at] if self.bit[at] == NO_BIT else None

    def merge(
        self,
        parts: tuple[int, ...],
        decide: Callable[[tuple[int, ...]], int | None],
        zeroed: range = range(0),
    ) -> int:
        """One function of several, bit by bit.

        Args:
            decide: what the parts give together, as soon as it can be told; None: go on. It must
                tell for terminals.
            zeroed: bits that are taken as 0.
        """
        memo: dict[tuple[int, ...], int] = {}
        stack = [parts]
        while stack:
            at = stack[-1]
            done = memo[at] if at in memo else decide(at)
            if done is None:
                first = min(self.bit[each] for each in at)
                lows = tuple(self.low[e] if self.bit[e] == first else e for e in at)
                highs = tuple(self.high[e] if self.bit[e] == first else e for e in at)
                asked = (lows,) if first in zeroed else (highs, lows)
                missing = [each for each in asked if each not in memo]
                if missing:
                    stack += missing
                    continue
                done = self.node(first, memo[lows], memo[asked[0]])
            memo[at] = done
            stack.pop()
        return memo[parts]

    def choose(self, test: int, yes: int, no: int) -> int:
        """`yes` where the test holds, else `no`."""

        def decide(at: tuple[int, ...]) -> int | None:
            if at[0] == self.yes or at[1] == at[2]:
                return at[1]
            return at[2] if at[0] == self.no else None

        return self.merge((test, yes, no), decide)

    def both(self, one: int, other: int) -> int:
        """Where both hold."""
        return self.choose(one, other, self.no)

    def without(self, one: int, other: int) -> int:
        """Where the first holds and the other does not."""
        return self.choose(other, self.no, one)

    def either(self, parts: Iterable[int]) -> int:
        """Where any holds."""
        found = self.no
        for each in parts:
            found = self.choose(found, self.yes, each)
        return found

    def mapped(self, parts: tuple[int, ...], of: Callable[..., int]) -> int:
        """The function whose value is `of` of the parts' values."""

        def decide(at: tuple[int, ...]) -> int | None:
            values = [self.value(each) for each in at]
            return None if None in values else self.terminal(of(*values))

        return self.merge(parts, decide)

    def zeroed(self, at: int, bits: range) -> int:
        """The function with some bits taken as 0."""
        return self.merge((at,), lambda parts: self.ended(parts[0], bits), bits)

    def ended(self, at: int, bits: range) -> int | None:
        """Itself, if it asks none of the bits any more."""
        return at if self.bit[at] >= bits.stop else None

    def descend(self, at: int, bits: Iterable[tuple[int, bool]]) -> int:
        """The function when its first bits, in ascending order, are these."""
        for bit, is_set in bits:
            if self.bit[at] == bit:
                at = self.high[at] if is_set else self.low[at]
        return at

    def example(self, at: int) -> frozenset[int]:
        """Bits to set, all others 0, for a test to hold; the test must hold somewhere."""
        found = set()
        while self.bit[at] != NO_BIT:
            if self.low[at] == self.no:
                found.add(self.bit[at])
                at = self.high[at]
            else:
                at = self.low[at]
        return frozenset(found)
