# SPDX-License-Identifier: Apache-2.0
"""From a policy, a command and a host to a plan. Pure: the same three give the same plan."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from attrs import evolve

from isolate.abi.ops import OpCode, Phase
from isolate.host.facts import Host
from isolate.plan.lower import (
    apparmor,
    capabilities,
    cgroup,
    chroot,
    deadline,
    landlock,
    namespace,
    network,
    program,
    seccomp,
    template,
)
from isolate.plan.lower.draft import BOX_PHASES, Draft
from isolate.plan.model import Limits, Op, Plan, Program
from isolate.plan.verify import verify
from isolate.policy.apparmor import AppArmorProfile
from isolate.policy.apparmor_text import Line
from isolate.policy.capabilities import CapabilitySet
from isolate.policy.cgroup import CgroupLimit
from isolate.policy.chroot import Chroot
from isolate.policy.command import Command
from isolate.policy.deadline import Deadline
from isolate.policy.identity import Identity
from isolate.policy.landlock import Landlock
from isolate.policy.namespace import Namespace
from isolate.policy.network import Network
from isolate.policy.policy import Policy
from isolate.policy.seccomp import SeccompFilter

__all__ = ["apparmor_lines", "compile_box", "compile_plan", "compile_program"]


def lower_box(draft: Draft) -> None:
    """Every primitive that concerns the box as a whole, in the order of set-up."""
    policy = draft.policy
    spaces = policy.get(Namespace) or Namespace()
    namespace.lower(spaces, draft)
    draft.op(OpCode.DUMPABLE, Phase.IDS, "make init not dumpable", "launch", nums=(0,))
    identity = policy.get(Identity)
    if identity and identity.new_keyring and "keyctl" in draft.host.refused:
        draft.promise("keyring", "the filter around this process refuses keyctl")
    elif identity and identity.new_keyring:
        draft.op(OpCode.KEYRING, Phase.NAMESPACE, "join a new session keyring", identity)
    links = policy.get(Network)
    if links is not None:
        network.lower(links, draft)
    root = policy.get(Chroot)
    if (root is not None or policy.mounts) and not draft.new("mount"):
        draft.lacks("root", "no mount namespace can be made here", namespace.user_hint(draft.host))
    elif root is not None:
        chroot.lower(root, draft)
    elif draft.new("mount"):
        chroot.lower_bare(spaces, policy.mounts, draft)
    limit = policy.get(CgroupLimit)
    if limit is not None:
        cgroup.lower(limit, draft)
    bounds = policy.get(Deadline)
    if bounds is not None:
        deadline.lower(bounds, draft)
    caps = policy.get(CapabilitySet)
    if caps is not None:
        capabilities.lower_box(caps, draft)
    if identity and identity.no_new_privs:
        draft.promise("no_new_privs", "prctl")
    wanted = policy.get(SeccompFilter)
    if wanted is not None:
        seccomp.lower_box(wanted, draft)
    profile = policy.get(AppArmorProfile)
    if profile is not None:
        apparmor.lower_box(profile, draft)
    access = policy.get(Landlock)
    if access is not None:
        landlock.lower_box(access, draft)
    if profile is not None:
        apparmor.lower_first(profile, draft)  # last: set-up is isolate-init's own until then


def limits_of(policy: Policy) -> Limits:
    """What the supervisor watches."""
    deadline = policy.get(Deadline) or Deadline()
    limit = policy.get(CgroupLimit) or CgroupLimit()
    return Limits(
        wall=deadline.wall,
        cpu_time=deadline.cpu_time,
        output=deadline.output,
        files_size=deadline.files_size,
        memory=limit.memory,
        pids=limit.pids,
    )


def in_order(ops: list[Op]) -> tuple[Op, ...]:
    """By phase; within a phase as they were written."""
    return tuple(sorted(ops, key=lambda op: op.phase))


KEPT = 256
BOXES: dict[tuple[int, int], tuple[Policy, Host, tuple[Plan, bool]]] = {}


def drafted(policy: Policy, host: Host) -> tuple[Plan, bool]:
    """The box's plan, and whether its ids are reserved ones.

    Kept by identity first: hashing a policy and a host costs more than some launches do. An entry
    holds both, so that an id means the same object as long as it is there.
    """
    key = (id(policy), id(host))
    found = BOXES.get(key)
    if found is None:
        found = (policy, host, drafted_by_value(policy, host))
        if len(BOXES) >= KEPT:
            BOXES.clear()
        BOXES[key] = found
    return found[2]


@lru_cache(maxsize=KEPT)
def drafted_by_value(policy: Policy, host: Host) -> tuple[Plan, bool]:
    """The same, for equal policies and hosts."""
    draft = Draft(policy, host)
    lower_box(draft)
    assert all(op.phase < BOX_PHASES for op in draft.ops)
    plan = Plan(
        clone_flags=draft.clone_flags,
        template=in_order(draft.template),
        stockable=template.stockable(draft),
        joining=tuple(draft.joining),
        setup=in_order(draft.ops),
        steps=tuple(draft.steps),
        limits=limits_of(policy),
        guarantees=tuple(draft.guarantees),
        watch=draft.watch,
    )
    return plan, draft.reserved_ids


def compile_box(policy: Policy, host: Host) -> Plan:
    """The plan of a box without a program.

    Raises: HostLacks, PolicyError.
    """
    return drafted(policy, host)[0]


Key = tuple[Any, ...]
BODIES: dict[Key, tuple[Plan, tuple[Op, ...]]] = {}


def body(policy: Policy, command: Command, host: Host) -> tuple[Op, ...]:
    """All ops of one program but its exec, verified; the same for every argv and environment."""
    plan, reserved = drafted(policy, host)
    key = (id(plan), command.cwd, command.fds, command.pty)
    found = BODIES.get(key)
    if found is None:
        draft = Draft(policy, host, clone_flags=plan.clone_flags, reserved_ids=reserved)
        draft.steps.extend(step for step in plan.steps if step.kind == "apparmor")
        program.lower(command, draft, plan)
        ops = in_order(draft.ops)
        verify(evolve(plan, program=(*ops, program.exec_op(command))))
        if len(BODIES) >= KEPT:
            BODIES.clear()
        BODIES[key] = found = (plan, ops)
    return found[1]


def compile_program(policy: Policy, command: Command, host: Host) -> Program:
    """The ops of one program in such a box."""
    return Program(body(policy, command, host), program.exec_op(command))


def compile_plan(policy: Policy, command: Command, host: Host) -> Plan:
    """Box and program together.

    Raises: HostLacks, PolicyError.
    """
    ops = compile_program(policy, command, host)
    return evolve(compile_box(policy, host), program=ops.ops)


def apparmor_lines(policy: Policy, host: Host) -> list[Line]:
    """A whole policy as rules of an AppArmor profile.

    Raises: HostLacks, PolicyError, as `compile_box` does.
    """
    draft = Draft(policy, host)
    lower_box(draft)
    return apparmor.lines_of(policy, draft)
