# SPDX-License-Identifier: Apache-2.0
"""`Rlimit`, and what other primitives ask of setrlimit(2), into one op a limit."""

from __future__ import annotations

from isolate.abi.flags import RLIMITS
from isolate.abi.ops import OpCode, Phase
from isolate.plan.lower.draft import Draft
from isolate.policy.cgroup import CgroupLimit
from isolate.policy.deadline import Deadline
from isolate.policy.rlimit import Rlimit

__all__ = ["lower", "rlimits"]


def rlimits(draft: Draft) -> dict[str, tuple[int, int]]:
    """From Rlimit, Deadline, and CgroupLimit.pids where no cgroup can hold it."""
    found: dict[str, tuple[int, int]] = {}
    own = draft.policy.get(Rlimit)
    for name in RLIMITS:
        value = getattr(own, name) if own else None
        if value is not None:
            found[name] = value
    deadline = draft.policy.get(Deadline)

    def least(name: str, soft: int, hard: int) -> None:
        old = found.get(name, (soft, hard))
        found[name] = (min(old[0], soft), min(old[1], hard))

    if deadline and deadline.files_size is not None:
        least("fsize", deadline.files_size, deadline.files_size)
    if deadline and deadline.cpu_time is not None:
        whole = int(deadline.cpu_time) + 1
        least("cpu", whole, whole + 1)
    limit = draft.policy.get(CgroupLimit)
    fallback = draft.counts_alone() and "pids" not in draft.host.cgroup.controllers
    if limit and limit.pids and fallback:
        # Since Linux 5.14 counted by user namespace; init of an ordinary user is one of them.
        count = limit.pids + (0 if draft.reserved_ids else 1)
        least("nproc", count, count)
    return found


def lower(draft: Draft) -> None:
    """One op a limit."""
    own = draft.policy.get(Rlimit) or "launch"
    for name, (soft, hard) in rlimits(draft).items():
        draft.op(
            OpCode.RLIMIT, Phase.LIMIT, f"set RLIMIT_{name.strip('_').upper()} to {soft}", own,
            nums=(RLIMITS[name], soft, hard),
        )  # fmt: skip
