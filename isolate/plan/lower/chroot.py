# SPDX-License-Identifier: Apache-2.0
"""`Chroot` into a new root: made on "/", filled, entered by pivot_root."""

from __future__ import annotations

from isolate.abi.flags import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_SLAVE,
)
from isolate.abi.ops import OpCode, OpFlag, Phase
from isolate.plan import rootfs
from isolate.plan.lower import mount, overlay, template
from isolate.plan.lower.draft import Draft
from isolate.policy.chroot import Chroot
from isolate.policy.mount import Mount
from isolate.policy.namespace import Namespace

__all__ = ["lower", "lower_bare"]

SAFE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV


def private(draft: Draft, origin: object) -> None:
    """Nothing that is mounted here may reach the host (HARDENING 8)."""
    draft.op(
        OpCode.PROPAGATION, Phase.MOUNT, "make / private", origin, b"/", nums=(MS_PRIVATE,)
    )


def pivot(draft: Draft, origin: object) -> None:
    """Enter the new root, and let go of the old one."""
    draft.op(OpCode.PIVOT_ROOT, Phase.ROOT, "pivot_root", origin)


def directory_root(chroot: Chroot, draft: Draft) -> None:
    """A host directory, with what is mounted below it."""
    attr = SAFE if chroot.writable else SAFE | MOUNT_ATTR_RDONLY
    path = chroot.path or "/"
    about = f"bind {path} as root"
    if draft.host.sys_admin:
        draft.step(
            "open_tree", f"open {path}", chroot,
            path, True, attr, 0, False, draft.reserved_ids, slot="root",
        )  # fmt: skip
        draft.op(OpCode.ROOT_BIND, Phase.MOUNT, about, chroot, slots=("root",))
        return
    strs = (path.encode("utf-8", "surrogateescape"),)
    draft.op(
        OpCode.ROOT_BIND, Phase.MOUNT, about, chroot, *strs,
        nums=(attr,), flags=OpFlag.RECURSIVE,
    )  # fmt: skip


ROOTS = {"dir": directory_root, "overlay": overlay.lower_root, "image": overlay.lower_image}


def read_only(draft: Draft, chroot: Chroot) -> None:
    """The root's own file system; what is mounted below it has its own flags."""
    draft.op(
        OpCode.MOUNT_ATTR, Phase.MOUNT, "make / read-only", chroot, b"/",
        nums=(MOUNT_ATTR_RDONLY,),
    )  # fmt: skip


def view_root(chroot: Chroot, draft: Draft) -> None:
    """A tmpfs with the host's view in it: as a template that boxes get a copy of, or by itself."""
    draft.has_template = template.usable(draft)
    with draft.shared():
        private(draft, chroot)
        draft.op(
            OpCode.ROOT_TMPFS, Phase.MOUNT, "mount tmpfs as root", chroot,
            b"mode=755\0size=16m\0nr_inodes=4096", nums=(SAFE,),
        )  # fmt: skip
    rootfs.host_view(chroot, draft)
    lower_mounts(chroot, draft)
    if draft.has_template:
        template.complete(chroot, draft)
    with draft.shared():
        read_only(draft, chroot)
        pivot(draft, chroot)


def lower_mounts(chroot: Chroot, draft: Draft) -> None:
    """The policy's own mounts, in order."""
    for each in (*chroot.mounts, *draft.policy.mounts):
        mount.lower(each, draft)


def lower(chroot: Chroot, draft: Draft) -> None:
    """The root, what is in it, and the entry."""
    if chroot.kind == "host_view":
        view_root(chroot, draft)
    else:
        private(draft, chroot)
        ROOTS[chroot.kind](chroot, draft)
        lower_mounts(chroot, draft)
        overlay.lower_read_only(chroot, draft)
        pivot(draft, chroot)
    draft.promise("root", f"pivot_root into a {chroot.kind.replace('_', ' ')}")


def lower_bare(namespace: Namespace, mounts: tuple[Mount, ...], draft: Draft) -> None:
    """Mounts without a root of their own: into a private copy of the host's tree."""
    if not mounts:
        draft.op(
            OpCode.PROPAGATION, Phase.MOUNT, "make / a slave", namespace, b"/", nums=(MS_SLAVE,)
        )
        return
    private(draft, namespace)
    draft.op(
        OpCode.ROOT_BIND, Phase.MOUNT, "bind / as root", namespace, b"/", flags=OpFlag.RECURSIVE
    )
    for each in mounts:
        mount.lower(each, draft)
    pivot(draft, namespace)
