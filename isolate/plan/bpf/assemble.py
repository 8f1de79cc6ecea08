# SPDX-License-Identifier: Apache-2.0
"""Layers of rules as one classic BPF program: a tree over numbers, tests at its leaves.

The program is built from its end, so that every jump goes to an instruction that is there
already, and its distance is known; one that is too far for eight bits goes by way of a JA.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate, takewhile

from attrs import evolve, frozen

from isolate.abi.syscalls import AUDIT_ARCH, X32_BIT, numbers
from isolate.errors import PolicyError
from isolate.policy.rules import ALLOW, KILL_PROCESS, Action, Compare, Condition, Layer, Rule
from isolate.policy.seccomp import deciding

__all__ = ["MAX_INSTRUCTIONS", "assemble", "join"]

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS, linux/bpf_common.h
FAR = 255
LD_W_ABS, JA, JEQ, JGT, JGE, AND, RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
OFFSET_NR, OFFSET_ARCH, OFFSET_ARGS = 0, 4, 16  # struct seccomp_data, linux/seccomp.h
LOW = 0xFFFFFFFF
LAST = 1 << 32
MOST_EXCEPTIONS = 1  # asked for by itself, where a search would ask twice
# What one layer says of a call: its rules, and what if none holds. ALLOW asks the next layer; so
# does a default of None, and there what a rule says is final.
Part = tuple[tuple[Rule, ...], Action | None]
Chain = tuple[Part, ...]  # its end allows
Run = tuple[int, Chain]
Held = tuple[int, int]  # a word's offset, and the mask that it is under
RETURNS = {  # SECCOMP_RET_*, linux/seccomp.h
    "kill_process": 0x80000000,
    "kill_thread": 0x00000000,
    "trap": 0x00030000,
    "errno": 0x00050000,
    "notify": 0x7FC00000,
    "log": 0x7FFC0000,
    "allow": 0x7FFF0000,
}


@frozen
class Word:
    """One word of seccomp_data, under a mask, and the value that it must have."""

    offset: int
    mask: int
    value: int


Test = Word | Condition


class Code:
    """Instructions from the last to the first. A label is the distance from the end."""

    def __init__(self) -> None:
        self.reversed: list[tuple[int, int, int, int]] = []  # code, jt, jf, k
        self.shared: dict[object, int] = {}
        self.loads: dict[int, Held] = {}  # label -> what A is after what stands there

    def add(self, code: int, k: int, jt: int = 0, jf: int = 0) -> int:
        """One instruction before all others; its label."""
        self.reversed.append((code, jt, jf, k & LOW))
        return len(self.reversed)

    def to(self, label: int) -> int:
        """How far a jump from the next instruction to a label is."""
        return len(self.reversed) - label

    def jump(self, label: int) -> int:
        """Make the label the next instruction: a JA unless it is already."""
        return label if self.to(label) == 0 else self.add(JA, self.to(label))

    def past(self, label: int, held: Held | None) -> int:
        """A label, or the one behind it, if A has already what would be loaded there."""
        wanted = self.loads.get(label)
        if held is None or wanted is None or wanted[0] != held[0]:
            return label
        if wanted == held:
            return label - (1 if held[1] == LOW else 2)
        return label - (held[1] == LOW)

    def branch(self, code: int, k: int, yes: int, no: int, held: Held | None = None) -> int:
        """A conditional jump; far labels get a JA of their own in between. `held`: what A has."""
        yes, no = self.past(yes, held), self.past(no, held)
        if yes == no:
            return self.jump(yes)
        if self.to(no) > FAR - 1:
            no = self.add(JA, self.to(no))
        if self.to(yes) > FAR:
            yes = self.add(JA, self.to(yes))
        return self.add(code, k, self.to(yes), self.to(no))

    def load(self, offset: int, then: int, mask: int = LOW) -> int:
        """Load a word of seccomp_data, under a mask, and go on at a label."""
        self.jump(then)
        if mask != LOW:
            self.add(AND, mask)
        label = self.add(LD_W_ABS, offset)
        self.loads[label] = (offset, mask)
        return label

    def result(self, action: Action) -> int:
        """A return, shared with an earlier one that is near."""
        key = ("return", action)
        label = self.shared.get(key)
        if label is None or self.to(label) > FAR // 2:
            label = self.shared[key] = self.add(RET, RETURNS[action.name] | action.data)
        return label

    def needed(self) -> list[tuple[int, int, int, int]]:
        """From the first instruction on, without what nothing leads to."""
        code = self.reversed[::-1]
        kept = [False] * (len(code) + 1)
        kept[0] = True
        for at, (op, jt, jf, k) in enumerate(code):  # jumps only go forward
            if kept[at] and op != RET:
                steps = (k,) if op == JA else (jt, jf) if op in (JEQ, JGT, JGE) else (0,)
                for step in steps:
                    kept[at + 1 + step] = True
        before = list(accumulate(kept, initial=0))

        def shorter(at: int, step: int) -> int:
            return before[at + 1 + step] - before[at + 1]

        return [
            (op, shorter(at, jt), shorter(at, jf), shorter(at, k) if op == JA else k)
            for at, (op, jt, jf, k) in enumerate(code)
            if kept[at]
        ]

    def bytes(self) -> bytes:
        """The program. Raises: PolicyError, if it is too long for the kernel."""
        code = self.needed()
        if len(code) > MAX_INSTRUCTIONS:
            raise PolicyError(
                f"the filter has {len(code)} instructions and the kernel takes "
                f"{MAX_INSTRUCTIONS}: use fewer rules with arguments, or split it into two filters"
            )
        return b"".join(struct.pack("=HBBI", *each) for each in code)


def equal(code: Code, test: Word, yes: int, no: int) -> int:
    """(word & mask) == value."""
    if test.mask == 0:
        return code.jump(yes if test.value == 0 else no)
    held = (test.offset, test.mask)
    return code.load(test.offset, code.branch(JEQ, test.value, yes, no, held), test.mask)


def ordered(code: Code, test: Condition, yes: int, no: int) -> int:
    """<, <=, > and >=: the upper word decides, else the lower one."""
    low = OFFSET_ARGS + 8 * test.index
    if test.compare in (Compare.LT, Compare.LE):  # the opposite of >= and >
        yes, no = no, yes
    op = JGT if test.compare in (Compare.GT, Compare.LE) else JGE
    lower = code.load(low, code.branch(op, test.value & LOW, yes, no, (low, LOW)))
    if test.width == 32:
        return lower
    upper, held = test.value >> 32, (low + 4, LOW)
    same = code.branch(JEQ, upper, lower, no, held)
    return code.load(low + 4, code.branch(JGT, upper, yes, same, held))


def words(test: Condition) -> list[Word]:
    """An equality as equalities of words, the upper first; little endian, as all our machines."""
    low = OFFSET_ARGS + 8 * test.index
    mask = test.mask if test.compare is Compare.MASKED_EQ else -1
    found = [Word(low, mask & LOW, test.value & LOW)]
    if test.width == 64:
        found.insert(0, Word(low + 4, mask >> 32 & LOW, test.value >> 32))
    return [word for word in found if word.mask or word.value]


def simple(rule: Rule) -> tuple[Test, ...]:
    """A rule's tests, equalities word by word, so that rules share what they ask."""
    found: list[Test] = []
    for test in rule.conditions:
        exact = test.compare in (Compare.EQ, Compare.MASKED_EQ)
        found += words(test) if exact else [test]
    return tuple(found)


