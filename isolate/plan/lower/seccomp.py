# SPDX-License-Identifier: Apache-2.0
"""`SeccompFilter` into BPF programs that are installed as the last thing before exec."""

from __future__ import annotations

from functools import lru_cache

from isolate.abi.ops import OpCode, Phase
from isolate.abi.syscalls import AUDIT_ARCH, numbers
from isolate.errors import PolicyError
from isolate.host.facts import Host
from isolate.plan.bpf.assemble import assemble
from isolate.plan.bpf.evaluate import outcomes
from isolate.plan.lower.draft import Draft
from isolate.plan.lower.seccomp_notify import FLAG_NEW_LISTENER, Listening, listening, plain
from isolate.plan.model import Guarantee, Verdict, Watch
from isolate.policy.rules import Layer
from isolate.policy.seccomp import EVERYTHING, SeccompFilter

__all__ = ["heard", "lower", "lower_box"]

INSTRUCTION = 8
FLAG_WAIT_KILLABLE_RECV = 32  # a signal doesn't interrupt a call that the supervisor has seen
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
    actions.discard("notify")  # without a listener such calls are refused
    missing = sorted(actions - set(draft.host.seccomp))
    if missing:
        draft.lacks("seccomp", f"the kernel lacks the action {', '.join(missing)}", HINT)
        return
    size = sum(len(program) for _, program in programs) // INSTRUCTION
    draft.promise("seccomp", f"{len(programs)} filter(s), {size} instructions")
    if wanted.silent >= EVERYTHING and not wanted.handlers:
        return
    why = deaf(wanted, draft.host)
    if not why:
        draft.watch = Watch(
            programs=listening(wanted, draft.host.arch).policy,
            arch=draft.host.arch,
            handlers=wanted.handlers,
            silent=wanted.silent,
            lethal=wanted.lethal,
            observe=wanted.observed,
        )
        draft.promise("reports", "user notification: refused calls are in `violations`")
    elif wanted.handlers:
        draft.lacks("handlers", why, "without them the calls are refused")
    else:
        # Refused all the same, so nothing that holds is given up: told, not asked for.
        draft.guarantees.append(Guarantee("reports", Verdict.WEAKENED, why))


def deaf(wanted: SeccompFilter, host: Host) -> str:
    """Why refused calls can't be reported here; empty if they can, or nobody asked."""
    if "notify" not in host.seccomp:
        return "the kernel has no user notification for seccomp (Linux 5.0)"
    if "new_listener" not in host.seccomp_flags:
        return host.seccomp_why or "no filter of ours may have a listener here"
    try:
        listening(wanted, host.arch)
    except PolicyError as error:
        return str(error)
    return ""


def heard(wanted: SeccompFilter, host: Host) -> Listening | None:
    """The programs with a listener, or None where there is none."""
    if (wanted.silent >= EVERYTHING and not wanted.handlers) or deaf(wanted, host):
        return None
    return listening(wanted, host.arch)


def lower(wanted: SeccompFilter, draft: Draft, has_no_new_privs: bool) -> None:
    """The ops of one program; no_new_privs is set by it where nothing else does."""
    if usable(draft):
        return
    if not has_no_new_privs:
        draft.op(OpCode.NO_NEW_PRIVS, Phase.LSM, "set no_new_privs", wanted)
    plain_ones = tuple(plain(layer) for layer in wanted.layers)
    filters = [(layer.name, program) for layer, program in in_order(plain_ones, draft.host.arch)]
    found = heard(wanted, draft.host)
    if found is not None:
        flags = FLAG_NEW_LISTENER
        if "wait_killable_recv" in draft.host.seccomp_flags:
            flags |= FLAG_WAIT_KILLABLE_RECV
        size = len(found.main) // INSTRUCTION
        names = " and ".join(repr(layer.name) for layer in wanted.layers)
        draft.op(
            OpCode.SECCOMP_NOTIFY, Phase.EXEC,
            f"install the filter {names} of {size} instructions, with a listener", wanted,
            found.main,
            slots=("notify",), nums=(flags, found.doors),
        )  # fmt: skip
        filters = list(found.further)
    for name, program in filters:
        size = len(program) // INSTRUCTION
        draft.op(
            OpCode.SECCOMP, Phase.EXEC,
            f"install the filter {name!r} of {size} instructions", wanted, program, nums=(0,),
        )  # fmt: skip
