# SPDX-License-Identifier: Apache-2.0
"""Which disk an `IoLimit` means: the kernel limits whole disks, by number."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from isolate.errors import HostLacks

__all__ = ["device_number"]


def device_number(name: str) -> str:
    """"MAJOR:MINOR" of a number, of a block device's path, or of the disk that holds a file.

    A partition is told as its disk. Raises: HostLacks.
    """
    number = name if not name.startswith("/") else of_path(name)
    entry = Path("/sys/dev/block") / number
    if not entry.exists():
        raise HostLacks("io", f"{name}: there is no block device {number}", "name a disk by path")
    if (entry / "partition").exists():
        return (entry.resolve().parent / "dev").read_text(encoding="ascii").strip()
    return number


def of_path(name: str) -> str:
    """The device itself, or what its file system is on. Raises: HostLacks."""
    try:
        found = os.stat(name)
    except OSError as error:
        raise HostLacks("io", f"{name}: {error.strerror}") from error
    device = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    if os.major(device) == 0:
        why = "its file system is on no block device (tmpfs, overlay, btrfs, a network)"
        raise HostLacks("io", f"{name}: {why}", 'name the disk itself, by path or "MAJOR:MINOR"')
    return f"{os.major(device)}:{os.minor(device)}"
