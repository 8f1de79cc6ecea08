# SPDX-License-Identifier: Apache-2.0
"""`CgroupLimit` into a leaf that the parent makes and each program is born in, or joins."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from isolate.abi.cgroup import ACCOUNTS, FIELDS, ONLY_V2
from isolate.abi.flags import NAMESPACES
from isolate.abi.ops import OpCode, Phase
from isolate.errors import PolicyConflict
from isolate.host.facts import Host
from isolate.plan.lower.draft import Draft
from isolate.policy.cgroup import CgroupLimit
from isolate.policy.chroot import Chroot
from isolate.policy.namespace import Namespace

__all__ = ["has_leaf", "joins", "lower", "lower_program", "wanted"]

COUNTING = ("memory", "pids", "cpu", "io")  # what `account` joins, where it is there
HINT = (
    "run below a delegated cgroup (systemd-run --user --scope -p Delegate=yes PROGRAM) or as root"
)


def wanted(limit: CgroupLimit) -> tuple[str, ...]:
    """The controllers that this limit needs, by their v2 names."""
    return tuple(name for name, fields in FIELDS.items() if limit.given(*fields))


def held(limit: CgroupLimit, host: Host) -> tuple[str, ...]:
    """The controllers that the box's leaf has here: for its limits, and for its account."""
    names = [*wanted(limit), *(COUNTING if limit.account else ())]
    return tuple(name for name in dict.fromkeys(names) if name in host.cgroup.controllers)


def has_leaf(limit: CgroupLimit | None, host: Host) -> bool:
    """Whether the box gets a cgroup of its own."""
    return limit is not None and bool(held(limit, host))


def joins(limit: CgroupLimit, host: Host) -> tuple[str, ...]:
    """The v1 hierarchies to join, then that of processor time too; in v2 a program is born."""
    if not has_leaf(limit, host) or host.cgroup.version != 1:
        return ()
    old = set(host.cgroup.controllers) - set(host.cgroup.unified)
    names = tuple(name for name in held(limit, host) if name in old)
    return (*names, *(name for name in ACCOUNTS if names and name in old))


def without_v2(limit: CgroupLimit, draft: Draft) -> CgroupLimit:
    """On v1: refused, or the limit less what v1 has not, where the policy allows that."""
    facts = draft.host.cgroup
    if "memory" not in facts.controllers or "memory" in facts.unified or facts.version == 2:
        return limit
    for name in ONLY_V2:
        if limit.given(name):
            draft.lacks(name, "cgroup v1 has no such limit", "boot with cgroup v2")
            none: Any = {name: None}
            limit = evolve(limit, **none)
    return limit


def refuse_joined(draft: Draft) -> None:
    """Raises: PolicyConflict: in another's cgroup namespace the kernel lets init start nobody in
    the box's own leaf (cgroup v2, nsdelegate)."""
    spaces = draft.policy.get(Namespace)
    for kind, target in () if spaces is None else spaces.joins:
        if kind == "cgroup":
            raise PolicyConflict(
                f"a box with limits on cgroup v2 can't join the cgroup namespace of {target}: its "
                "own cgroup is not to be seen from there; join the other kinds"
            )


def lower(limit: CgroupLimit, draft: Draft) -> None:
    """A leaf where the host has the controllers; else another enforcer, or a refusal."""
    facts = draft.host.cgroup
    for name in wanted(limit):
        if name in facts.controllers:
            version = 2 if name in facts.unified else facts.version
            draft.promise(name, f"cgroup v{version}")
        elif name == "pids" and draft.counts_alone():
            draft.promise("pids", "RLIMIT_NPROC, counted in the box's user namespace")
        elif name == "devices" and draft.new("user") and draft.policy.get(Chroot) is not None:
            draft.promise("devices", "nodev mounts; a user namespace can make no device")
        else:
            why = facts.why or f"the {name} controller is not available"
            draft.lacks(name, f"no cgroup can be made: {why}", facts.command or HINT)
    limit = without_v2(limit, draft)
    if not has_leaf(limit, draft.host):
        return
    # Root's boxes have an init of another uid, which needs a cgroup of its own beside the leaf.
    split = bool(draft.host.euid == 0 and draft.clone_flags & NAMESPACES["user"])
    names = held(limit, draft.host)
    unified = bool(set(names) & set(facts.unified))
    if unified:
        refuse_joined(draft)
    early = unified and split  # init is born there; else made while init sets the box up
    kind = "cgroup_first" if early else "cgroup"
    draft.step(kind, "make the box's cgroup", limit, limit, names, early)
    if unified:
        # Init stays outside of the leaf: a namespace of its own would not show it the leaf, and
        # the kernel then lets it start nobody there. Each program makes one, rooted at the leaf.
        draft.clone_flags &= ~NAMESPACES["cgroup"]


def lower_program(draft: Draft) -> None:
    """Be in the leaf before anything else can cost something (HARDENING 4); then see it as /."""
    limit = draft.policy.get(CgroupLimit)
    if limit is None or not has_leaf(limit, draft.host):
        return
    if set(held(limit, draft.host)) & set(draft.host.cgroup.unified):
        draft.op(
            OpCode.LEAF, Phase.CGROUP, "be born in the box's cgroup", limit,
            slots=("leaf",),
        )  # fmt: skip
    for name in joins(limit, draft.host):
        draft.op(
            OpCode.JOIN_CGROUP, Phase.CGROUP, f"join the box's {name} cgroup", limit,
            slots=(f"cgroup:{name}",),
        )  # fmt: skip
    spaces = draft.policy.get(Namespace)
    if spaces is not None and spaces.cgroup:
        draft.op(
            OpCode.UNSHARE, Phase.CGROUP, "show the box's cgroup as /", limit,
            nums=(NAMESPACES["cgroup"],),
        )  # fmt: skip
