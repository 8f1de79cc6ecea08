# SPDX-License-Identifier: Apache-2.0
"""What must hold for every plan, whatever it was made from."""

from __future__ import annotations

from isolate.abi.ops import OpCode
from isolate.errors import PolicyError
from isolate.plan.model import Op, Plan

__all__ = ["verify"]


def monotonic(ops: tuple[Op, ...]) -> bool:
    """Phases never go down."""
    return all(a.phase <= b.phase for a, b in zip(ops, ops[1:], strict=False))


def before(ops: tuple[Op, ...], first: OpCode, second: OpCode) -> bool:
    """Where both are there, every `first` is before every `second`."""
    firsts = [i for i, op in enumerate(ops) if op.code is first]
    seconds = [i for i, op in enumerate(ops) if op.code is second]
    return not firsts or not seconds or max(firsts) < min(seconds)


def verify(plan: Plan) -> None:
    """Check the order that security rests on.

    Raises: PolicyError listing all that is wrong.
    """
    wrong = []
    if not monotonic(plan.setup) or not monotonic(plan.program):
        wrong.append("a phase goes down")
    if plan.program and plan.program[-1].code is not OpCode.EXEC:
        wrong.append("the program's last op is not EXEC")
    orders = (
        (OpCode.BOUNDING, OpCode.SETRESUID),
        (OpCode.SETRESGID, OpCode.SETRESUID),
        (OpCode.SETRESUID, OpCode.CAPSET),
        (OpCode.CAPSET, OpCode.NO_NEW_PRIVS),
        (OpCode.CLOSE_FROM, OpCode.DUP2),
        (OpCode.NO_NEW_PRIVS, OpCode.SECCOMP),
        (OpCode.READY, OpCode.SECCOMP),
        (OpCode.SECCOMP, OpCode.EXEC),
    )
    for first, second in orders:
        if not before(plan.program, first, second):
            wrong.append(f"{second.name} before {first.name}")
    for part in ("MOUNT_NEW", "BIND", "MASK"):
        for ops, last in ((plan.setup, OpCode.PIVOT_ROOT), (plan.setup, OpCode.ROOT_LEAVE),
                          (plan.template, OpCode.PIVOT_ROOT)):  # fmt: skip
            if not before(ops, OpCode[part], last):
                wrong.append(f"{last.name} before {part}")
    if any(op.code is OpCode.STEWARD for op in (*plan.setup[:-1], *plan.program, *plan.template)):
        wrong.append("STEWARD is not the set-up's last op")
    if plan.template and plan.template[-1].code is not OpCode.PIVOT_ROOT:
        wrong.append("the template's last op is not PIVOT_ROOT")
    if bool(plan.template) != any(op.code is OpCode.ROOT_HERE for op in plan.setup):
        wrong.append("a template without ROOT_HERE, or ROOT_HERE without a template")
    if wrong:
        raise PolicyError(*(f"the plan is wrong: {each}" for each in wrong))
