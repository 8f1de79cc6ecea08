# SPDX-License-Identifier: Apache-2.0
"""A box's AppArmor profile: seen to before the clone, put into ops, confirmed after exec.

The op in the child reads back what the kernel will enter at exec, and the kernel then enters it or
refuses the exec: that holds before the program's first instruction. The parent looks once more,
from outside, at the label of the process that runs.
"""

from __future__ import annotations

import re
import select
import time
from pathlib import Path

from attrs import evolve

from isolate.abi.ops import OpCode
from isolate.errors import HostLacks, LaunchError
from isolate.plan.lower.apparmor import PLACEHOLDER
from isolate.plan.model import Guarantee, Op, Plan, Program, Step, Verdict
from isolate.policy.apparmor import AppArmorProfile
from isolate.supervise import apparmor
from isolate.supervise.process import Process

__all__ = ["confirm", "named", "named_program", "prepare", "weakened"]

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


def named(ops: tuple[Op, ...], name: str) -> tuple[Op, ...]:
    """A program's ops with the box's own profile in them, or without where that is weakened."""
    if not any(op.code is OpCode.APPARMOR for op in ops):
        return ops
    if name.startswith(WEAK):
        return tuple(op for op in ops if op.code is not OpCode.APPARMOR)
    return tuple(own(op, name) if op.code is OpCode.APPARMOR else op for op in ops)


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


def label(process: Process) -> str | None:
    """Its label; None if it has ended."""
    pid = host_pid(process.pidfd)
    if pid <= 0:
        return None
    try:
        found = apparmor.label_of(pid)
    except ProcessLookupError:
        return None
    return None if ended(process.pidfd) else found


def entered(seen: str, wanted: str, stacked: bool) -> bool:
    """Whether a label is the profile; a stack names it among others, and shows one mode."""
    if seen == wanted:
        return True
    if not stacked:
        return False
    names, _, mode = seen.rpartition(" ")
    name, _, wanted_mode = wanted.rpartition(" ")
    return name in names.split("//&") and mode == wanted_mode


def confirm(ops: tuple[Op, ...], process: Process) -> None:
    """Compare the label of a started program with what its op asked for; a mismatch kills it.

    The record pipe closes a moment before exec puts the new label in place, so the old label is
    waited for to go. A program that has ended already ran under what its op was told by the kernel.
    Raises: LaunchError.
    """
    op = next((each for each in ops if each.code is OpCode.APPARMOR), None)
    if op is None:
        return
    command, wanted = (str(each, "utf-8") for each in op.strs[:2] if isinstance(each, bytes))
    until = time.monotonic() + CONFIRM_SECONDS
    while (seen := label(process)) is not None:
        if entered(seen, wanted, command.startswith("stack ")):
            return
        if time.monotonic() > until:
            process.kill()
            why = f"it runs under {seen!r} instead of {wanted!r}, and was killed"
            raise LaunchError(ops.index(op), op, 13, why, steps=len(ops))
        time.sleep(0.0005)
