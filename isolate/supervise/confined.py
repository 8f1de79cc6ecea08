# SPDX-License-Identifier: Apache-2.0
"""A box's AppArmor profile: seen to before the clone, put into ops, confirmed after exec.

The op in the child reads back what the kernel will enter at exec, and the kernel then enters it or
refuses the exec: that holds before the program's first instruction. The parent looks once more,
from outside, at the label of the process that runs.
"""

from __future__ import annotations

import errno
import re
import select
import time
from collections.abc import Callable
from pathlib import Path

from attrs import evolve

from isolate.abi.ops import OpCode
from isolate.errors import HostLacks, LaunchError
from isolate.plan.lower.apparmor import PLACEHOLDER
from isolate.plan.model import Guarantee, Op, Plan, Program, Step, Verdict
from isolate.policy.apparmor import AppArmorProfile
from isolate.supervise import apparmor
from isolate.supervise.process import Process
from isolate.supervise.start import Init

__all__ = ["confirm", "confirm_first", "named", "named_program", "prepare", "weakened"]

CONFIRM_SECONDS = 10.0
WEAK = "!"  # what stands for a profile that may be done without, and is


def prepare(step: Step) -> tuple[str, apparmor.Temporary | None]:
    """(the profile's name, what to close at the end), for a step of kind "apparmor".

    Raises: HostLacks, unless the policy lets it be weakened: then the name is WEAK and the reason.
    """
    profile, weak = step.args
    try:
        if profile.is_temporary:
            made = apparmor.Temporary.make(profile)
            return made.name, made
        look(profile)
        return str(profile.name), None
    except HostLacks as error:
        if not weak:
            raise
        return WEAK + error.why, None


def look(profile: AppArmorProfile) -> None:
    """Raises: HostLacks, if a named profile is not there, or in another mode, as far as we see."""
    try:
        apparmor.loaded()
    except HostLacks:
        return  # an ordinary user may not look: the op of the child will tell
    apparmor.expect(str(profile.name), profile.mode)


def weakened(plan: Plan, name: str) -> Plan:
    """The plan, saying so if the profile is done without."""
    if not name.startswith(WEAK):
        return plan
    kept = [each for each in plan.guarantees if each.name != "apparmor"]
    kept.append(Guarantee("apparmor", Verdict.WEAKENED, name[len(WEAK) :]))
    return evolve(plan, guarantees=tuple(kept))


ENTERS = (OpCode.APPARMOR, OpCode.STEWARD)


def named(ops: tuple[Op, ...], name: str) -> tuple[Op, ...]:
    """Ops with the box's own profile in them, or without where that is weakened.

    The same tuple where nothing is to be put in: what is encoded is kept by identity.
    """
    if not any(op.code in ENTERS for op in ops):
        return ops
    if name.startswith(WEAK):
        return tuple(op for op in ops if op.code not in ENTERS)
    if not any(op.code in ENTERS and PLACEHOLDER.encode() in joined(op) for op in ops):
        return ops
    return tuple(own(op, name) if op.code in ENTERS else op for op in ops)


def joined(op: Op) -> bytes:
    """Its plain strings."""
    return b" ".join(each for each in op.strs if isinstance(each, bytes))


def named_program(program: Program, name: str) -> Program:
    """The same for a program; itself where there is nothing to put in."""
    body = named(program.body, name)
    return program if body is program.body else Program(body, program.exec)


def own(op: Op, name: str) -> Op:
    """One op with the name in the placeholder's place."""
    old, new = PLACEHOLDER.encode(), name.encode()
    strs = tuple(each.replace(old, new) if isinstance(each, bytes) else each for each in op.strs)
    return evolve(op, strs=strs, about=op.about.replace(PLACEHOLDER, name))


def host_pid(pidfd: int) -> int:
    """The pid as our /proc shows it; -1 when it has ended."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    found = re.search(r"^Pid:\s*(-?\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else -1


def ended(pidfd: int) -> bool:
    """Whether the process is over: then its pid may be somebody else's."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def label(pidfd: int) -> str | None:
    """A process's label; None if it has ended."""
    pid = host_pid(pidfd)
    if pid <= 0:
        return None
    try:
        found = apparmor.label_of(pid)
    except ProcessLookupError:
        return None
    return None if ended(pidfd) else found


def entered(seen: str, wanted: str, stacked: bool) -> bool:
    """Whether a label is the profile; a stack names it among others, and shows one mode."""
    if seen == wanted:
        return True
    if not stacked:
        return False
    names, _, mode = seen.rpartition(" ")
    name, _, wanted_mode = wanted.rpartition(" ")
    return name in names.split("//&") and mode == wanted_mode


def asked(ops: tuple[Op, ...]) -> tuple[int, str, bool] | None:
    """(the op's index, the label that it asks for, whether among others); None without one."""
    for number, op in enumerate(ops):
        if op.code in ENTERS and isinstance(op.origin, AppArmorProfile):
            command = str(joined(evolve(op, strs=op.strs[:1])), "utf-8")
            verb, _, name = command.partition(" ")
            return number, f"{name} ({op.origin.mode})", verb == "stack"
    return None


def wrong(ops: tuple[Op, ...], number: int, seen: str, wanted: str) -> LaunchError:
    """What ran under another label than it should, and was killed."""
    why = f"it ran under {seen!r} instead of {wanted!r}, and was killed"
    return LaunchError(number, ops[number], errno.EACCES, why, steps=len(ops))


def confirm_first(ops: tuple[Op, ...], init: Init) -> None:
    """Compare the label of a box's first process with what its op asked for.

    Raises: LaunchError.
    """
    found = asked(ops)
    if found is None:
        return
    number, wanted, stacked = found
    seen = label(init.pidfd)
    if seen is not None and not entered(seen, wanted, stacked):
        raise wrong(ops, number, seen, wanted)


def in_exec(pidfd: int) -> bool:
    """Whether its exec is still on its way: the new program's arguments are there from its last
    moments on, when the new label is (fs/exec.c: begin_new_exec; fs/binfmt_elf.c)."""
    pid = host_pid(pidfd)
    try:
        return pid > 0 and not Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def confirm(ops: tuple[Op, ...], process: Process, kill: Callable[[], None]) -> None:
    """Compare the label of a started program with what its op asked for; a mismatch kills it.

    The record pipe closes a moment before exec puts the new label in place, so another one is
    waited for to go as long as the exec lasts, and no longer. A program that has ended already ran
    under what its op was told by the kernel.
    Raises: LaunchError.
    """
    found = asked(ops)
    if found is None:
        return
    number, wanted, stacked = found
    until = time.monotonic() + CONFIRM_SECONDS
    while True:
        running = not in_exec(process.pidfd)  # looked at first: then the label is its last word
        seen = label(process.pidfd)
        if seen is None or entered(seen, wanted, stacked):
            return
        if running or time.monotonic() > until:
            kill()
            raise wrong(ops, number, seen, wanted)
        time.sleep(0.0002)
