# SPDX-License-Identifier: Apache-2.0
"""What the parent does around the clone, each step's undo on one stack (law 8)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from attrs import Factory, define

from isolate.abi.flags import MOUNT_ATTR_RDONLY, NAMESPACES
from isolate.errors import HostLacks, LaunchError
from isolate.plan.hints import hint
from isolate.plan.model import Op, Plan, Step
from isolate.supervise import archive, cgroupfs, confined, freezer, joining, loops, trees
from isolate.supervise import template as templates
from isolate.supervise.hostids import HostIds, reserve_ids
from isolate.supervise.start import start_init
from isolate.supervise.template import Template

__all__ = ["Prepared", "prepare", "write_id_maps"]

@define
class Prepared:
    """What the steps have made: fds by slot name, and everything's undo."""

    undo: ExitStack
    fds: dict[str, int] = Factory(dict)
    ids: HostIds | None = None
    leaf: Any = None
    idmap_fd: int = -1
    absent: set[str] = Factory(set)
    id_map: Step | None = None
    profile: str = ""
    template_ops: tuple[Op, ...] = ()
    template: Template | None = None
    stocked: bool = False

    @property
    def mount_ns(self) -> int:
        """The mount namespace that init starts with a copy of; -1: the caller's."""
        return self.template.fd if self.template is not None else -1


def open_tree(step: Step, made: Prepared) -> None:
    """A detached copy of a host tree with its attributes set, for BIND."""
    path, recursive, attr_set, attr_clr, optional, idmap = step.args
    userns_fd = idmap_namespace(made) if idmap else -1
    try:
        fd = trees.detached(path, recursive, attr_set, attr_clr, optional, userns_fd)
    except OSError as error:
        if error.errno != errno.EINVAL or userns_fd < 0:
            raise
        # No idmapped mounts there (proc, devtmpfs, overlay, before Linux 6.3 tmpfs), if it is well
        # without: to read, what is for others will do.
        fd = trees.detached(path, recursive, attr_set, attr_clr, optional)
        if not attr_set & MOUNT_ATTR_RDONLY:
            os.close(fd)
            raise not_as_theirs(path) from error
    if fd < 0:
        made.absent.add(step.slot or "")  # optional: its op is left out
        return
    made.undo.callback(os.close, fd)
    made.fds[step.slot or ""] = fd


def not_as_theirs(path: str) -> HostLacks:
    """What is to be written can't be shown as the program's own."""
    kind = trees.kind_of(path)
    return HostLacks(
        "ids",
        f"{path} is on {kind}, which this kernel can't show under other ids (idmapped mounts), so "
        "the box's own ids could neither write there nor would the files be yours",
        "use a directory on another file system (ext4, xfs, btrfs; a tmpfs from Linux 6.3 on), or "
        "be an ordinary user, whose own id the program has",
    )


def idmap_namespace(made: Prepared) -> int:
    """A user namespace that shows the caller's files as the program's, and takes its files as the
    caller's (mount_setattr(2), MOUNT_ATTR_IDMAP). Held by its fd alone."""
    if made.idmap_fd >= 0:
        return made.idmap_fd
    if made.ids is None:
        raise HostLacks("user", "an idmapped mount needs reserved ids")
    program = made.ids.base + 1
    holder = start_init(NAMESPACES["user"])
    try:
        for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
            write_whole(f"/proc/{holder.pid}/{kind}_map", f"{own} {program} 1\n".encode())
        fd = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        made.undo.callback(os.close, fd)
    finally:
        holder.close()
    made.idmap_fd = fd
    return fd


def open_namespace(step: Step, made: Prepared) -> None:
    """Somebody's namespace, for SETNS; none where the caller is in it already."""
    fd = joining.open_namespace(*step.args)
    if fd < 0:
        made.absent.add(step.slot or "")
        return
    made.undo.callback(os.close, fd)
    made.fds[step.slot or ""] = fd


def reserve(step: Step, made: Prepared) -> None:
    """Host ids of this box alone."""
    made.ids = reserve_ids(*step.args)
    made.undo.callback(made.ids.close)


def keep_id_map(step: Step, made: Prepared) -> None:
    """Written after the clone, by `write_id_maps`."""
    made.id_map = step


def init_id(made: Prepared) -> int | None:
    """The host's uid of init: the first line of its map."""
    if made.id_map is None:
        return None
    _, outside, _ = made.id_map.args[0][0]
    if outside is not None:
        return int(outside)
    return made.ids.base if made.ids is not None else None


