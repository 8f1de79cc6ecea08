# SPDX-License-Identifier: Apache-2.0
"""Control files and directories of a cgroup tree, whatever its version: written, compared, removed.

A leaf's owner holds a lock on its directory (flock); who can take the lock of a leaf that it did
not make knows that the owner is dead, and removes it: by lock, never by age.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from isolate.errors import HostLacks
from isolate.policy.cgroup import CgroupLimit, parse_cpus

__all__ = [
    "Setter",
    "get",
    "keyed",
    "kill_in",
    "lock",
    "make_leaf",
    "number",
    "pids_below",
    "pids_in",
    "put",
    "put_checked",
    "put_cpus",
    "put_text",
    "read_small",
    "reclaim",
    "remove_tree",
    "swap_exists",
    "value_of",
    "whole",
]

REMOVE_SECONDS = 10.0
MODE = 0o711  # whom the directory isn't can't open it, and so can't hold its lock
UNLIMITED = 1 << 62
# What says that something is wrong now, not that this machine can't.
TROUBLE = {errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EINTR}
Setter = Callable[[str, CgroupLimit], None]  # a directory, the limits that it is to hold


def put(directory: str, file: str, value: int | str) -> None:
    """Write one control file. Raises: HostLacks naming file and value; OSError in trouble."""
    path = f"{directory}/{file}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            data = str(value).encode()
            if os.write(fd, data) != len(data):
                raise HostLacks(file, f"writing {value} to {path}: a part was not taken")
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in TROUBLE:
            raise
        raise HostLacks(file, f"writing {value} to {path}: {error.strerror}") from error


def get(directory: str, file: str) -> str:
    """A control file's text. Raises: OSError."""
    fd = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("ascii", "replace")


def whole(text: str) -> int:
    """The one number of a control file; "max" is a very large one."""
    text = text.strip()
    return UNLIMITED if text == "max" else int(text)


