# SPDX-License-Identifier: Apache-2.0
"""A filter's program for a person: labels, calls by name, tests of arguments, actions, reasons."""

from __future__ import annotations

import textwrap
from collections import defaultdict

from isolate.abi.syscalls import ARCHES, AUDIT_ARCH, X32_BIT, name_of, names
from isolate.plan.bpf.assemble import (
    AND,
    JA,
    JEQ,
    JGE,
    JGT,
    LD_W_ABS,
    LOW,
    OFFSET_ARCH,
    OFFSET_NR,
    RET,
    assemble,
)
from isolate.plan.bpf.compare import native
from isolate.plan.bpf.evaluate import JSET, as_action
from isolate.plan.bpf.symbolic import LOWER, UPPER, Instruction, Symbol, following, instructions
from isolate.policy.rules import KILL_PROCESS, Compare, Condition, Layer
from isolate.policy.seccomp import SeccompFilter, deciding

__all__ = ["disassemble", "listing", "told"]

WIDTH = 100
WORDS = {
    OFFSET_ARCH: "arch",
    OFFSET_NR: "nr",
    8: "ip.low",
    12: "ip.high",
    **{offset: f"arg{i}.high" for i, offset in enumerate(UPPER)},
    **{offset: f"arg{i}.low" for i, offset in enumerate(LOWER)},
}
SIGNS = {JEQ: "==", JGT: ">", JGE: ">=", JSET: "&"}


def told(test: Condition) -> str:
    """`arg1:32 == 0x5412`; ":32" where the upper half is not looked at."""
    left = f"arg{test.index}" + (":32" if test.width == 32 else "")
    if test.compare is Compare.MASKED_EQ:
        return f"{left} & {test.mask & (1 << test.width) - 1:#x} == {test.value:#x}"
    return f"{left} {test.compare.value} {test.value:#x}"


def explored(code: list[Instruction], audit: int) -> set[tuple[int, Symbol]]:
    """The instructions that a call by an architecture can come to, with what A may be there."""
    found: set[tuple[int, Symbol]] = set()
    ahead: list[tuple[int, Symbol]] = [(0, None)]
    while ahead:
        at, a = ahead.pop()
        if (at, a) in found:
            continue
        found.add((at, a))
        ways = following(at, *code[at], a)
        if code[at][0] == JEQ and a == (OFFSET_ARCH, LOW):
            ways = ways[:1] if code[at][3] == audit else ways[1:]
        ahead += ways
    return found


def entry(code: list[Instruction], audit: int, number: int) -> int:
    """Where the tests of the architecture and the number are over."""
    at = a = 0
    while True:
        op, jt, jf, k = code[at]
        if op == LD_W_ABS and k in (OFFSET_ARCH, OFFSET_NR):
            at, a = at + 1, audit if k == OFFSET_ARCH else number
        elif op == JA:
            at += 1 + k
        elif op in (JEQ, JGT, JGE):
            at += 1 + (jt if {JEQ: a == k, JGT: a > k, JGE: a >= k}[op] else jf)
        else:
            return at


def answer_text(layer: Layer, call: str) -> tuple[str, ...]:
    """What the rules say of a call, a line each."""
    lines = []
    for rule in deciding(layer, call):
        tests = " and ".join(told(test) for test in rule.conditions)
        head = f"{rule.action} if {tests}" if tests else str(rule.action)
        lines.append(f"{head}: {rule.reason}" if rule.reason else head)
        if not tests:
            return tuple(lines)
    return (*lines, f"{layer.default} {'otherwise' if lines else 'by default'}")


