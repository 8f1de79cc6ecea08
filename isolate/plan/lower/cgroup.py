# SPDX-License-Identifier: Apache-2.0
"""`CgroupLimit` into a leaf that the parent makes and each program joins."""

from __future__ import annotations

from isolate.host.facts import Host
from isolate.plan.lower.draft import Draft
from isolate.policy.cgroup import CgroupLimit

__all__ = ["controllers", "lower"]

NEEDS = {
    "memory": ("memory", "memory_high", "swap"),
    "pids": ("pids",),
    "cpu": ("cpu", "cpu_weight"),
    "cpuset": ("cpuset", "mems"),
}
COUNTING = ("memory", "pids", "cpu", "io", "blkio")  # what `account` joins, where it is there
HINT = (
    "run below a delegated cgroup (systemd-run --user --scope -p Delegate=yes PROGRAM) or as root"
)


def wanted(limit: CgroupLimit) -> tuple[str, ...]:
    """The controllers that this limit needs, by their v2 names."""
    return tuple(
        name
        for name, fields in NEEDS.items()
        if any(getattr(limit, field) is not None for field in fields)
    )


def controllers(limit: CgroupLimit, host: Host) -> tuple[str, ...]:
    """The hierarchies to join: by controller on v1 (cpuacct with cpu), "unified" on v2."""
    names = [*wanted(limit), *(COUNTING if limit.account else ())]
    usable = [name for name in dict.fromkeys(names) if name in host.cgroup.controllers]
    if not usable:
        return ()
    if host.cgroup.version == 2:
        return ("unified",)
    extra = [name for name in ("cpuacct",) if name in host.cgroup.controllers]
    return tuple(usable + extra)


def lower(limit: CgroupLimit, draft: Draft) -> None:
    """A leaf where the host has the controllers; else another enforcer, or a refusal."""
    host = draft.host
    for name in wanted(limit):
        if name in host.cgroup.controllers:
            draft.promise(name, f"cgroup v{host.cgroup.version}")
        elif name == "pids" and draft.counts_alone():
            draft.promise("pids", "RLIMIT_NPROC, counted in the box's user namespace")
        else:
            why = host.cgroup.why or f"the {name} controller is not available"
            draft.lacks(name, f"no cgroup can be made: {why}", HINT)
    if controllers(limit, host):
        draft.step("cgroup", "make the box's cgroup", limit, limit)
