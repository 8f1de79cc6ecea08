# SPDX-License-Identifier: Apache-2.0
"""A classic BPF machine: what a program answers for one call, as the kernel would run it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from attrs import frozen

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
    OFFSET_NR,
    RET,
    RETURNS,
)
from isolate.policy.rules import Action

__all__ = ["Answer", "outcomes", "run"]

SIZE = 8
DATA = 64  # sizeof(struct seccomp_data)
JSET, RET_A = 0x45, 0x16
NAMES = {value: name for name, value in RETURNS.items()}


@frozen
class Answer:
    """An action, the value that the program returned, and how many instructions it took."""

    action: Action
    value: int
    steps: int


def as_action(value: int) -> Action:
    """SECCOMP_RET_* with its data; what the kernel doesn't know is kill_process."""
    name = NAMES.get(value & 0xFFFF0000, "kill_process")
    return Action(name, min(value & 0xFFFF, 4095) if name == "errno" else 0)


def run(program: bytes, arch: int, nr: int, args: Sequence[int] = (), ip: int = 0) -> Answer:
    """Run a program on one call.

    Args:
        program: struct sock_filter after struct sock_filter.
        arch: AUDIT_ARCH_*.
        nr: the number, 32 bit.
        args: up to six, 64 bit.

    Raises: PolicyError for what is no valid program: a jump out of it, an unknown instruction.
    """
    words = [*args, *[0] * (6 - len(args))]
    mask = (1 << 64) - 1
    data = struct.pack("=IIQ6Q", nr & 0xFFFFFFFF, arch, ip & mask, *(each & mask for each in words))
    a = at = steps = 0
    while 0 <= at * SIZE < len(program):
        code, jt, jf, k = struct.unpack_from("=HBBI", program, at * SIZE)
        at, steps = at + 1, steps + 1
        if code == LD_W_ABS and k < DATA and k % 4 == 0:
            (a,) = struct.unpack_from("=I", data, k)
        elif code == AND:
            a &= k
        elif code == JA:
            at += k
        elif code in (JEQ, JGT, JGE, JSET):
            holds = {JEQ: a == k, JGT: a > k, JGE: a >= k, JSET: bool(a & k)}[code]
            at += jt if holds else jf
        elif code in (RET, RET_A):
            value = k if code == RET else a
            return Answer(as_action(value), value, steps)
        else:
            raise PolicyError(f"instruction {at - 1} is unknown: {code:#x} {k:#x}")
    raise PolicyError(f"the program ends without a return, at instruction {at}")


def outcomes(
    program: bytes, arch: int, nr: int, known: Mapping[int, int] | None = None
) -> frozenset[Action]:
    """Every action that a call can get, whatever its arguments.

    Tests of arguments are taken both ways, so it may name one that no arguments lead to, and never
    leaves one out. Raises: PolicyError, as `run`.

    Args:
        known: words of struct seccomp_data that are given, by their offset.
    """
    found, seen = set(), set()
    ahead: list[tuple[int, int | None]] = [(0, 0)]  # an instruction; A, None where it can be any
    while ahead:
        state = ahead.pop()
        at, a = state
        if state in seen:
            continue
        seen.add(state)
        if not 0 <= at * SIZE < len(program):
            raise PolicyError(f"the program ends without a return, at instruction {at}")
        code, jt, jf, k = struct.unpack_from("=HBBI", program, at * SIZE)
        if code == LD_W_ABS and k < DATA and k % 4 == 0:
            given = {**(known or {}), OFFSET_NR: nr & LOW, OFFSET_ARCH: arch}
            ahead.append((at + 1, given.get(k)))
        elif code == AND:
            ahead.append((at + 1, None if a is None else a & k))
        elif code == JA:
            ahead.append((at + 1 + k, a))
        elif code in (JEQ, JGT, JGE, JSET):
            ways = {True: jt, False: jf}
            if a is not None:
                holds = {JEQ: a == k, JGT: a > k, JGE: a >= k, JSET: bool(a & k)}[code]
                ways = {holds: ways[holds]}
            ahead += [(at + 1 + way, a) for way in ways.values()]
        elif code == RET:
            found.add(as_action(k))
        else:
            raise PolicyError(f"instruction {at} is unknown: {code:#x} {k:#x}")
    return frozenset(found)