def notes(code: list[Instruction], layer: Layer, arches: tuple[str, ...]) -> dict[int, list[str]]:
    """For an instruction: which calls come to it when their number is known, and why."""
    groups: dict[tuple[int, tuple[str, ...]], list[str]] = defaultdict(list)
    unknown = (str(layer.unknown or layer.default),)
    for arch in arches:
        audit, mark = AUDIT_ARCH[arch], f"@{arch}" if arch != arches[0] else ""
        for number, name in sorted(names(arch).items()):
            groups[entry(code, audit, number), answer_text(layer, name)].append(name + mark)
        beyond = entry(code, audit, max(names(arch)) + 1)
        groups[beyond, unknown].append(f"(numbers that no table knows){mark}")
        if arch == "x86_64":
            groups[entry(code, audit, X32_BIT), (str(KILL_PROCESS),)].append("(x32)")
    groups[entry(code, 0, 0), (str(KILL_PROCESS),)].append("(any other architecture)")
    found: dict[int, list[str]] = defaultdict(list)
    for (at, answer), calls in groups.items():
        text = " ".join(calls) + (f" -> {answer[0]}" if len(answer) == 1 else " ->")
        found[at] += textwrap.wrap(text, WIDTH, initial_indent="; ", subsequent_indent=";   ")
        found[at] += [f";     {line}" for line in answer] if len(answer) > 1 else []
    return found


def constant(k: int, a: Symbol, arch: str | None) -> str:
    """What A is compared with: the name of an architecture or of a call where it is one."""
    if a is None or a[0] not in (OFFSET_ARCH, OFFSET_NR):
        return f"{k:#x}"
    if a[0] == OFFSET_ARCH:
        return next((each for each in ARCHES if AUDIT_ARCH[each] == k), f"{k:#x}")
    if k == X32_BIT:
        return f"{k:#x} (x32)"
    name = name_of(arch, k) if arch else None
    return f"{k} ({name})" if name else str(k)


def text_of(at: int, instruction: Instruction, a: Symbol, arch: str | None) -> str:
    """One instruction."""
    op, jt, jf, k = instruction
    if op == LD_W_ABS:
        return f"load {WORDS[k]}"
    if op == AND:
        return f"and {k:#x}"
    if op == JA:
        return f"goto L{at + 1 + k}"
    if op == RET:
        return f"return {as_action(k)}"
    left = "A" if a is None else WORDS[a[0]] + (f" & {a[1]:#x}" if a[1] != LOW else "")
    test = f"{left} {SIGNS[op]} {constant(k, a, arch)}"
    if jf == 0:
        return f"if {test} goto L{at + 1 + jt}"
    if jt == 0:
        return f"if not {test} goto L{at + 1 + jf}"
    return f"if {test} goto L{at + 1 + jt} else goto L{at + 1 + jf}"


def targets(code: list[Instruction]) -> set[int]:
    """The instructions that a jump goes to, beyond the next."""
    found = set()
    for at, (op, jt, jf, k) in enumerate(code):
        jumps = (k,) if op == JA else (jt, jf) if op in SIGNS else ()
        found |= {at + 1 + jump for jump in jumps if jump}
    return found


def listing(layer: Layer, arch: str) -> list[str]:
    """The lines of one program."""
    code = instructions(assemble(layer, arch))
    arches = (arch, *(each for each in layer.arches if each != arch))
    held: dict[int, set[Symbol]] = defaultdict(set)
    owner: dict[int, set[str]] = defaultdict(set)
    for each in arches:
        for at, a in explored(code, AUDIT_ARCH[each]):
            held[at].add(a)
            owner[at].add(each)
    comments, labels = notes(code, layer, arches), targets(code)
    lines = [f"filter {layer.name!r} on {' and '.join(arches)}: {len(code)} instructions"]
    for at, instruction in enumerate(code):
        a = next(iter(held[at])) if len(held[at]) == 1 else None
        where = next(iter(owner[at])) if len(owner[at]) == 1 else None
        lines += comments.get(at, [])
        label = f"L{at}:" if at in labels else ""
        lines.append(f"{label:>6} {at:4}  {text_of(at, instruction, a, where)}")
    return lines


def disassemble(wanted: SeccompFilter, arch: str | None = None) -> str:
    """Every program of a filter as text, in the order of installation.

    Comments (";") stand before the instruction at which a call's own tests begin: the calls that
    come there, and what the rules say of them, with their reasons.

    Raises: PolicyError for an architecture that no table knows.
    """
    return "\n\n".join("\n".join(listing(each, native(arch))) for each in wanted.layers) + "\n"