def value_of(key: str, text: str) -> int:
    """The number behind `key` in lines of "key value", 0 if absent."""
    match = re.search(rf"^{re.escape(key)} (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def number(directory: str, file: str) -> int:
    """A control file that holds one number; "max" is a very large one. Raises: OSError."""
    return whole(get(directory, file))


def keyed(directory: str, file: str, key: str) -> int:
    """The number behind `key` in a file of "key value" lines, 0 if absent. Raises: OSError."""
    return value_of(key, get(directory, file))


def put_checked(directory: str, file: str, value: int, slack: int = 0) -> None:
    """Write, and compare with what the kernel made of it: at most `slack` less, never more.

    Raises: HostLacks.
    """
    put(directory, file, value)
    held = number(directory, file)
    if not value - slack <= held <= value:
        raise HostLacks(file, f"{directory}/{file} holds {held} after {value} was written")


def put_text(directory: str, file: str, value: str) -> None:
    """Write a line, and compare what is there then. Raises: HostLacks."""
    put(directory, file, value)
    found = get(directory, file).strip()
    if found != value:
        raise HostLacks(file, f"{directory}/{file} holds {found!r} after {value!r} was written")


def put_cpus(directory: str, file: str, value: str, effective: str) -> None:
    """Write a list of numbers, and compare it with what `effective` holds. Raises: HostLacks."""
    put(directory, file, value)
    held = get(directory, effective).strip()
    if not held or parse_cpus(held) != parse_cpus(value):
        raise HostLacks(file, f"{directory}/{effective} holds {held!r} after {value} was written")


def swap_exists() -> bool:
    """Whether this machine has any swap at all."""
    return len((read_small("/proc/swaps") or "").splitlines()) > 1


def lock(directory: str, blocking: bool = False) -> int | None:
    """An fd that holds the directory's lock; None if somebody else has it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def pids_in(directory: str) -> list[int]:
    """Processes of one cgroup; none if it is gone."""
    try:
        return [int(line) for line in get(directory, "cgroup.procs").split()]
    except OSError:
        return []


def pids_below(directory: str) -> list[int]:
    """Processes of a cgroup and of those below it."""
    return [pid for place, _, _ in os.walk(directory) for pid in pids_in(place)]


def kill_in(directory: str) -> None:
    """SIGKILL all processes of a directory and below; the caller repeats until it is empty.

    By cgroup.kill (Linux 5.14, v2) where there is one; else by pidfd, one by one.
    """
    with suppress(FileNotFoundError):
        fd = os.open(f"{directory}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
        return
    for place, _, _ in os.walk(directory):
        for pid in pids_in(place):
            kill_one(pid, place)


def kill_one(pid: int, place: str) -> None:
    """By pidfd, if it is still a process of that cgroup."""
    with suppress(ProcessLookupError):  # it ended by itself
        fd = os.pidfd_open(pid)
        try:
            if pid in pids_in(place):  # the number was not reused
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def children(fd: int) -> list[str]:
    """Names of the cgroups right below; permissions that were taken from us are put back."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if os.geteuid() != 0 and mode & 0o700 != 0o700:
        os.chmod(f"/proc/self/fd/{fd}", mode | 0o700)
    with os.scandir(fd) as found:
        return [each.name for each in found if each.is_dir(follow_symlinks=False)]


def open_child(name: str, fd: int) -> int:
    """A directory below, also where its owner, which we are, took our rights to it away."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=fd)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=fd)
        return os.open(name, flags, dir_fd=fd)


def remove_below(top: int) -> None:
    """Remove every cgroup below: any depth and number, with two descriptors. Raises: OSError."""
    fd = os.dup(top)
    try:
        todo = [children(fd)]
        while todo:
            if todo[-1]:
                name = todo[-1][-1]
                try:
                    os.rmdir(name, dir_fd=fd)
                    todo[-1].pop()
                    continue
                except FileNotFoundError:
                    todo[-1].pop()
                    continue
                except OSError:
                    inner = open_child(name, fd)
                os.close(fd)
                fd = inner
                todo.append(children(fd))
                continue
            todo.pop()
            if todo:
                upper = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = upper
                os.rmdir(todo[-1].pop(), dir_fd=fd)
    finally:
        os.close(fd)


def remove_once(directory: str) -> None:
    """One attempt. Raises: OSError; FileNotFoundError if it is gone."""
    with suppress(FileNotFoundError):
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError:
            above = os.open(os.path.dirname(directory), os.O_PATH | os.O_CLOEXEC)
        try:
            fd = open_child(os.path.basename(directory), above)
            try:
                remove_below(fd)
            finally:
                os.close(fd)
            os.rmdir(directory)
        finally:
            os.close(above)


def remove_tree(directory: str, kill: Callable[[], None] | None = None) -> None:
    """Remove a leaf and what was made below it; what still runs there is killed.

    Raises: OSError, if it stays busy.
    """
    end = time.monotonic() + REMOVE_SECONDS
    wait = 0.0005
    while True:
        try:
            remove_once(directory)
            return
        except OSError:
            if time.monotonic() > end:
                raise
        (kill or (lambda: kill_in(directory)))()
        time.sleep(wait)
        wait = min(wait * 2, 0.05)


def made_and_locked(directory: str) -> int | None:
    """A new directory's lock; None if somebody has it. Raises: OSError; then it is gone again."""
    os.mkdir(directory, MODE)
    try:
        return lock(directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.rmdir(directory)
        raise


def make_leaf(
    above: str, name: str, prepare: Callable[[str], None] | None = None
) -> tuple[str, int]:
    """A new directory, locked before `reclaim` of another process could take it for stale.

    `prepare` makes the parent ready for it; the parent may vanish and come back at any time.
    """
    for _ in range(100):
        with suppress(FileExistsError):
            os.mkdir(above, MODE)
        try:
            guard = lock(above, blocking=True)
            try:
                if prepare is not None:
                    prepare(above)
                held = made_and_locked(f"{above}/{name}")
            finally:
                os.close(guard) if guard is not None else None
        except FileNotFoundError:
            continue  # the parent was removed as empty by another process
        except HostLacks as error:
            if isinstance(error.__cause__, FileNotFoundError):
                continue
            raise
        if held is None:
            raise HostLacks("cgroup", f"{above}/{name} is locked by somebody else")
        return f"{above}/{name}", held
    raise HostLacks("cgroup", f"{above} vanishes as often as it is made")


def reclaim(above: str) -> int:
    """Remove the leaves whose owner is dead: their lock is free. How many were removed."""
    removed = 0
    try:
        names = [name for name in os.listdir(above) if name.startswith("isolate-")]
        guard = lock(above, blocking=True)
    except FileNotFoundError:
        return 0
    try:
        for name in names:
            with suppress(FileNotFoundError):
                held = lock(f"{above}/{name}")
                if held is not None:
                    try:
                        remove_tree(f"{above}/{name}")
                        removed += 1
                    finally:
                        os.close(held)
    finally:
        os.close(guard) if guard is not None else None
    return removed


def read_small(path: str) -> str | None:
    """A file's text, None if it can't be read."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
