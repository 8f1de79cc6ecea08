# SPDX-License-Identifier: Apache-2.0
"""A classic BPF machine: what a program answers for one call, as the kernel would run it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from attrs import frozen

from isolate.errors import PolicyError
from isolate.plan.bpf.assemble import AND, JA, JEQ, JGE, JGT, LD_W_ABS, RET, RETURNS
from isolate.policy.rules import Action

__all__ = ["Answer", "run"]

SIZE = 8
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
        if code == LD_W_ABS and k <= len(data) - 4 and k % 4 == 0:
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
