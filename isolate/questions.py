# SPDX-License-Identifier: Apache-2.0
"""`policy.explain("write", "/etc/passwd")`: asked of this machine's files; nothing is run."""

from __future__ import annotations

import os
import stat

from isolate.abi.flags import CLONE_NEWUSER
from isolate.errors import PolicyError
from isolate.host.facts import Host
from isolate.plan.access import (
    DIRECTORY,
    FILE,
    LINK,
    OPERATIONS,
    Answer,
    Node,
    Who,
    answer,
)
from isolate.plan.compile import compile_box
from isolate.plan.layers import later_layers
from isolate.plan.model import Plan
from isolate.plan.view import Place, View, view_of
from isolate.policy.capabilities import CapabilitySet
from isolate.policy.fields import absolute
from isolate.policy.policy import Policy

__all__ = ["explain_access", "look", "who"]


def look(path: str) -> Node | None:
    """What is at a host path; None for nothing, also where we may not look."""
    try:
        seen = os.lstat(path)
    except OSError:
        return None
    kind = FILE
    if stat.S_ISDIR(seen.st_mode):
        kind = DIRECTORY
    elif stat.S_ISLNK(seen.st_mode):
        kind = LINK
    return Node(
        kind=kind,
        mode=stat.S_IMODE(seen.st_mode) & 0o777,
        uid=seen.st_uid,
        gid=seen.st_gid,
        text=os.readlink(path) if kind == LINK else "",
    )


def who(policy: Policy, plan: Plan, host: Host) -> Who:
    """Whose rights the box's programs have over the machine's files."""
    own_ids = any(step.kind == "reserve_ids" for step in plan.steps)
    if own_ids:
        # Ids that nobody else has: files are others', but for those that are handed to it.
        return Who(owned_uid=host.euid, owned_gid=host.egid)
    groups = frozenset({host.egid, *os.getgroups()})
    root = host.euid == 0 and not plan.clone_flags & CLONE_NEWUSER
    return Who(
        uid=host.euid,
        gids=groups,
        owned_uid=host.euid,
        owned_gid=host.egid,
        everything=root and policy.get(CapabilitySet) is None,
        is_init=True,
    )


def box_view(plan: Plan) -> View:
    """The box's view; the machine's own where it makes none."""
    view = view_of((*plan.template, *plan.setup), plan.steps)
    return view if view.places else View((Place(path="/", kind="bind", source="/"),))


def explain_access(policy: Policy, host: Host, operation: str, path: str) -> Answer:
    """Every layer's answer to one question about a fresh box.

    Raises: PolicyError for another operation; HostLacks, as a start would.
    """
    if operation not in OPERATIONS:
        raise PolicyError(f"explain takes {', '.join(OPERATIONS)}, not {operation!r}")
    plan = compile_box(policy, host)
    view = box_view(plan)
    layers = later_layers(policy, host, plan, view, look)
    rights = who(policy, plan, host)
    return answer(operation, absolute(path, "path"), view, look, rights, layers)
