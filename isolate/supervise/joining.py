# SPDX-License-Identifier: Apache-2.0
"""Namespaces of others: opened once, checked, and joined by an isolate-init, never by us.

The first isolate-init joins, and clones the one that stays (op REBORN): what was joined is in force
for all that the box starts, and a user namespace of the box's own can come after it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import socket
from collections.abc import Mapping
from pathlib import Path

from isolate.abi.flags import NAMESPACES
from isolate.errors import LaunchError
from isolate.plan.model import Op
from isolate.policy.namespace import started
from isolate.supervise.channel import socket_pair
from isolate.supervise.setup import ANSWER_SECONDS, set_up
from isolate.supervise.start import Init

__all__ = ["FILE_NAMES", "join", "open_namespace", "pid_of"]

NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
# What a process' children get: isolate-init itself stays in the time namespace that it came from.
FILE_NAMES = {
    "user": "user",
    "mount": "mnt",
    "pid": "pid_for_children",
    "net": "net",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "time": "time_for_children",
}


def pid_of(pidfd: int) -> int:
    """The pid behind a pidfd, as we see it. Raises: OSError, if it has ended."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    match = re.search(r"^Pid:\s+(-?\d+)$", text, re.MULTILINE)
    if match is None:
        raise OSError(errno.EINVAL, "no pidfd")
    if int(match[1]) <= 0:
        raise ProcessLookupError(errno.ESRCH, "the process of the pidfd has ended")
    return int(match[1])


def ended(pidfd: int) -> bool:
    """Whether a pidfd's process is dead."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def of_pidfd(pidfd: int, kind: str) -> int:
    """A namespace of a process that can't be another one. Raises: OSError."""
    path = f"/proc/{pid_of(pidfd)}/ns/{FILE_NAMES[kind]}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # a zombie is in no namespace
        fd = -1
    if ended(pidfd):  # the number may have been given to another before we opened the file
        if fd >= 0:
            os.close(fd)
        raise ProcessLookupError(errno.ESRCH, "the process has ended")
    if fd < 0:
        raise FileNotFoundError(errno.ENOENT, "no such namespace", path)
    return fd


def of_pid(what: str, kind: str) -> int:
    """The namespace of "PID" or "PID:STARTED". Raises: OSError."""
    pid, _, at = what.partition(":")
    pidfd = os.pidfd_open(int(pid))
    try:
        if at and started(int(pid)) != int(at):
            raise ProcessLookupError(errno.ESRCH, "that pid is another process by now")
        return of_pidfd(pidfd, kind)
    finally:
        os.close(pidfd)


def of_fd(fd: int, kind: str) -> int:
    """The namespace of an open file, or of a pidfd. Raises: OSError."""
    if "pidfd" in os.readlink(f"/proc/self/fd/{fd}"):
        return of_pidfd(fd, kind)
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def open_target(target: str, kind: str) -> int:
    """What a join names, opened, whatever it is. Raises: OSError."""
    how, _, what = target.partition(":")
    if how == "pid":
        return of_pid(what, kind)
    if how == "fd":
        try:
            os.fstat(int(what))
        except OSError:
            raise OSError(errno.EBADF, "no such descriptor") from None
        return of_fd(int(what), kind)
    # Not blocking: a path may be a FIFO by mistake.
    return os.open(what, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def open_namespace(target: str, kind: str) -> int:
    """A descriptor of the namespace that a join names; -1 if the caller is in it.

    Raises: OSError; FileExistsError for the caller's own user namespace, which can't be entered.
    """
    fd = open_target(target, kind)
    try:
        try:
            is_kind = fcntl.ioctl(fd, NS_GET_NSTYPE) & 0xFFFFFFFF == NAMESPACES[kind]
        except OSError:
            is_kind = False
        if not is_kind:
            raise OSError(errno.EINVAL, f"no {kind} namespace", target)
        ours = os.stat(f"/proc/self/ns/{FILE_NAMES[kind]}")
        theirs = os.fstat(fd)
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            return fd
        if kind == "user":
            raise FileExistsError(errno.EEXIST, "the caller's own user namespace", target)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return -1


def receive_pidfd(sock: socket.socket, op: Op) -> int:
    """What the first init sends when it has cloned the second. Raises: LaunchError."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    if not poller.poll(ANSWER_SECONDS * 1000):
        raise LaunchError(0, op, errno.ETIMEDOUT)
    data, fds, _, _ = socket.recv_fds(sock, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if data != b"r" or len(fds) != 1:
        raise LaunchError(0, op, errno.EPIPE)
    os.set_inheritable(fds[0], False)
    return fds[0]


def join(first: Init, ops: tuple[Op, ...], fds: Mapping[str, int]) -> Init:
    """Have an init join, and clone the one that stays; the first one is gone then.

    Raises: LaunchError naming the op; then both are gone, or go when `first` is closed.
    """
    ours, theirs = socket_pair()
    with ours:
        try:
            set_up(first, ops, {**fds, "reborn": theirs.fileno()})
        finally:
            theirs.close()
        pidfd = receive_pidfd(ours, ops[-1])
    try:
        second = Init(pid_of(pidfd), pidfd, first.control)
    except BaseException:
        os.close(pidfd)
        raise
    first.reap()
    with first.lock:
        os.close(first.pidfd)
        first.pidfd = -1
    return second
