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
}

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
    (OpCode.RLIMIT, errno.EPERM): "only CAP_SYS_RESOURCE may raise a hard limit",
}
BY_STEP = {
    ("open_tree", errno.ENOENT): "the path must exist on this machine; see read=, write= or Chroot",
    ("open_tree", errno.EINVAL): "the file system there can't be shown under other ids (idmapped "
    'mounts), as overlay can\'t: use another, or weaken={"ids"}',
    ("id_map", errno.EPERM): "an ordinary user may map only its own ids",
}


def hint(failed: Any, number: int, host: Any) -> str | None:
    """One sentence for a failed Op or Step, or None."""
    code = getattr(failed, "code", None)
    if code is not None:
        return BY_OP.get((code, number))
    return BY_STEP.get((getattr(failed, "kind", ""), number))


def forbidden(failed: Any, number: int) -> HostLacks | None:
    """What this machine turned out to lack, where the failure of an op says so."""
    found = FORBIDDEN.get((getattr(failed, "code", None), number))  # type: ignore[arg-type]
    if found is None:
        return None
    name, why, what = found
    return HostLacks(name, why, f'{what}; or weaken={{"{name}"}} to run without')
