# SPDX-License-Identifier: Apache-2.0
"""A mount namespace that is made once a policy, and of which every box gets a copy by its clone.

Copying a mount namespace costs about the same for five mounts as for fifty; making them anew in
every box, and detaching the old root, costs more than the rest of a launch. See docs/adr/0014.
"""

from __future__ import annotations

from isolate.abi.flags import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID
from isolate.abi.ops import OpCode, OpFlag, Phase
from isolate.plan.lower.draft import Draft
from isolate.plan.model import Op
from isolate.policy.capabilities import CapabilitySet
from isolate.policy.chroot import Chroot
from isolate.policy.fields import inside
from isolate.policy.namespace import Namespace
from isolate.policy.network import Network

__all__ = ["complete", "stockable", "usable"]

STRICT = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
CONTENT = {OpCode.FILE: 0, OpCode.MKDIR: 0, OpCode.SYMLINK: 1}  # which string is its path
MOUNTS = {OpCode.BIND: 1, OpCode.MOUNT_NEW: 2}


def usable(draft: Draft) -> bool:
    """Whether boxes of this policy may be copies of a template.

    Only root can enter it before the box's user namespace is made. A box with capabilities over its
    own mounts could look below them, and gets mounts of its own. Clock offsets are written while
    /proc still is the template's, which knows no process.
    """
    namespace = draft.policy.get(Namespace)
    caps = draft.policy.get(CapabilitySet)
    if namespace is None or caps is None or caps.permitted or caps.bounding:
        return False
    has_all = all(map(draft.new, ("user", "mount", "pid")))
    has_all = has_all and not namespace.joins and not namespace.time
    host = draft.host
    whole = host.sys_admin and host.idmap and not host.ids_why  # no root of a container
    return bool(whole and host.euid == 0 and has_all)


def stockable(draft: Draft) -> bool:
    """Whether network and IPC namespaces may come from a stock: new ones, with a loopback that
    is up, over which nobody inside has a right."""
    network = draft.policy.get(Network)
    is_loopback = network is not None and network.kind == "loopback"
    return draft.has_template and is_loopback and draft.new("net") and draft.new("ipc")


def path_of(op: Op, table: dict[OpCode, int]) -> str:
    """Where in the new root an op makes something."""
    item = op.strs[table[op.code]]
    assert isinstance(item, bytes)
    return item.decode("utf-8", "surrogateescape")


def complete(chroot: Chroot, draft: Draft) -> None:
    """Move to the template what it can hold, and make the places of what is mounted in each box."""
    own = [path_of(op, MOUNTS) for op in draft.ops if op.code in MOUNTS]
    kept: list[Op] = []
    with draft.shared():
        for op in draft.ops:
            if op.code in CONTENT and not below(path_of(op, CONTENT), own):
                draft.template.append(op)
                continue
            if op.code in MOUNTS and not below(path_of(op, MOUNTS), own):
                place(op, draft)
            kept.append(op)
        # A new /proc may only be mounted where one is that hides nothing (mount_too_revealing in
        # fs/namespace.c). This one is of a pid namespace that has ended, and lies below the box's.
        draft.op(
            OpCode.MOUNT_NEW, Phase.MOUNT, "mount an empty proc on /proc", chroot,
            b"proc", None, b"/proc", nums=(STRICT,), flags=OpFlag.MAKE_DIR,
        )  # fmt: skip
    draft.ops = kept
    enter = Op(code=OpCode.ROOT_HERE, phase=Phase.MOUNT, about="open the root", origin=chroot)
    draft.ops.insert(next(i for i, op in enumerate(kept) if op.phase >= Phase.MOUNT), enter)
    draft.op(OpCode.ROOT_LEAVE, Phase.ROOT, "check that / is the root", chroot)
    draft.step("template", "make the template of the mount tree", chroot, slot="template")


def below(path: str, own: list[str]) -> bool:
    """Whether a place is inside of something that each box mounts for itself."""
    return any(path != each and inside(path, each) for each in own)


def place(op: Op, draft: Draft) -> None:
    """An empty directory or file for a mount of the box, since its root is read-only."""
    target = op.strs[MOUNTS[op.code]]
    if op.flags & OpFlag.FROM_ROOT:
        return
    if op.code is OpCode.MOUNT_NEW:
        if op.flags & OpFlag.MAKE_DIR:
            about = f"make the place: {op.about}"
            draft.op(OpCode.MKDIR, Phase.MOUNT, about, op.origin, target, nums=(0o755,))
        return
    source = op.strs[0]
    if source is None:  # a tree that the parent opens: its step has the path
        step = next(each for each in draft.steps if each.slot == op.slots[0])
        source = step.args[0].encode("utf-8", "surrogateescape")
    flags = op.flags & OpFlag.OPTIONAL
    draft.op(
        OpCode.PLACE, Phase.MOUNT, f"make the place: {op.about}", op.origin,
        source, target, flags=flags,
    )  # fmt: skip
