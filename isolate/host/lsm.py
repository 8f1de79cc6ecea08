# SPDX-License-Identifier: Apache-2.0
"""What Landlock and AppArmor this kernel has; reads only."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from isolate.abi.landlock import NR_CREATE_RULESET, VERSION_FLAG

__all__ = ["apparmor", "landlock"]

ENABLED = "/sys/module/apparmor/parameters/enabled"
LABELS = ("/proc/thread-self/attr/apparmor/current", "/proc/thread-self/attr/current")
REASONS = {
    errno.ENOSYS: "the kernel is built without Landlock",
    errno.EOPNOTSUPP: "Landlock is not among the lsm= that the kernel was booted with",
    errno.EPERM: "a seccomp filter, a container's say, refuses landlock_create_ruleset",
}


def landlock() -> tuple[int, str]:
    """(ABI level, why it is 0), as landlock_create_ruleset(2) tells it; nothing is created."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    level = libc.syscall(
        ctypes.c_long(NR_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG)
    )
    if level > 0:
        return int(level), ""
    number = ctypes.get_errno()
    why = REASONS.get(number, f"landlock_create_ruleset: {os.strerror(number)}")
    return 0, why


def apparmor() -> tuple[str, str]:
    """(why it can't be used or "", the label of this thread or "")."""
    try:
        enabled = Path(ENABLED).read_text(encoding="ascii").strip()
    except OSError:
        return "the kernel has no AppArmor", ""
    if enabled != "Y":
        return "AppArmor is not enabled: boot with apparmor=1 security=apparmor", ""
    for path in LABELS:
        try:
            label = Path(path).read_bytes().strip(b"\0\n ").decode("utf-8", "replace")
        except OSError:
            continue
        return "", label
    return "AppArmor is enabled, but /proc/thread-self/attr can't be read", ""
