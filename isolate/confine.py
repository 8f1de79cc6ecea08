# SPDX-License-Identifier: Apache-2.0
"""`confine`: the one verb that changes the calling process, for good."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

from attrs import evolve

from isolate import native
from isolate.abi.caps import mask
from isolate.abi.flags import RLIMITS
from isolate.abi.ops import OpCode, Phase
from isolate.errors import HostLacks, LaunchError, PolicyError
from isolate.host.facts import Host
from isolate.host.probe import probe
from isolate.plan.compile import in_order
from isolate.plan.encode import encode
from isolate.plan.hints import hint
from isolate.plan.lower import landlock, seccomp
from isolate.plan.lower.draft import Draft
from isolate.plan.lower.seccomp_notify import plain
from isolate.plan.model import Guarantee, Op
from isolate.policy import ambient
from isolate.policy.capabilities import CapabilitySet
from isolate.policy.landlock import Landlock
from isolate.policy.policy import Policy
from isolate.policy.rlimit import Rlimit
from isolate.policy.seccomp import SeccompFilter

__all__ = ["confine"]

KINDS = (Landlock, SeccompFilter, CapabilitySet, Rlimit)
TSYNC, TSYNC_ESRCH = 1, 16  # SECCOMP_FILTER_FLAG_*
CAP_SETPCAP = 8


def checked(policy: Policy) -> None:
    """Raises: PolicyError for what can't be done to a running process."""
    for each in policy:
        if not isinstance(each, KINDS):
            names = ", ".join(kind.__name__ for kind in KINDS)
            raise PolicyError(
                f"confine takes {names}; a {type(each).__name__} needs a process of its own: "
                "isolate.run, isolate.call"
            )
    access = policy.get(Landlock)
    if access is not None and access.view:
        raise PolicyError("Landlock.of_view() rules a box's mounts; this process has no box")
    if not policy.primitives:
        raise PolicyError("confine needs at least one primitive")

ENDING_SECONDS = 0.2


