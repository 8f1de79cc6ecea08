# SPDX-License-Identifier: Apache-2.0
"""Landlock's rights, each with the ABI level that brought it; levels 1 to 7 (Linux 5.13 to 6.15).

Source: kernel include/uapi/linux/landlock.h and Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

__all__ = [
    "EXECUTE",
    "FILE_RIGHTS",
    "FS",
    "LOG",
    "MAX_LEVEL",
    "NET",
    "NR_CREATE_RULESET",
    "READ",
    "SCOPE",
    "VERSION_FLAG",
    "WRITE",
    "bits",
    "level_of",
    "names_at",
]

MAX_LEVEL = 7
NR_CREATE_RULESET = 444  # the same on every architecture
VERSION_FLAG = 1  # LANDLOCK_CREATE_RULESET_VERSION

# name: (bit, level)
FS: dict[str, tuple[int, int]] = {
    "execute": (1 << 0, 1),
    "write_file": (1 << 1, 1),
    "read_file": (1 << 2, 1),
    "read_dir": (1 << 3, 1),
    "remove_dir": (1 << 4, 1),
    "remove_file": (1 << 5, 1),
    "make_char": (1 << 6, 1),
    "make_dir": (1 << 7, 1),
    "make_reg": (1 << 8, 1),
    "make_sock": (1 << 9, 1),
    "make_fifo": (1 << 10, 1),
    "make_block": (1 << 11, 1),
    "make_sym": (1 << 12, 1),
    "refer": (1 << 13, 2),
    "truncate": (1 << 14, 3),
    "ioctl_dev": (1 << 15, 5),
}
NET: dict[str, tuple[int, int]] = {"bind_tcp": (1 << 0, 4), "connect_tcp": (1 << 1, 4)}
SCOPE: dict[str, tuple[int, int]] = {
    "abstract_unix_socket": (1 << 0, 6),
    "signal": (1 << 1, 6),
}
# Flags of landlock_restrict_self: what of a denial goes to the audit log.
LOG: dict[str, tuple[int, int]] = {
    "same_exec_off": (1 << 0, 7),
    "new_exec_on": (1 << 1, 7),
    "subdomains_off": (1 << 2, 7),
}

READ = ("read_file", "read_dir")
EXECUTE = ("execute",)
WRITE = tuple(name for name in FS if name not in (*READ, *EXECUTE))
# What a rule on something that is no directory may name; _native/child_lsm.c drops the rest.
FILE_RIGHTS = ("execute", "write_file", "read_file", "truncate", "ioctl_dev")


def names_at(table: dict[str, tuple[int, int]], level: int) -> tuple[str, ...]:
    """The names that a level knows."""
    return tuple(name for name, (_, since) in table.items() if since <= level)


def level_of(table: dict[str, tuple[int, int]], names: tuple[str, ...]) -> int:
    """The least level that knows all of them; 0 for none."""
    return max((table[name][1] for name in names), default=0)


def bits(table: dict[str, tuple[int, int]], names: tuple[str, ...]) -> int:
    """Names as one mask."""
    mask = 0
    for name in names:
        mask |= table[name][0]
    return mask
