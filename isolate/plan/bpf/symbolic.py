# SPDX-License-Identifier: Apache-2.0
"""What a program answers for all calls at once, as a decision diagram over struct seccomp_data.

Classic BPF only jumps forward, so a program is read once from its end: what an instruction leads
to is known before it is. The accumulator is a word of the call under a mask, and never more.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from itertools import chain

from isolate.errors import PolicyError
from isolate.plan.bpf.assemble import (
    AND,
    JA,
    JEQ,
    JGE,
    JGT,
    LD_W_ABS,
    LOW,
    OFFSET_ARCH,
    OFFSET_ARGS,
    OFFSET_NR,
    RET,
)
from isolate.plan.bpf.diagram import Diagrams
from isolate.plan.bpf.evaluate import JSET, SIZE, as_action
from isolate.policy.findings import Call
from isolate.policy.rules import STRICTNESS

__all__ = [
    "LOWER",
    "UPPER",
    "Instruction",
    "Symbol",
    "answers",
    "call_of",
    "compared",
    "following",
    "instructions",
    "members",
    "together",
    "word",
    "word_bits",
]

# Offsets in struct seccomp_data in the order in which their bits are asked: the architecture, the
# number, each argument's upper and lower word, the instruction pointer.
UPPER = tuple(OFFSET_ARGS + 8 * i + 4 for i in range(6))
LOWER = tuple(OFFSET_ARGS + 8 * i for i in range(6))
WORDS = (OFFSET_ARCH, OFFSET_NR, *chain(*zip(UPPER, LOWER, strict=True)), 12, 8)
Instruction = tuple[int, int, int, int]  # code, jt, jf, k
Symbol = tuple[int, int] | None  # (offset, mask) of what is in A; None: 0, as at the start


def word_bits(offset: int) -> range:
    """The bits of a word, the highest first."""
    first = 32 * WORDS.index(offset)
    return range(first, first + 32)


def word(offset: int, value: int) -> Iterable[tuple[int, bool]]:
    """The bits of a word that has a value."""
    return ((bit, bool(value >> 31 - i & 1)) for i, bit in enumerate(word_bits(offset)))


def compared(space: Diagrams, code: int, offset: int, mask: int, k: int) -> int:
    """Where (word & mask) JEQ, JGT, JGE or JSET k holds; built from the lowest bit up."""
    held = space.yes if code in (JEQ, JGE) else space.no  # if all lower bits are equal
    for bit in reversed(word_bits(offset)):
        place = 31 - (bit - word_bits(offset).start)
        here, wanted = mask >> place & 1, k >> place & 1
        if code == JSET:
            held = space.node(bit, held, space.yes) if here and wanted else held
        elif not here:  # a zero
            held = space.no if wanted else held
        elif wanted:
            held = space.node(bit, space.no, held)
        else:
            held = space.node(bit, held, space.no if code == JEQ else space.yes)
    return held


def members(space: Diagrams, offset: int, values: Sequence[int]) -> int:
    """Where a word is one of some values."""
    layer = dict.fromkeys(values, space.yes)
    for bit in reversed(word_bits(offset)):
        above: dict[int, list[int]] = {}
        for value, at in layer.items():
            above.setdefault(value >> 1, [space.no, space.no])[value & 1] = at
        layer = {value: space.node(bit, *both) for value, both in above.items()}
    return layer.get(0, space.no)


def instructions(program: bytes) -> list[Instruction]:
    """The array of struct sock_filter."""
    return list(struct.iter_unpack("=HBBI", program[: len(program) // SIZE * SIZE]))


def following(at: int, code: int, jt: int, jf: int, k: int, a: Symbol) -> list[tuple[int, Symbol]]:
    """Where an instruction may lead to, and what A is there. Raises: PolicyError."""
    if code == LD_W_ABS and k in WORDS:
        return [(at + 1, (k, LOW))]
    if code == AND:
        return [(at + 1, a and (a[0], a[1] & k))]
    if code == JA:
        return [(at + 1 + k, a)]
    if code in (JEQ, JGT, JGE, JSET):
        return [(at + 1 + jt, a), (at + 1 + jf, a)]
    if code == RET:
        return []
    raise PolicyError(f"instruction {at} can't be analysed: {code:#x} {k:#x}")


def reached(code: list[Instruction]) -> list[tuple[int, Symbol]]:
    """Every instruction that can be come to, with what A can be there, the last first."""
    found: set[tuple[int, Symbol]] = set()
    ahead: list[tuple[int, Symbol]] = [(0, None)]
    while ahead:
        at, a = ahead.pop()
        if at >= len(code):
            raise PolicyError(f"the program ends without a return, at instruction {at}")
        if (at, a) not in found:
            found.add((at, a))
            ahead += following(at, *code[at], a)
    return sorted(found, key=lambda state: -state[0])


def answers(space: Diagrams, program: bytes) -> int:
    """SECCOMP_RET_* with its data, as a function of the call.

    Raises: PolicyError for what is no valid program; Undecided.
    """
    code = instructions(program)
    known: dict[tuple[int, Symbol], int] = {}
    for at, a in reached(code):
        op, jt, jf, k = code[at]
        ways = following(at, op, jt, jf, k, a)
        if op == RET:
            known[at, a] = space.terminal(k)
        elif len(ways) == 1:
            known[at, a] = known[ways[0]]
        else:
            offset, mask = a or (OFFSET_NR, 0)
            test = compared(space, op, offset, mask, k)
            known[at, a] = space.choose(test, known[ways[0]], known[ways[1]])
    return known[0, None]


def together(space: Diagrams, programs: Iterable[bytes]) -> int:
    """How the kernel answers when all are installed: `STRICTNESS` indexes, the least wins."""
    ranks = {}

    def rank(value: int) -> int:
        if value not in ranks:
            ranks[value] = STRICTNESS.index(as_action(value).name)
        return ranks[value]

    found = space.terminal(len(STRICTNESS) - 1)
    for program in programs:
        answer = space.mapped((answers(space, program),), rank)
        found = space.mapped((found, answer), min)
    return found


def valued(bits: Collection[int], offset: int) -> int:
    """A word whose set bits are among these."""
    return sum(1 << 31 - i for i, bit in enumerate(word_bits(offset)) if bit in bits)


def call_of(space: Diagrams, test: int, audit: int | None = None, number: int = 0) -> Call:
    """A call for which a test holds; the test is about arguments only if `audit` is given."""
    bits = space.example(test)
    if audit is None:
        audit, number = valued(bits, OFFSET_ARCH), valued(bits, OFFSET_NR)
    args = (valued(bits, UPPER[i]) << 32 | valued(bits, LOWER[i]) for i in range(6))
    return Call(audit, number, tuple(args))
