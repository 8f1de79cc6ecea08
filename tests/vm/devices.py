# SPDX-License-Identifier: Apache-2.0
"""A loop device, swap and huge pages, as root of a machine of its own can set them up."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

WRITE = """
import mmap, os, time
block = mmap.mmap(-1, 1 << 18)
block.write(b"x" * (1 << 18))
fd = os.open({path!r}, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600)
began = time.monotonic()
for _ in range({count}):
    os.write(fd, block)
print(time.monotonic() - began)
"""
READ = """
import mmap, os, time
block = mmap.mmap(-1, 4096)
fd = os.open({path!r}, os.O_RDONLY | os.O_DIRECT)
began = time.monotonic()
for _ in range({count}):
    assert os.preadv(fd, [block], 0) == 4096
print(time.monotonic() - began)
"""
HUGE = """
import mmap
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000
held = [mmap.mmap(-1, 2 << 20, flags=flags) for _ in range({count})]
for each in held:
    each[0] = 1
print("all")
"""


def sh(*argv):
    """Run a command; its output."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def loop_disk():
    """(mount point, device) of an ext4 on a loop device of our own."""
    image = Path("/srv/isolate/loop.img")
    image.write_bytes(b"")
    with image.open("r+b") as file:
        file.truncate(64 << 20)
    sh("modprobe", "loop")
    device = sh("losetup", "--find", "--show", str(image))
    point = Path("/srv/isolate/loop")
    try:
        sh("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", device)
        point.mkdir()
        sh("mount", device, str(point))
        try:
            yield str(point), device
        finally:
            sh("umount", str(point))
    finally:
        point.rmdir() if point.exists() else None
        sh("losetup", "--detach", device)
        image.unlink()


@contextmanager
def swap_file():
    """128 MiB of swap."""
    path = Path("/srv/isolate/swap")
    path.write_bytes(b"\0" * (128 << 20))
    path.chmod(0o600)
    sh("mkswap", str(path))
    sh("swapon", str(path))
    try:
        yield
    finally:
        sh("swapoff", str(path))
        path.unlink()


@contextmanager
def huge_pages(count):
    """So many of 2 MiB."""
    pool = Path("/proc/sys/vm/nr_hugepages")
    pool.write_text(str(count))
    try:
        yield
    finally:
        pool.write_text("0")


def number_of(device):
    """"MAJOR:MINOR"."""
    return sh("lsblk", "-dno", "MAJ:MIN", device).strip()
