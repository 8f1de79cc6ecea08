# SPDX-License-Identifier: Apache-2.0
"""Is one filter at least as strict as another? Told exactly, with a call for each answer of no."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from isolate.abi.syscalls import AUDIT_ARCH, numbers
from isolate.plan.bpf.assemble import JEQ, LOW, OFFSET_ARCH, OFFSET_NR, assemble
from isolate.plan.bpf.diagram import Diagrams
from isolate.plan.bpf.evaluate import run
from isolate.plan.bpf.symbolic import call_of, compared, members, together, word
from isolate.policy.findings import Call, Wider
from isolate.policy.rules import ALLOW, STRICTNESS, Action
from isolate.policy.seccomp import SeccompFilter

__all__ = ["answered", "compare", "compare_programs", "known_calls", "native", "programs"]


def native(arch: str | None) -> str:
    """The architecture that is asked about: this machine's, unless one is named."""
    return arch or os.uname().machine


def programs(wanted: SeccompFilter, arch: str | None) -> tuple[bytes, ...]:
    """Of each layer."""
    return tuple(assemble(layer, native(arch)) for layer in wanted.layers)


def known_calls(space: Diagrams) -> int:
    """Where the architecture has a table and the number is in it."""
    parts = []
    for arch, audit in AUDIT_ARCH.items():
        here = compared(space, JEQ, OFFSET_ARCH, LOW, audit)
        parts.append(space.both(here, members(space, OFFSET_NR, list(numbers(arch).values()))))
    return space.either(parts)


def answered(installed: Sequence[bytes], call: Call) -> Action:
    """What the kernel does when all are installed; of equal strictness the last one's data."""
    found = [ALLOW]
    for program in reversed(installed):
        found.append(run(program, call.audit, call.number, call.args).action)
    return min(found, key=lambda action: STRICTNESS.index(action.name))


def compare_programs(ours: Sequence[bytes], theirs: Sequence[bytes]) -> tuple[Wider, ...]:
    """As `compare`, for programs."""
    space = Diagrams()
    both = together(space, ours), together(space, theirs)
    wider = space.mapped(both, lambda mine, yours: int(mine > yours))
    found = list(calls_of(space, wider))
    unknown = space.without(wider, known_calls(space))
    if unknown != space.no:
        found.append(call_of(space, unknown))
    return tuple(Wider(call, answered(ours, call), answered(theirs, call)) for call in found)


def calls_of(space: Diagrams, test: int) -> Iterator[Call]:
    """For each known call of each architecture for which a test can hold, one that shows it."""
    for arch, audit in AUDIT_ARCH.items():
        here = space.descend(test, word(OFFSET_ARCH, audit))
        if here == space.no:
            continue
        for number in numbers(arch).values():
            args = space.descend(here, word(OFFSET_NR, number))
            if args != space.no:
                yield call_of(space, args, audit, number)


def compare(
    ours: SeccompFilter, theirs: SeccompFilter, arch: str | None = None
) -> tuple[Wider, ...]:
    """Where `ours` is less strict than `theirs`: one example for each call, in order of numbers.

    Empty: there is no call, no argument and no architecture for which it is; that is a proof, made
    over what the two programs answer for every call, not a sample. A different errno is as strict.

    Raises: Undecided, if the filters have too many cases; PolicyError as `assemble`.
    """
    return compare_programs(programs(ours, arch), programs(theirs, arch))
