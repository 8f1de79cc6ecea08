# SPDX-License-Identifier: Apache-2.0
"""What a filter lets through on one architecture, to be asked call by call."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from isolate.abi.syscalls import AUDIT_ARCH, numbers
from isolate.plan.bpf.assemble import JEQ, LOW, OFFSET_ARCH, OFFSET_NR
from isolate.plan.bpf.diagram import Diagrams
from isolate.plan.bpf.evaluate import JSET
from isolate.plan.bpf.symbolic import (
    LOWER,
    UPPER,
    call_of,
    compared,
    members,
    together,
    word,
    word_bits,
)
from isolate.policy.findings import Call
from isolate.policy.rules import STRICTNESS

__all__ = ["PASSES", "View", "passing"]

PASSES = ("log", "allow")  # the kernel does the call


def passing(space: Diagrams, installed: Sequence[bytes]) -> int:
    """Where a call is let through by all."""
    least = min(STRICTNESS.index(name) for name in PASSES)
    return space.mapped((together(space, installed),), lambda rank: int(rank >= least))


@frozen
class View:
    """The calls of one architecture, of those that are let through.

    Attributes:
        space: the diagrams.
        passes: where any call is let through.
        arch: the architecture's name.
        here: `passes` for that architecture, as a function of number and arguments.
    """

    space: Diagrams
    passes: int
    arch: str
    here: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        bits = word(OFFSET_ARCH, AUDIT_ARCH[self.arch])
        object.__setattr__(self, "here", self.space.descend(self.passes, bits))

    def args(self, call: str) -> int:
        """Where a call is let through, as a function of its arguments; nowhere if unknown here."""
        number = numbers(self.arch).get(call)
        if number is None:
            return self.space.no
        return self.space.descend(self.here, word(OFFSET_NR, number))

    def lets(self, call: str) -> bool:
        """Whether any arguments let it through."""
        return self.args(call) != self.space.no

    def equal(self, index: int, value: int) -> int:
        """Where the lower half of an argument is a value."""
        return compared(self.space, JEQ, LOWER[index], LOW, value)

    def exactly(self, index: int, value: int) -> int:
        """Where an argument is a value, with nothing in its upper half."""
        upper = compared(self.space, JEQ, UPPER[index], LOW, 0)
        return self.space.both(upper, self.equal(index, value))

    def one_of(self, index: int, values: Sequence[int]) -> int:
        """Where the lower half of an argument is one of some."""
        return members(self.space, LOWER[index], values)

    def any_bit(self, index: int, bits: int) -> int:
        """Where an argument has one of some bits of its lower half."""
        return compared(self.space, JSET, LOWER[index], LOW, bits)

    def upper_as_zero(self, test: int, index: int) -> int:
        """The test as if an argument's upper half were zero."""
        return self.space.zeroed(test, word_bits(UPPER[index]))

    def found(self, call: str, test: int) -> Call | None:
        """The call with arguments that are let through and pass a test; None if there are none."""
        both = self.space.both(self.args(call), test)
        if both == self.space.no:
            return None
        return call_of(self.space, both, AUDIT_ARCH[self.arch], numbers(self.arch)[call])
