# SPDX-License-Identifier: Apache-2.0
"""`SeccompFilter` into BPF programs that are installed as the last thing before exec."""

from __future__ import annotations

from functools import lru_cache

from isolate.abi.ops import OpCode, Phase
from isolate.abi.syscalls import AUDIT_ARCH, numbers
from isolate.errors import PolicyError
from isolate.plan.bpf.assemble import assemble
from isolate.plan.bpf.evaluate import outcomes
from isolate.plan.lower.draft import Draft
from isolate.policy.rules import Layer
from isolate.policy.seccomp import SeccompFilter

__all__ = ["lower", "lower_box"]

INSTRUCTION = 8
# After the first filter a program's own process calls `seccomp` for the next one, execve, and,
# where that fails, exit_group; the report that goes before it may be lost.
LAST_CALLS = ("execve", "exit_group")
HINT = "use a kernel with CONFIG_SECCOMP_FILTER (every distribution's has it)"


def allows(program: bytes, arch: str, call: str) -> bool:
    """Whether a filter lets a call through, whatever its arguments: proved, not tried."""
    found = outcomes(program, AUDIT_ARCH[arch], numbers(arch)[call])
    return all(action.name in ("allow", "log") for action in found)


@lru_cache(maxsize=64)
def in_order(layers: tuple[Layer, ...], arch: str) -> tuple[tuple[Layer, bytes], ...]:
    """Programs in an order in which each can still be installed.

    Raises: PolicyError, where a filter would stop the launch itself, by name.
    """
    found = [(layer, assemble(layer, arch)) for layer in layers]
    for layer, program in found:
        for call in LAST_CALLS:
            if not allows(program, arch, call):
                raise PolicyError(
                    f"the seccomp filter {layer.name!r} refuses {call}, by which the program "
                    f'itself is started: add "{call}" to what it allows'
                )
    found.sort(key=lambda each: not allows(each[1], arch, "seccomp"))
    closed = [layer.name for layer, program in found if not allows(program, arch, "seccomp")]
    if len(closed) > 1:
        raise PolicyError(
            f"the seccomp filters {', '.join(map(repr, closed))} all refuse the call seccomp, so "
            'that only one of them could be installed: add "seccomp" to what they allow'
        )
    return tuple(found)


def usable(draft: Draft) -> str:
    """Why no filter can be installed here; empty if it can."""
    if "errno" not in draft.host.seccomp:
        return "the kernel has no seccomp filters"
    if draft.host.arch not in AUDIT_ARCH:
        return f"there is no table of system calls for {draft.host.arch}"
    return ""


def lower_box(wanted: SeccompFilter, draft: Draft) -> None:
    """The promise, and every reason why it can't be held. Raises: HostLacks, PolicyError."""
    why = usable(draft)
    if why:
        draft.lacks("seccomp", why, HINT)
        return
    programs = in_order(wanted.layers, draft.host.arch)
    actions = {rule.action.name for layer in wanted.layers for rule in layer.rules}
    actions |= {layer.default.name for layer in wanted.layers}
    if "notify" in actions:
        raise PolicyError("a filter's action `notify` has no supervisor yet: use Errno(...)")
    missing = sorted(actions - set(draft.host.seccomp))
    if missing:
        draft.lacks("seccomp", f"the kernel lacks the action {', '.join(missing)}", HINT)
        return
    size = sum(len(program) for _, program in programs) // INSTRUCTION
    draft.promise("seccomp", f"{len(programs)} filter(s), {size} instructions")


def lower(wanted: SeccompFilter, draft: Draft, has_no_new_privs: bool) -> None:
    """The ops of one program; no_new_privs is set by it where nothing else does."""
    if usable(draft):
        return
    if not has_no_new_privs:
        draft.op(OpCode.NO_NEW_PRIVS, Phase.LSM, "set no_new_privs", wanted)
    for layer, program in in_order(wanted.layers, draft.host.arch):
        size = len(program) // INSTRUCTION
        draft.op(
            OpCode.SECCOMP, Phase.EXEC,
            f"install the filter {layer.name!r} of {size} instructions", wanted, program, nums=(0,),
        )  # fmt: skip
