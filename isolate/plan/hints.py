# SPDX-License-Identifier: Apache-2.0
"""What to do about a failed step, where the cause is known."""

from __future__ import annotations

import errno
from typing import Any

from isolate.abi.ops import OpCode

__all__ = ["hint"]

BY_OP = {
    (OpCode.BIND, errno.ENOENT): "the source must exist on this machine: see read=, write=, Mount",
    (OpCode.MOUNT_NEW, errno.ENOENT): "the target must exist in the root: a Mount.dir(...) first",
    (OpCode.MOUNT_NEW, errno.EPERM): "a container that masks parts of /proc forbids a new one; "
    "run it with an unmasked /proc, or share it",
    (OpCode.EXEC, errno.ENOENT): "the program, or the interpreter it names, is not in the box's "
    "root; pass read=[...] or Mount.bind(...)",
    (OpCode.EXEC, errno.EACCES): "the file is not executable for the box's uid, or lies in a "
    "directory that it can't pass",
    (OpCode.EXEC, errno.ENOEXEC): "the file has no '#!' line and is no program for this machine",
    (OpCode.CHDIR, errno.ENOENT): "cwd is a path inside the box",
    (OpCode.UNSHARE, errno.EPERM): "an ordinary user needs Namespace(user=True) with the others; a "
    "container's or an outer box's seccomp filter, or AppArmor, may forbid new namespaces at all",
    (OpCode.UNSHARE, errno.ENOSPC): "a limit of /proc/sys/user/max_*_namespaces is reached",
    (OpCode.RLIMIT, errno.EPERM): "only CAP_SYS_RESOURCE may raise a hard limit",
    (OpCode.APPARMOR, errno.ENOENT): "no profile of that name is loaded, or the box has no /proc: "
    "AppArmorProfile.load()",
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
    ("open_tree", errno.ENOENT): "the path must exist on this machine; see read=, write= or Chroot",
    ("id_map", errno.EPERM): "an ordinary user may map only its own ids",
}


def hint(failed: Any, number: int, host: Any) -> str | None:
    """One sentence for a failed Op or Step, or None."""
    code = getattr(failed, "code", None)
    if code is not None:
        return BY_OP.get((code, number))
    return BY_STEP.get((getattr(failed, "kind", ""), number))
