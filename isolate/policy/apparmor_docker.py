# SPDX-License-Identifier: Apache-2.0
"""What Docker's documentation says that `docker-default` does, as rules of our own writing.

A container's root may do nearly everything inside; what belongs to the machine is closed: mounts,
the knobs of /proc and /sys, and processes under other profiles.
Source: docs.docker.com, "AppArmor security profiles for Docker", and the template it links to.
"""

from __future__ import annotations

__all__ = ["DOCKER"]

DOCKER = (
    "network,",
    "capability,",
    "file,",
    "umount,",
    # Files directly in /proc, and directories there that are no process's, but for sys.
    'deny "/proc/*" w,',
    'deny "/proc/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/**" w,',
    # Of /proc/sys only kernel/shm* is for writing: System V shared memory is the namespace's own.
    'deny "/proc/sys/[^k]**" w,',
    'deny "/proc/sys/kernel/{?,??,[^s][^h][^m]**}" w,',
    'deny "/proc/sysrq-trigger" rwklx,',
    'deny "/proc/kcore" rwklx,',
    "deny mount,",
    # Of /sys only fs/cgroup is for writing.
    'deny "/sys/[^f]*/**" wklx,',
    'deny "/sys/f[^s]*/**" wklx,',
    'deny "/sys/fs/[^c]*/**" wklx,',
    'deny "/sys/fs/c[^g]*/**" wklx,',
    'deny "/sys/fs/cg[^r]*/**" wklx,',
    'deny "/sys/firmware/**" rwklx,',
    'deny "/sys/devices/virtual/powercap/**" rwklx,',
    'deny "/sys/kernel/security/**" rwklx,',
)
