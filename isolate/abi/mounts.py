# SPDX-License-Identifier: Apache-2.0
"""Numbers of the mount calls that the parent makes: the same on every architecture since Linux 5.1.

Source: linux/mount.h, linux/openat2.h, linux/fcntl.h, asm-generic/unistd.h.
"""

from __future__ import annotations

__all__ = [
    "AT_EMPTY_PATH",
    "AT_RECURSIVE",
    "MOUNT_ATTR_IDMAP",
    "NR_MOUNT_SETATTR",
    "NR_OPENAT2",
    "NR_OPEN_TREE",
    "OPEN_TREE_CLONE",
    "RESOLVE_NO_MAGICLINKS",
]

NR_OPEN_TREE = 428
NR_OPENAT2 = 437
NR_MOUNT_SETATTR = 442
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
RESOLVE_NO_MAGICLINKS = 0x02
MOUNT_ATTR_IDMAP = 0x00100000