def condition(code: Code, test: Test, yes: int, no: int) -> int:
    """One test of one argument."""
    if isinstance(test, Word):
        return equal(code, test, yes, no)
    if test.compare is not Compare.NE:
        return ordered(code, test, yes, no)
    label = no
    for word in reversed(words(evolve(test, compare=Compare.EQ))):
        label = equal(code, word, label, yes)
    return label


def after(rules: list[tuple[Test, ...]], first: int, depth: int) -> tuple[int, int]:
    """Where to go on when a rule's test at `depth` fails: a later rule, and one of its tests.

    Rules that ask the same fail with it; tests that held already are not made again.
    """
    tests = rules[first]
    for at in range(first + 1, len(rules)):
        other = rules[at]
        if tests[depth] not in other:
            pairs = zip(tests[:depth], other, strict=False)
            return at, len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return len(rules), 0


def decision(code: Code, chain: Chain) -> int:
    """Layer after layer, each one's rules in their order. Equal ones are shared."""
    if not chain:
        return code.result(ALLOW)
    if chain in code.shared:
        return code.shared[chain]
    (rules, default), rest = chain[0], chain[1:]

    def given(action: Action | None) -> int:
        if action is None or (action == ALLOW and default is not None):
            return decision(code, rest)
        return code.result(action)

    asked = [simple(rule) for rule in rules]
    labels = {(len(rules), 0): given(default)}
    for at in range(len(rules) - 1, -1, -1):
        tests = asked[at]
        label = labels[at, len(tests)] = given(rules[at].action)
        for depth in range(len(tests) - 1, -1, -1):
            no = labels[after(asked, at, depth)]
            label = labels[at, depth] = condition(code, tests[depth], label, no)
    if rules:
        code.shared[chain] = labels[0, 0]
    return labels[0, 0]


def chained(parts: Iterable[Part]) -> Chain:
    """Without what says nothing, and up to what says the same of every argument."""
    found: list[Part] = []
    for rules, default in parts:
        if rules or default not in (ALLOW, None):
            found.append((rules, default))
            if not rules:
                break
    return tuple(found)


def parts_of(layer: Layer) -> dict[str, Part]:
    """What a layer says of each call that it names."""
    by_call: dict[str, list[Rule]] = {}
    for rule in layer.rules:
        by_call.setdefault(rule.syscall, []).append(rule)
    found: dict[str, Part] = {}
    for name, every in by_call.items():
        rules = deciding(Layer(tuple(every), layer.default), name)
        always = not rules[0].conditions
        found[name] = ((), rules[0].action) if always else (tuple(rules), layer.default)
    return found


