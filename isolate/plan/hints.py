# SPDX-License-Identifier: Apache-2.0
"""What to do about a failed step, where the cause is known."""

from __future__ import annotations

import errno
from typing import Any

from isolate.abi.ops import OpCode
from isolate.errors import HostLacks

__all__ = ["forbidden", "hint"]

SECCOMP = "start the container with --security-opt seccomp=unconfined, or a profile that allows it"
MASKS = "start the container with --security-opt systempaths=unconfined (podman: unmask=ALL)"
APPARMOR = (
    "a container's AppArmor profile or seccomp filter forbids mounts: start it with "
    "--security-opt apparmor=unconfined --security-opt seccomp=unconfined"
)
CANT_PASS = (
    "the box's own id can't pass a directory on that path: let others pass it (chmod o+x), or run "
    'under the caller\'s id with weaken={"ids"}'
)
# What only the attempt can tell: (op, errno) of a guarantee that an outer container forbids.
FORBIDDEN = {
    (OpCode.SETHOSTNAME, errno.EPERM): ("hostname", "sethostname is refused", SECCOMP),
    (OpCode.SETHOSTNAME, errno.ENOSYS): ("hostname", "sethostname is refused", SECCOMP),
    (OpCode.APPARMOR, errno.ENOENT): (
        "apparmor",
        "the kernel has no profile of that name",
        "AppArmorProfile.load()",
    ),
}

OVERLAY_HINT = (
    "a lower directory must be a directory of a file system that overlayfs takes; an ordinary "
    "user's must have no mounts below it"
)
BY_OP = {
    (OpCode.BIND, errno.ENOENT): "the source must exist on this machine: see read=, write=, Mount",
    (OpCode.MOUNT_NEW, errno.ENOENT): "the target must exist in the root: a Mount.dir(...) first",
    (OpCode.MOUNT_NEW, errno.EPERM): "a container that masks parts of /proc forbids a new one: "
    + MASKS,
    (OpCode.PROPAGATION, errno.EPERM): APPARMOR,
    (OpCode.PROPAGATION, errno.EACCES): APPARMOR,
    (OpCode.ROOT_TMPFS, errno.EPERM): APPARMOR,
    (OpCode.ROOT_TMPFS, errno.EACCES): APPARMOR,
    (OpCode.PIVOT_ROOT, errno.EPERM): APPARMOR,
    (OpCode.PIVOT_ROOT, errno.EACCES): APPARMOR,
    (OpCode.ROOT_BIND, errno.EACCES): CANT_PASS,
    (OpCode.BIND, errno.EACCES): CANT_PASS,
    (OpCode.BIND, errno.EINVAL): "an ordinary user can't bind a directory without the mounts below "
    "it: a layer of an overlay must have no mounts below it",
    (OpCode.OVERLAY, errno.EINVAL): OVERLAY_HINT,
    (OpCode.OVERLAY, errno.ENODEV): "the kernel has no overlayfs (CONFIG_OVERLAY_FS)",
    (OpCode.UNPACK, errno.ENOSPC): "the archive takes more than size=",
    (OpCode.EXEC, errno.ENOENT): "the program, or the interpreter it names, is not in the box's "
    "root; pass read=[...] or Mount.bind(...)",
    (OpCode.EXEC, errno.EACCES): "the file is not executable for the box's uid, or lies in a "
    "directory that it can't pass",
    (OpCode.EXEC, errno.ENOEXEC): "the file has no '#!' line and is no program for this machine",
    (OpCode.CHDIR, errno.ENOENT): "cwd is a path inside the box",
    (OpCode.UNSHARE, errno.EPERM): "an ordinary user needs Namespace(user=True) with the others; a "
    "container's or an outer box's seccomp filter, or AppArmor, may forbid new namespaces at all: "
    "--security-opt seccomp=unconfined, --security-opt apparmor=unconfined",
    (OpCode.UNSHARE, errno.ENOSPC): "a limit of /proc/sys/user/max_*_namespaces is reached",
    (OpCode.SETNS, errno.EPERM): "joining needs CAP_SYS_ADMIN over the namespace: be root, or join "
    'the "user" namespace that it belongs to as well',
    (OpCode.TIMENS, errno.EACCES): "clock offsets can't be set in namespaces that are joined",
    (OpCode.SETNS, errno.EINVAL): "only pid and user namespaces below the caller's can be joined",
    (OpCode.SETRESUID, errno.EINVAL): "the user namespace has no such id",
    (OpCode.SETRESGID, errno.EINVAL): "the user namespace has no such id",
    (OpCode.RLIMIT, errno.EPERM): "only CAP_SYS_RESOURCE may raise a hard limit",
    (OpCode.APPARMOR, errno.EINVAL): "AppArmor is not in force, or takes no such name",
    (OpCode.APPARMOR, errno.EACCES): "the caller's own profile doesn't let it change to this one: "
    "a change_profile rule, or stack=True",
    (OpCode.APPARMOR, errno.EPERM): "under no_new_privs a confined caller may only add a profile: "
    "stack=True",
    (OpCode.APPARMOR, errno.EKEYREJECTED): "the kernel holds the profile in another mode: "
    "complain=True is for a profile that only logs",
    (OpCode.LANDLOCK_PATH, errno.ENOENT): "a path of Landlock(read=, write=, execute=) must exist",
    (OpCode.LANDLOCK_RESTRICT, errno.E2BIG): "the kernel takes 16 layers of Landlock, and they are "
    "used up",
}
BY_STEP = {
    ("open_ns", errno.ESRCH): "that process has ended, or its number is another's by now",
    ("open_ns", errno.ENOENT): "a path is one of /proc/PID/ns/, or where a namespace is mounted",
    ("open_ns", errno.EACCES): "only the namespaces of processes that you may trace can be opened",
    ("open_ns", errno.EPERM): "only the namespaces of processes that you may trace can be opened",
    ("open_ns", errno.EBADF): "the descriptor has to stay open until the box has started",
    ("open_ns", errno.EINVAL): "that file is no namespace of this kind",
    ("open_ns", errno.EEXIST): "the caller is in that user namespace already: leave \"user\" out",
    ("open_tree", errno.ENOENT): "the path must exist on this machine; see read=, write= or Chroot",
    ("open_tree", errno.EINVAL): "the file system there can't be shown under other ids (idmapped "
    "mounts), as overlay can't: use another",
    ("id_map", errno.EPERM): "an ordinary user may map only its own ids",
}


def code_of(failed: Any) -> OpCode | None:
    """An op's code; a first process enters a profile as programs do, and fails as they do."""
    code: OpCode | None = getattr(failed, "code", None)
    return OpCode.APPARMOR if code is OpCode.STEWARD else code


def hint(failed: Any, number: int, host: Any) -> str | None:
    """One sentence for a failed Op or Step, or None."""
    code = code_of(failed)
    if code is not None:
        return BY_OP.get((code, number))
    return BY_STEP.get((getattr(failed, "kind", ""), number))


def forbidden(failed: Any, number: int) -> HostLacks | None:
    """What this machine turned out to lack, where the failure of an op says so."""
    found = FORBIDDEN.get((code_of(failed), number))  # type: ignore[arg-type]
    if found is None:
        return None
    name, why, what = found
    return HostLacks(name, why, f'{what}; or weaken={{"{name}"}} to run without')