def threads() -> int:
    """How many threads this process has, Python's or not. Raises: HostLacks."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError as error:
        why = f"the threads of this process can't be counted: {error}"
        raise HostLacks("threads", why, "mount /proc, and leave it readable") from error


def of_one_thread(policy: Policy) -> list[str]:
    """The primitives that the kernel puts on one thread alone."""
    return [type(each).__name__ for each in policy if isinstance(each, (Landlock, CapabilitySet))]


def refuse_threads(policy: Policy) -> None:
    """Raises: HostLacks, before anything is changed, if other threads would stay as they are.

    With one thread, which is this one, no other can begin meanwhile.
    """
    single, count = of_one_thread(policy), threads()
    end = time.monotonic() + ENDING_SECONDS
    while single and count > 1 and threading.active_count() == 1 and time.monotonic() < end:
        time.sleep(0.001)  # a thread that was joined may still be on its way out of the kernel
        count = threads()
    if single and count > 1:
        raise HostLacks(
            "threads",
            f"{' and '.join(single)} can confine the calling thread alone, and this process has "
            f"{count}: the others would stay free",
            "call confine() before any thread is started; a SeccompFilter and an Rlimit hold for "
            "all threads at any time",
        )


def has_setpcap() -> bool:
    """Whether the bounding set can be emptied; under no_new_privs it gives nothing any more."""
    status = Path("/proc/thread-self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bool(found and int(found[1], 16) >> CAP_SETPCAP & 1)


def lower_rlimits(limits: Rlimit, draft: Draft) -> None:
    """Never above what is in force: the op takes the smaller."""
    for name, number in RLIMITS.items():
        value = getattr(limits, name)
        if value is not None:
            about = f"set RLIMIT_{name.strip('_').upper()} to {value[0]}"
            draft.op(OpCode.RLIMIT, Phase.LIMIT, about, limits, nums=(number, *value))


def lower_capabilities(caps: CapabilitySet, draft: Draft) -> None:
    """Bounding set, the three sets, ambient."""
    phase = Phase.CREDENTIALS
    if has_setpcap():
        draft.op(OpCode.BOUNDING, phase, "drop from the bounding set", caps,
                 nums=(mask(caps.bounding),))  # fmt: skip
    sets = (mask(caps.effective), mask(caps.permitted), mask(caps.inheritable))
    draft.op(OpCode.CAPSET, phase, "set capabilities", caps, nums=sets)
    draft.op(OpCode.AMBIENT, phase, "set ambient capabilities", caps, nums=(mask(caps.ambient),))


def lower_filters(wanted: SeccompFilter, draft: Draft) -> None:
    """On all threads at once, or on none."""
    if seccomp.usable(draft):
        return
    layers = tuple(plain(layer) for layer in wanted.layers)
    for layer, program in seccomp.in_order(layers, draft.host.arch):
        size = len(program) // seccomp.INSTRUCTION
        draft.op(
            OpCode.SECCOMP, Phase.EXEC,
            f"install the filter {layer.name!r} of {size} instructions on all threads", wanted,
            program, nums=(TSYNC | TSYNC_ESRCH,),
        )  # fmt: skip


# What only makes a ruleset, and changes nothing that is in force.
RULES = (OpCode.LANDLOCK_CREATE, OpCode.LANDLOCK_PATH, OpCode.LANDLOCK_PORT)


def rules_first(op: Op) -> Op:
    """A ruleset is made before anything is given up: its path may be missing."""
    return evolve(op, phase=Phase.FD) if op.code in RULES else op


def lowered(policy: Policy, host: Host) -> tuple[tuple[Op, ...], tuple[Guarantee, ...]]:
    """The ops for this thread, and what they promise. Raises: HostLacks, PolicyError."""
    # No supervisor of refused calls: it would be a part of what is confined.
    alone = evolve(host, seccomp_flags=(), seccomp_why="confine() has no supervisor outside")
    draft = Draft(policy, alone)
    limits, caps = policy.get(Rlimit), policy.get(CapabilitySet)
    access, wanted = policy.get(Landlock), policy.get(SeccompFilter)
    if limits is not None:
        lower_rlimits(limits, draft)
        draft.promise("rlimits", "setrlimit")
    if caps is not None:
        lower_capabilities(caps, draft)
        draft.promise("caps", "capset")
    draft.op(OpCode.NO_NEW_PRIVS, Phase.LSM, "set no_new_privs", "confine")
    draft.promise("no_new_privs", "prctl")
    if access is not None:
        landlock.lower_box(access, draft)
        landlock.lower(access, draft, has_no_new_privs=True)
    if wanted is not None:
        seccomp.lower_box(wanted, draft)
        lower_filters(wanted, draft)
    return in_order([rules_first(op) for op in draft.ops]), tuple(draft.guarantees)


def confine(*primitives: Any, weaken: Any = ()) -> tuple[Guarantee, ...]:
    """Confine the calling process, irrevocably; it and all that it starts are held from now on.

    Args:
        *primitives: Landlock, SeccompFilter, CapabilitySet, Rlimit; no_new_privs is always set.
        weaken: names of guarantees that this machine may hold less well.

    Returns: what is held, and how.
    Raises: PolicyError, HostLacks: nothing was changed. LaunchError: the steps before the one that
        it names are in force; a caller that can't go on half confined should end.

    Threads: seccomp and rlimits hold for all threads. Landlock and capabilities are the calling
    thread's, so a process that has others is refused.
    """
    policy = Policy(*primitives, weaken=weaken)
    checked(policy)
    with ambient.outside():  # under a filter it asks in a copy of this process
        host = probe()
    ops, guarantees = lowered(policy, host)
    refuse_threads(policy)
    blob = encode(ops)
    try:
        native.enter(blob.blob, [])
    except native.EnterError as error:
        op = ops[min(error.step, len(ops) - 1)]
        number = error.errno or 0
        done = (each.about for each in ops[: error.step] if each.code not in RULES)
        held = ", ".join(done) or "nothing"
        why = hint(op, number, None)
        told = f"in force are: {held}" + (f"; {why}" if why else "")
        raise LaunchError(error.step, op, number, told, steps=len(ops)) from error
    return guarantees