def runs(layers: tuple[Layer, ...], arch: str, first: tuple[Rule, ...], x32: Action) -> list[Run]:
    """(first number, chain): equal neighbours are one; it covers all 32-bit numbers.

    x32's numbers are a run like others, so that asking for them costs other calls nothing.
    """
    named = [parts_of(layer) for layer in layers]
    unknown = chained(((), layer.unknown or layer.default) for layer in layers)
    leaves: dict[int, Chain] = {}
    for name, number in numbers(arch).items():
        before: Part = (tuple(rule for rule in first if rule.syscall == name), None)
        said = (of.get(name, ((), layer.default)) for of, layer in zip(named, layers, strict=True))
        leaves[number] = chained((before, *said))
    found: list[Run] = []
    following = 0
    for number in [*sorted(leaves), LAST]:
        if number > following and (not found or found[-1][1] != unknown):
            found.append((following, unknown))
        following = number + 1
        if number < LAST and (not found or found[-1][1] != leaves[number]):
            found.append((number, leaves[number]))
    refused: Chain = (((), x32),)
    if arch == "x86_64" and found[-1][1] != refused:
        found.append((X32_BIT, refused))
    return found


def may_pass(chain: Chain) -> bool:
    """Whether calls of a run may be let through."""
    if not chain or chain[0][0]:
        return True
    return chain[0][1] == Action("log")


def weights(parts: list[Run], arch: str) -> list[int]:
    """How much it is worth to find each run soon: the calls in it that may be let through."""
    known = sorted(numbers(arch).values())
    ends = [part[0] for part in parts[1:]] + [LAST]
    found = []
    for (first, chain), end in zip(parts, ends, strict=True):
        inside = bisect_left(known, end) - bisect_left(known, first)
        found.append(1 + may_pass(chain) * inside)
    return found


def half(sums: list[int], first: int, last: int) -> int:
    """Where runs are cut so that both sides weigh about the same; neither is empty."""
    middle = (sums[first] + sums[last]) / 2
    at = bisect_left(sums, middle, first + 1, last - 1)
    return at - (at > first + 1 and middle - sums[at - 1] < sums[at] - middle)


def exceptions(parts: list[Run], first: int, last: int) -> tuple[Run, list[Run]] | None:
    """The widest of some runs, and the others, if these are few and of one number each."""
    ends = [part[0] for part in parts[first + 1 : last + 1]] + [LAST]
    sizes = [end - part[0] for part, end in zip(parts[first:last], ends, strict=False)]
    common = parts[first + sizes.index(max(sizes))]
    others = [at for at in range(last - first) if parts[first + at][1:] != common[1:]]
    if len(others) > MOST_EXCEPTIONS or any(sizes[at] > 1 for at in others):
        return None
    return common, [parts[first + at] for at in others]


def tree(code: Code, parts: list[Run], sums: list[int], first: int, last: int) -> int:
    """A search for the run that a number is in, balanced by weight; A holds the number."""
    found = exceptions(parts, first, last)
    if found:
        common, others = found
        label = decision(code, common[1])
        for number, chain in reversed(others):
            label = code.branch(JEQ, number, decision(code, chain), label)
        return label
    middle = half(sums, first, last)
    right = tree(code, parts, sums, middle, last)
    left = tree(code, parts, sums, first, middle)
    return code.branch(JGE, parts[middle][0], right, left)


def further(layers: tuple[Layer, ...], arch: str) -> list[str]:
    """The other ABIs that every layer lets in. Raises: PolicyError for one without a table."""
    for each in (arch, *(other for layer in layers for other in layer.arches)):
        if each not in AUDIT_ARCH:
            raise PolicyError(
                f"no table of system calls for {each}; there are {', '.join(AUDIT_ARCH)}"
            )
    rest = layers[1:]
    shared = [each for each in layers[0].arches if all(each in layer.arches for layer in rest)]
    return [each for each in shared if each != arch]


@lru_cache(maxsize=64)
def join(
    layers: tuple[Layer, ...],
    arch: str,
    first: tuple[Rule, ...] = (),
    foreign: Action = KILL_PROCESS,
) -> bytes:
    """One program: each layer in turn; the first answer other than ALLOW is the answer.

    Args:
        layers: at least one; an ABI that one of them doesn't let in is foreign.
        first: what is asked before all layers, in this order; what such a rule says is final.
        foreign: what calls of other ABIs get, x32's among them.

    Raises: PolicyError, as `assemble`.
    """
    code = Code()
    refused = code.result(foreign)
    for each in (*further(layers, arch), arch):
        parts = runs(layers, each, first, foreign)
        sums = list(accumulate(weights(parts, each), initial=0))
        start = code.load(OFFSET_NR, tree(code, parts, sums, 0, len(parts)))
        refused = code.branch(JEQ, AUDIT_ARCH[each], start, refused)
    code.load(OFFSET_ARCH, refused)
    return code.bytes()


def assemble(layer: Layer, arch: str) -> bytes:
    """The program for a machine: an array of struct sock_filter.

    Raises: PolicyError for an architecture that no table knows, or a program that is too long.
    """
    return join((layer,), arch)