def make_leaf(step: Step, made: Prepared) -> None:
    """The box's own cgroup, with its limits."""
    freezer.reclaim()
    limit, names, split = step.args
    made.leaf = cgroupfs.create(limit, names, init_id(made) if split else None)
    made.undo.callback(made.leaf.close)
    made.fds.update(made.leaf.join_fds)


def find_place(step: Step, made: Prepared) -> None:
    """Where the leaf will be, before init is cloned: if this process moves for that, init, which
    must be in the same cgroup, comes along."""
    cgroupfs.find_place(step.args[1])


def see_to_profile(step: Step, made: Prepared) -> None:
    """The box's AppArmor profile: loaded if it is temporary, else looked for."""
    made.profile, temporary = confined.prepare(step)
    if temporary is not None:
        made.undo.callback(temporary.close)


def find_template(step: Step, made: Prepared) -> None:
    """The mount tree, made by an earlier box of such a policy, or now."""
    made.template = templates.get(made.template_ops)


def keep(step: Step, made: Prepared, fd: int) -> None:
    """A descriptor for a slot, until the box ends."""
    made.undo.callback(os.close, fd)
    made.fds[step.slot or ""] = fd


def mount_image(step: Step, made: Prepared) -> None:
    """A file system's image, mounted by a loop device, not attached anywhere."""
    path, kind, attr, _, _, idmap = step.args
    userns_fd = idmap_namespace(made) if idmap else -1
    keep(step, made, loops.mounted(path, kind, attr, userns_fd))


def read_archive(step: Step, made: Prepared) -> None:
    """An archive's entries, for UNPACK."""
    keep(step, made, archive.entries(*step.args))


def make_upper(step: Step, made: Prepared) -> None:
    """What an overlay needs in a host directory that takes its changes."""
    for name in ("data", "work"):
        with suppress(FileExistsError):
            os.mkdir(os.path.join(step.args[0], name), 0o755)


KINDS: dict[str, Callable[[Step, Prepared], None]] = {
    "open_tree": open_tree,
    "open_ns": open_namespace,
    "image": mount_image,
    "archive": read_archive,
    "make_upper": make_upper,
    "reserve_ids": reserve,
    "id_map": keep_id_map,
    "cgroup": make_leaf,
    "cgroup_first": make_leaf,
    "apparmor": see_to_profile,
    "template": find_template,
}


# What only programs need: done while init sets the box up.
MEANWHILE = ("cgroup",)
BEFORE = {"cgroup": find_place}  # what of them can't wait


def prepare(plan: Plan, made: Prepared, meanwhile: bool = False) -> None:
    """Run all steps in order: those before the clone, or those that set-up can run beside.

    Raises: LaunchError naming the step; HostLacks. What was made is undone by `made.undo`.
    """
    steps, made.template_ops = plan.steps, plan.template
    for number, step in enumerate(steps):
        work = KINDS[step.kind]
        if (step.kind in MEANWHILE) is not meanwhile:
            if meanwhile or step.kind not in BEFORE:
                continue
            work = BEFORE[step.kind]
        try:
            work(step, made)
        except (LaunchError, HostLacks):
            raise
        except OSError as error:
            code = error.errno or 0
            raise LaunchError(
                number, step, code, hint(step, code, None), steps=len(steps)
            ) from error


def id_lines(lines: tuple[tuple[int, int | None, int], ...], ids: HostIds | None) -> bytes:
    """The text for uid_map; an outside of None is the next reserved id."""
    text, nth = [], 0
    for inside, outside, count in lines:
        if outside is None:
            if ids is None:
                raise HostLacks("user", "the id map names reserved ids, but none were reserved")
            outside = ids.base + nth
            nth += count
        text.append(f"{inside} {outside} {count}\n")
    return "".join(text).encode()


def write_whole(path: str, data: bytes) -> None:
    """One write(2), as procfs wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(5, "short write", path)
    finally:
        os.close(fd)


def write_id_maps(pid: int, made: Prepared) -> None:
    """Write the maps of the process that was just cloned; before set-up is asked for.

    Raises: LaunchError.
    """
    if made.id_map is None:
        return
    uid_lines, gid_lines, deny_setgroups = made.id_map.args
    try:
        if deny_setgroups:
            write_whole(f"/proc/{pid}/setgroups", b"deny")
        write_whole(f"/proc/{pid}/uid_map", id_lines(uid_lines, made.ids))
        write_whole(f"/proc/{pid}/gid_map", id_lines(gid_lines, made.ids))
    except OSError as error:
        code = error.errno or 0
        raise LaunchError(0, made.id_map, code, hint(made.id_map, code, None)) from error
