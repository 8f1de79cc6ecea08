# SPDX-License-Identifier: Apache-2.0
"""The files of a leaf that every run reads before and after: kept open, parsed when they changed.

Opening a file of cgroupfs costs several times what reading it does.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["CounterFiles", "kept"]

MOST_KEPT = 128  # descriptors of this process, some twenty boxes' worth; others open each time
SIZE = 65536
T = TypeVar("T")
LOCKS = [threading.Lock()]
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def opened(path: str) -> int:
    """A control file, also where a program of our own id took our rights to it away.

    Raises: OSError.
    """
    try:
        return os.open(path, FLAGS)
    except PermissionError:
        os.chmod(os.path.dirname(path), 0o711)
        os.chmod(path, 0o644)
        return os.open(path, FLAGS)
count = 0


def after_fork() -> None:
    """The lock may have been held by a thread that the child has not."""
    LOCKS[0] = threading.Lock()


os.register_at_fork(after_in_child=after_fork)


def kept() -> int:
    """How many descriptors are kept, of all leaves."""
    return count


def reserve(change: int) -> bool:
    """Count some more, or fewer; False if there are too many."""
    global count
    with LOCKS[0]:
        if change > 0 and count + change > MOST_KEPT:
            return False
        count += change
        return True


class CounterFiles:
    """One leaf's. A file that is read once is opened and closed; from the second time on it stays
    open, until `close`. Safe in threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.fds: dict[str, int] = {}
        self.once: set[str] = set()
        self.memo: dict[tuple[str, Any], tuple[bytes, Any]] = {}
        self.closed = False

    def read(self, path: str) -> bytes:
        """What a file holds now. Raises: OSError; FileNotFoundError also if its leaf is gone."""
        with self.lock:
            fd = self.fds.get(path, -1)
            mine = fd < 0
            if mine:
                fd = opened(path)
            try:
                if mine and path in self.once and not self.closed and reserve(1):
                    self.fds[path] = fd
                    mine = False
                self.once.add(path)
                return whole(fd)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    raise FileNotFoundError(errno.ENOENT, "its cgroup is gone", path) from error
                raise
            finally:
                if mine:
                    os.close(fd)

    def parsed(self, path: str, key: Any, parse: Callable[[str], T]) -> T:
        """`parse` of a file's text; not called again for the same text and key. Raises: OSError."""
        data = self.read(path)
        last = self.memo.get((path, key))
        if last is None or last[0] != data:
            last = (data, parse(data.decode("ascii", "replace")))
            self.memo[path, key] = last
        found: T = last[1]
        return found

    def close(self) -> None:
        """Close what is kept."""
        with self.lock:
            self.closed = True
            fds, self.fds = list(self.fds.values()), {}
            reserve(-len(fds))
            for fd in fds:
                os.close(fd)


def whole(fd: int) -> bytes:
    """All of a file, from its start."""
    data = os.pread(fd, SIZE, 0)
    if len(data) < SIZE:
        return data
    parts = [data]
    while data := os.pread(fd, SIZE, sum(map(len, parts))):
        parts.append(data)
    return b"".join(parts)
