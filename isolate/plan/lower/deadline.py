# SPDX-License-Identifier: Apache-2.0
"""`Deadline`: what the supervisor watches. Only processor time needs something of the host."""

from __future__ import annotations

from isolate.plan.lower import cgroup
from isolate.plan.lower.draft import Draft
from isolate.policy.cgroup import CgroupLimit
from isolate.policy.deadline import Deadline

__all__ = ["lower"]


def lower(deadline: Deadline, draft: Draft) -> None:
    """The time of all processes together is in the account of a cgroup, and nowhere else: what a
    child has used is lost where its parent ignores SIGCHLD (wait4(2)). RLIMIT_CPU is by process.
    """
    if deadline.cpu_time is None:
        return
    facts = draft.host.cgroup
    limit = draft.policy.get(CgroupLimit)
    leaf = cgroup.has_leaf(limit, draft.host)
    if leaf and (facts.version == 2 or "cpuacct" in facts.controllers):
        draft.promise("cpu_time", f"the account of cgroup v{facts.version}, looked at in time")
        return
    why = facts.why or "the box has no cgroup that counts processor time"
    hold = "without it each process is held by itself, by RLIMIT_CPU"
    draft.lacks("cpu_time", f"no cgroup can be made: {why}; {hold}", facts.command or cgroup.HINT)
