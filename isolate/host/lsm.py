# SPDX-License-Identifier: Apache-2.0
"""What Landlock and AppArmor this kernel has; reads only."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from isolate.abi.landlock import NR_CREATE_RULESET, VERSION_FLAG
from isolate.host import asking

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
    [answer] = asking.answers([(NR_CREATE_RULESET, 0, 0, VERSION_FLAG)])
    if answer is None:
        return 0, "a seccomp filter around this process kills for landlock_create_ruleset"
    if answer > 0:
        return answer, ""
    return 0, REASONS.get(-answer, f"landlock_create_ruleset: {os.strerror(-answer)}")


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
