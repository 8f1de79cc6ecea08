# SPDX-License-Identifier: Apache-2.0
"""A plan as a table that a person reads."""

from __future__ import annotations

from isolate.abi.flags import namespace_names
from isolate.plan.model import Op, Plan

__all__ = ["explain"]


def asked(origin: object) -> str:
    """The primitive's name."""
    return origin if isinstance(origin, str) else type(origin).__name__


def rows(ops: tuple[Op, ...]) -> list[str]:
    """One line an op."""
    return [
        f"  {i:3}  {op.phase.name:<12} {op.code.name:<18} {asked(op.origin):<14} {op.about}"
        for i, op in enumerate(ops)
    ]


def explain(plan: Plan) -> str:
    """Steps of the parent, ops of init, ops of the program, limits, and what holds each promise."""
    lines = ["the parent:"]
    for step in plan.steps:
        lines.append(f"       {step.kind:<12} {asked(step.origin):<14} {step.about}")
    if plan.template:
        lines += ["the template, made once, copied by the clone:", *rows(plan.template)]
    if plan.joining:
        lines += ["a first isolate-init, that joins and clones itself:", *rows(plan.joining)]
    lines += [f"isolate-init, cloned with {namespace_names(plan.clone_flags)}:", *rows(plan.setup)]
    if plan.program:
        lines += ["the program:", *rows(plan.program)]
    lines.append("guarantees:")
    lines += [f"       {g.name:<14} {g.verdict:<9} {g.by}" for g in plan.guarantees]
    return "\n".join(lines) + "\n"
