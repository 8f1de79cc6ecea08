# SPDX-License-Identifier: Apache-2.0
"""Roots and mounts that are put together: layers (overlayfs), images, archives.

A scratch file system holds the layers, each a bind mount with a short name, and what is changed.
It is let go of when the overlay is made; the kernel keeps copies of those mounts of its own.
"""

from __future__ import annotations

from typing import Any

from isolate.abi.flags import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from isolate.abi.ops import OpCode, OpFlag, Phase
from isolate.plan.lower.draft import Draft, encoded
from isolate.policy.chroot import Chroot
from isolate.policy.identity import Identity
from isolate.policy.mount import Mount

__all__ = ["lower_image", "lower_mount", "lower_root"]

SAFE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
SMALL = 1 << 20  # a scratch that holds only mount points
FIRST_IN_USER_NAMESPACES = (5, 11)
LOOP_HINT = "be root, or give a tar archive, or unpack it and use Chroot.overlay(directory)"


def scratch_options(size: int) -> bytes:
    """A tmpfs that init alone ever sees; the kernel, as the program, has to pass through."""
    return f"mode=711\0size={size}\0nr_inodes={max(128, size >> 12)}".encode()


def needs_overlay(draft: Draft) -> None:
    """Raises: HostLacks."""
    if draft.new("user") and draft.host.kernel < FIRST_IN_USER_NAMESPACES:
        version = ".".join(map(str, draft.host.kernel))
        why = f"overlayfs in a user namespace needs Linux 5.11, this is {version}"
        draft.lacks("overlay", why, "use Mount.bind, or a newer kernel")


def layers(
    draft: Draft, origin: Any, at: str, lower: tuple[str, ...], upper: str | None
) -> bytes:
    """Bind the layers below `at`; the options of the overlay."""
    for number, path in enumerate(lower):
        attr = SAFE | MOUNT_ATTR_RDONLY
        draft.bind(path, f"{at}/l{number}", attr, origin, recursive=False, owned=True)
    names = ":".join(f"l{number}" for number in range(len(lower)))
    if upper is None:
        changes = "u", "w"
    else:
        draft.step("make_upper", f"make data and work in {upper}", origin, upper)
        draft.bind(upper, f"{at}/up", SAFE, origin, recursive=False, owned=True)
        changes = "up/data", "up/work"
    text = f"lowerdir={names}\0upperdir={changes[0]}\0workdir={changes[1]}\0userxattr"
    return text.encode()


def numbers(draft: Draft, upper: str | None) -> tuple[int, ...]:
    """The attributes, whether the upper layer is to be made, and as whom the kernel acts."""
    who = draft.policy.get(Identity) if draft.reserved_ids and upper is not None else None
    ids = (who.uid + 1, who.gid + 1) if who else (0, 0)
    return (SAFE, int(upper is None), *ids)


def lower_mount(each: Mount, draft: Draft) -> None:
    """An overlay at a place of the root. Raises: HostLacks."""
    needs_overlay(draft)
    target = each.target
    draft.op(
        OpCode.MOUNT_NEW, Phase.MOUNT, f"mount scratch on {target}", each,
        b"tmpfs", scratch_options(each.size or SMALL), encoded(target),
        nums=(SAFE,), flags=OpFlag.MAKE_DIR,
    )  # fmt: skip
    options = layers(draft, each, target, each.lower, each.source)
    draft.op(
        OpCode.OVERLAY, Phase.MOUNT, f"mount overlay on {target}", each,
        options, encoded(target), nums=numbers(draft, each.source),
    )  # fmt: skip


def scratch_root(chroot: Chroot, draft: Draft, size: int) -> None:
    """The scratch, as root for the time being."""
    draft.op(
        OpCode.ROOT_TMPFS, Phase.MOUNT, "mount scratch as root", chroot,
        scratch_options(size), nums=(SAFE,),
    )  # fmt: skip


def root_overlay(chroot: Chroot, draft: Draft, options: bytes) -> None:
    """The overlay becomes the root."""
    draft.op(
        OpCode.OVERLAY, Phase.MOUNT, "mount overlay as root", chroot,
        options, nums=numbers(draft, chroot.upper),
    )  # fmt: skip


def lower_root(chroot: Chroot, draft: Draft) -> None:
    """A root of layers. Raises: HostLacks."""
    needs_overlay(draft)
    scratch_root(chroot, draft, chroot.size or SMALL)
    options = layers(draft, chroot, "", chroot.lower, chroot.upper)
    root_overlay(chroot, draft, options)


def lower_archive(chroot: Chroot, draft: Draft) -> None:
    """A tmpfs with an archive's files: the program's own if it may write them, else init's."""
    size = chroot.size or 256 << 20
    who = draft.policy.get(Identity) if draft.reserved_ids and chroot.writable else None
    owner = f"\0uid={who.uid}\0gid={who.gid}" if who else ""
    options = f"mode=755\0size={size}\0nr_inodes={max(128, size >> 12)}{owner}"
    path = chroot.path or ""
    draft.step("archive", f"read {path}", chroot, path, size, slot="archive")
    draft.op(
        OpCode.ROOT_TMPFS, Phase.MOUNT, "mount tmpfs as root", chroot,
        options.encode(), nums=(SAFE,),
    )  # fmt: skip
    draft.op(
        OpCode.UNPACK, Phase.MOUNT, f"unpack {path}", chroot, slots=("archive",),
        nums=(who.uid + 1, who.gid + 1) if who else (0, 0),
    )  # fmt: skip


def lower_image(chroot: Chroot, draft: Draft) -> None:
    """An archive, or a file system by a loop device. Raises: HostLacks."""
    if chroot.format == "tar":
        lower_archive(chroot, draft)
        return
    path = chroot.path or ""
    if not draft.host.sys_admin or draft.host.euid != 0:
        draft.lacks("image", f"only root may mount {path} ({chroot.format})", LOOP_HINT)
    attr = SAFE | MOUNT_ATTR_RDONLY
    args = (path, chroot.format, attr, 0, False, draft.reserved_ids)
    draft.step("image", f"mount {path}", chroot, *args, slot="image")
    if not chroot.writable:
        draft.op(
            OpCode.ROOT_BIND, Phase.MOUNT, f"bind {path} as root", chroot, slots=("image",)
        )
        return
    needs_overlay(draft)
    scratch_root(chroot, draft, chroot.size or 256 << 20)
    draft.op(
        OpCode.BIND, Phase.MOUNT, f"bind {path} as a layer", chroot, None, b"/l0",
        slots=("image",), flags=OpFlag.MAKE_DIR,
    )  # fmt: skip
    root_overlay(chroot, draft, b"lowerdir=l0\0upperdir=u\0workdir=w\0userxattr")


def lower_read_only(chroot: Chroot, draft: Draft) -> None:
    """An archive that may not be written, after everything is in it."""
    if chroot.kind == "image" and chroot.format == "tar" and not chroot.writable:
        draft.op(
            OpCode.MOUNT_ATTR, Phase.MOUNT, "make / read-only", chroot, b"/",
            nums=(MOUNT_ATTR_RDONLY,),
        )  # fmt: skip
