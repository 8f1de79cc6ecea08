# SPDX-License-Identifier: Apache-2.0
"""Detached copies of host trees, made by a parent that is root: the box's ids may not get there."""

from __future__ import annotations

import ctypes
import os
import struct

from isolate.abi import mounts

__all__ = ["detached", "kind_of"]

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def call(number: int, what: str, *args: object) -> int:
    """One system call by number. Raises: OSError naming `what`."""
    result = int(LIBC.syscall(ctypes.c_long(number), *args))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def open_path(path: str) -> int:
    """O_PATH, through links but no magic ones (HARDENING 2). Raises: OSError."""
    how = struct.pack(
        "QQQ", os.O_PATH | os.O_CLOEXEC, 0, mounts.RESOLVE_NO_MAGICLINKS
    )
    return call(
        mounts.NR_OPENAT2,
        path,
        ctypes.c_long(-100),
        os.fsencode(path),
        ctypes.create_string_buffer(how, len(how)),
        ctypes.c_size_t(len(how)),
    )


def kind_of(path: str) -> str:
    """The type of the file system at a path, as the kernel's list of mounts has it."""
    try:
        device = os.stat(path).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as rows:
            for row in rows:
                fields = row.split()
                if fields[2] == wanted:
                    return fields[fields.index("-") + 1]
    except (OSError, ValueError):
        return "a file system"
    return "a file system"


def set_attributes(fd: int, attr_set: int, attr_clr: int, recursive: bool, userns_fd: int) -> None:
    """mount_setattr on a detached tree; `userns_fd` >= 0 makes it an idmapped mount."""
    if userns_fd >= 0:
        attr_set |= mounts.MOUNT_ATTR_IDMAP
    if not attr_set and not attr_clr:
        return
    attr = struct.pack("QQQQ", attr_set, attr_clr, 0, max(userns_fd, 0))
    call(
        mounts.NR_MOUNT_SETATTR,
        "mount_setattr",
        ctypes.c_long(fd),
        b"",
        ctypes.c_long(mounts.AT_EMPTY_PATH | (mounts.AT_RECURSIVE if recursive else 0)),
        ctypes.create_string_buffer(attr, len(attr)),
        ctypes.c_size_t(len(attr)),
    )


def detached(
    path: str,
    recursive: bool,
    attr_set: int,
    attr_clr: int,
    optional: bool = False,
    userns_fd: int = -1,
) -> int:
    """An fd of a private, detached copy of the tree at `path`; -1 if optional and absent.

    Raises: OSError with the path.
    """
    try:
        source = open_path(path)
    except (FileNotFoundError, NotADirectoryError):
        if optional:
            return -1
        raise
    try:
        flags = mounts.OPEN_TREE_CLONE | os.O_CLOEXEC | mounts.AT_EMPTY_PATH
        tree = call(
            mounts.NR_OPEN_TREE,
            path,
            ctypes.c_long(source),
            b"",
            ctypes.c_long(flags | (mounts.AT_RECURSIVE if recursive else 0)),
        )
    finally:
        os.close(source)
    try:
        set_attributes(tree, attr_set, attr_clr, recursive, userns_fd)
    except BaseException:
        os.close(tree)
        raise
    return tree
