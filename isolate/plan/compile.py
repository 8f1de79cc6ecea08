# SPDX-License-Identifier: Apache-2.0
"""From a policy, a command and a host to a plan. Pure: the same three give the same plan."""

from __future__ import annotations

from functools import lru_cache

from attrs import evolve

from isolate.abi.ops import OpCode, Phase
from isolate.host.facts import Host
from isolate.plan.lower import apparmor, cgroup, chroot, landlock, namespace, program, seccomp
from isolate.plan.lower.draft import BOX_PHASES, Draft
from isolate.plan.model import Limits, Op, Plan
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
    if identity and identity.new_keyring:
        draft.op(OpCode.KEYRING, Phase.NAMESPACE, "join a new session keyring", identity)
    network = policy.get(Network)
    if spaces.net and network and network.kind == "loopback":
        draft.op(OpCode.LOOPBACK_UP, Phase.NETWORK, "bring lo up", network)
    root = policy.get(Chroot)
    if root is not None:
        chroot.lower(root, draft)
    elif spaces.mount or policy.mounts:
        chroot.lower_bare(spaces, policy.mounts, draft)
    limit = policy.get(CgroupLimit)
    if limit is not None:
        cgroup.lower(limit, draft)
    if policy.get(CapabilitySet) is not None:
        draft.promise("caps", "capset, and the bounding set")
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


@lru_cache(maxsize=256)
def drafted(policy: Policy, host: Host) -> tuple[Plan, bool]:
    """The box's plan, and whether its ids are reserved ones."""
    draft = Draft(policy, host)
    lower_box(draft)
    assert all(op.phase < BOX_PHASES for op in draft.ops)
    plan = Plan(
        clone_flags=draft.clone_flags,
        setup=in_order(draft.ops),
        steps=tuple(draft.steps),
        limits=limits_of(policy),
        guarantees=tuple(draft.guarantees),
    )
    return plan, draft.reserved_ids


def compile_box(policy: Policy, host: Host) -> Plan:
    """The plan of a box without a program.

    Raises: HostLacks, PolicyError.
    """
    return drafted(policy, host)[0]


def compile_program(policy: Policy, command: Command, host: Host) -> tuple[Op, ...]:
    """The ops of one program in such a box."""
    plan, reserved = drafted(policy, host)
    draft = Draft(policy, host, clone_flags=plan.clone_flags, reserved_ids=reserved)
    draft.steps.extend(step for step in plan.steps if step.kind == "apparmor")
    program.lower(command, draft)
    ops = in_order(draft.ops)
    verify(evolve(plan, program=ops))
    return ops


def compile_plan(policy: Policy, command: Command, host: Host) -> Plan:
    """Box and program together.

    Raises: HostLacks, PolicyError.
    """
    return evolve(compile_box(policy, host), program=compile_program(policy, command, host))


def apparmor_lines(policy: Policy, host: Host) -> list[Line]:
    """A whole policy as rules of an AppArmor profile.

    Raises: HostLacks, PolicyError, as `compile_box` does.
    """
    draft = Draft(policy, host)
    lower_box(draft)
    return apparmor.lines_of(policy, draft)
