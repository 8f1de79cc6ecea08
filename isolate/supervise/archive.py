# SPDX-License-Identifier: Apache-2.0
"""A tar archive as the entries that UNPACK takes (`_native/child_overlay.c`), in a memfd.

Only read here, never extracted on the host: names are made inside the box, below its root.
"""

from __future__ import annotations

import errno
import os
import struct
import tarfile
from collections.abc import Iterator
from typing import IO

__all__ = ["entries"]

HEAD = struct.Struct("<IIIIQ")
DIR, FILE, SYMLINK, LINK = 1, 2, 3, 4
CHUNK = 1 << 20
MOST = 1 << 20  # entries
PERMISSIONS = 0o777  # no set-id bits: the root is nosuid


def clean(name: str) -> str:
    """An absolute path in the root; empty for the root itself. Raises: OSError for `..`."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise OSError(errno.EINVAL, "the archive names a place outside of it", name)
    return "/" + "/".join(parts) if parts else ""


def head(kind: int, mode: int, path: str, target: str = "", size: int = 0) -> bytes:
    """One entry's head and names, padded to 8."""
    names = [os.fsencode(path), os.fsencode(target)]
    if len(names[0]) >= 4096 or len(names[1]) >= 4096:
        raise OSError(errno.ENAMETOOLONG, "a name in the archive is too long", path[:80])
    padded = [each + b"\0" * (8 - len(each) % 8) for each in names]
    sizes = (len(names[0]), len(names[1]), size)
    return HEAD.pack(kind, mode & PERMISSIONS, *sizes) + b"".join(padded)


def implied(path: str) -> tarfile.TarInfo:
    """A directory as tar would make it."""
    info = tarfile.TarInfo(path)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def members(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Each place's last entry, directories first, links to files last."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        path = clean(member.name)
        if path:
            found.pop(path, None)
            found[path] = member
        if len(found) > MOST:
            raise OSError(errno.E2BIG, f"more than {MOST} entries in the archive")

    for path in list(found):
        while path := path.rpartition("/")[0]:  # directories that no entry names
            if path not in found:
                found[path] = implied(path)

    def rank(each: tuple[str, tarfile.TarInfo]) -> tuple[int, int]:
        path, member = each
        return (0, path.count("/")) if member.isdir() else (2 if member.islnk() else 1, 0)

    yield from sorted(found.items(), key=rank)


def copy(source: IO[bytes], size: int, write: IO[bytes]) -> None:
    """A file's bytes, padded to 8. Raises: OSError if there are fewer."""
    left = size
    while left:
        data = source.read(min(CHUNK, left))
        if not data:
            raise OSError(errno.EIO, "the archive ends within a file")
        write.write(data)
        left -= len(data)
    write.write(b"\0" * (-size % 8))


def put(tar: tarfile.TarFile, path: str, member: tarfile.TarInfo, write: IO[bytes]) -> int:
    """One entry; its bytes of content. Devices, fifos and sockets are left out."""
    if member.isdir():
        write.write(head(DIR, member.mode, path))
    elif member.issym():
        write.write(head(SYMLINK, 0, path, member.linkname))
    elif member.islnk():
        write.write(head(LINK, 0, path, clean(member.linkname)))
    elif member.isreg():
        source = tar.extractfile(member)
        assert source is not None  # of a regular file there is one
        write.write(head(FILE, member.mode, path, "", member.size))
        copy(source, member.size, write)
        return member.size
    return 0


def entries(path: str, size: int) -> int:
    """An fd of a memfd with all entries.

    Raises: OSError, also for what is no archive, and for one that takes more than `size` bytes.
    """
    fd = os.memfd_create("isolate-archive", os.MFD_CLOEXEC)
    try:
        with tarfile.open(path, "r:*") as tar, open(fd, "wb", closefd=False) as write:
            total = 0
            for place, member in members(tar):
                if total + member.size > size:
                    raise OSError(errno.ENOSPC, f"it takes more than size={size} bytes", path)
                total += put(tar, place, member, write)
    except (tarfile.TarError, EOFError, ValueError) as error:
        os.close(fd)
        raise OSError(errno.EINVAL, f"no archive that can be read: {error}", path) from error
    except BaseException:
        os.close(fd)
        raise
    return fd
