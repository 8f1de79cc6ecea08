# SPDX-License-Identifier: Apache-2.0
"""A file system's image as a detached mount, by a loop device that frees itself.

The device is bound read-only with LO_FLAGS_AUTOCLEAR: it is free again when the mount is gone,
however this process ends. Source: linux/loop.h, linux/mount.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from isolate.abi import mounts
from isolate.errors import HostLacks
from isolate.supervise.trees import call, set_attributes

__all__ = ["mounted"]

# struct loop_config: fd, block_size, struct loop_info64, reserved.
CONFIG = struct.Struct("<II 5Q 4I 64s 64s 32s 2Q 64x")
FLAGS = mounts.LO_FLAGS_READ_ONLY | mounts.LO_FLAGS_AUTOCLEAR
TRIES = 16
OPTIONS = {"ext4": ("norecovery",)}  # its journal may not be replayed on a read-only device


def bind(file_fd: int) -> tuple[int, str]:
    """(fd, path) of a loop device that shows the file. Raises: OSError, HostLacks."""
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise HostLacks("image", f"/dev/loop-control: {error.strerror}", "load the loop module") \
            from error  # fmt: skip
    config = CONFIG.pack(
        file_fd, 0, 0, 0, 0, 0, 0, 0, 0, 0, FLAGS, b"isolate", b"", b"", 0, 0
    )
    try:
        for _ in range(TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, mounts.LOOP_CTL_GET_FREE)}"
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, mounts.LOOP_CONFIGURE, config)
                return fd, path
            except OSError as error:
                os.close(fd)
                if error.errno != 16:  # EBUSY: somebody else was faster
                    raise
    finally:
        os.close(control)
    raise HostLacks("image", f"no free loop device after {TRIES} tries")


def configure(fs_fd: int, command: int, key: str | None, value: str | None) -> None:
    """One fsconfig. Raises: OSError naming the option."""
    call(
        mounts.NR_FSCONFIG,
        key or "fsconfig",
        ctypes.c_long(fs_fd),
        ctypes.c_long(command),
        key.encode() if key else None,
        os.fsencode(value) if value is not None else None,
        ctypes.c_long(0),
    )


def new_mount(kind: str, source: str, attr: int) -> int:
    """A detached mount of a device. Raises: OSError."""
    fs_fd = call(mounts.NR_FSOPEN, kind, kind.encode(), ctypes.c_long(mounts.FSOPEN_CLOEXEC))
    try:
        configure(fs_fd, mounts.FSCONFIG_SET_STRING, "source", source)
        for option in ("ro", *OPTIONS.get(kind, ())):
            configure(fs_fd, mounts.FSCONFIG_SET_FLAG, option, None)
        configure(fs_fd, mounts.FSCONFIG_CMD_CREATE, None, None)
        args = (ctypes.c_long(fs_fd), ctypes.c_long(mounts.FSMOUNT_CLOEXEC), ctypes.c_long(attr))
        return call(mounts.NR_FSMOUNT, source, *args)
    finally:
        os.close(fs_fd)


def mounted(path: str, kind: str, attr: int, userns_fd: int = -1) -> int:
    """An fd of a detached, read-only mount of the image at `path`.

    Args:
        userns_fd: a user namespace that shows the image's owners as others; -1 for none.

    Raises: OSError, HostLacks.
    """
    file_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        loop_fd, device = bind(file_fd)
    finally:
        os.close(file_fd)
    try:
        mount_fd = new_mount(kind, device, attr)
    finally:
        os.close(loop_fd)  # the mount holds the device now; without one it frees itself
    try:
        if userns_fd >= 0:
            set_attributes(mount_fd, 0, 0, False, userns_fd)
    except BaseException:
        os.close(mount_fd)
        raise
    return mount_fd
