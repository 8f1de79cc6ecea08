# SPDX-License-Identifier: Apache-2.0
"""Inside the box: what stands between the server and one call. Loaded by file, as main.py is.

A keeper is a fork of the server and a subreaper: what descends from its call and loses its parent
comes to the keeper, so that a limit of the call can end all of it (docs/adr/0010). It has one call
at a time; with nothing left over it takes the next one.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
TAKEN, STATUS, KILL, IDLE = b"t", b"s", b"k", b"i"  # calling.py has the same
MESSAGE = 16
LOOK_MS = 20


def become_subreaper() -> None:
    """Raises: OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def listed(path: str) -> list[int]:
    """The numbers in a file; none if it is gone."""
    try:
        with open(path, "rb", 0) as file:
            return list(map(int, file.read(1 << 16).split()))
    except (FileNotFoundError, ProcessLookupError):
        return []


def children(pid: int) -> list[int]:
    """Children of every thread of a process; none if it is gone."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += listed(f"/proc/{pid}/task/{thread}/children")
    return found


def kill_descendants() -> None:
    """One pass: kill first, look for children then, since who is killed can fork no more.

    Raises: OSError without /proc; then somebody else has to end us.
    """
    queue = children(os.getpid())
    for pid in queue:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        queue += children(pid)  # the loop goes on over them


class Keeper:
    """One keeper's state: the server's socket, and the call that it has."""

    def __init__(self, server: socket.socket, run: Callable[[list[int]], None]) -> None:
        self.server = server
        self.run = run  # the process of one call; doesn't return
        self.pid = 0
        self.status: socket.socket | None = None
        self.end = b""
        self.killing = False

    def begin(self, fds: list[int]) -> None:
        """Fork the call; first say that it is taken: from here it may have run."""
        self.status = socket.socket(fileno=fds[4])
        self.killing, self.end = False, b""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.status.send(TAKEN)
        self.pid = os.fork()
        if self.pid == 0:
            self.server.close()
            self.status.detach()
            self.run(fds)
        for fd in fds[:4]:
            os.close(fd)

    def reap(self) -> bool:
        """Reap all that is dead; whether nobody is left."""
        while True:
            try:
                pid, code, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.pid:
                self.pid = 0
                self.end = struct.pack("<cidd", STATUS, code, usage.ru_utime, usage.ru_stime)

    def tell(self) -> None:
        """Report the call's end; a caller that has stopped waiting is nobody to tell."""
        if self.status is not None:
            with suppress(BrokenPipeError, ConnectionResetError):
                self.status.send(self.end)
            self.status.close()
            self.status = None

    def watch(self, pidfd: int) -> None:
        """Wait for the call's end, or for the word that ends it with all that it started."""
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        assert self.status is not None
        poller.register(self.status, select.POLLIN)
        for fd, _ in poller.poll():
            if fd != pidfd and not self.killing:
                self.killing = self.status.recv(MESSAGE) in (KILL, b"")

    def keep(self) -> None:
        """From the fork of the call to its end."""
        pidfd = os.pidfd_open(self.pid)
        try:
            while not self.end and not self.killing:
                self.watch(pidfd)
                self.reap()
        finally:
            os.close(pidfd)
        while self.killing:
            kill_descendants()
            if self.reap():
                break
            select.poll().poll(1)
        self.tell()

    def loop(self) -> None:
        """Calls, one after the other, until the server is gone or orphans are left over."""
        while True:
            message, fds, _, _ = socket.recv_fds(self.server, MESSAGE, 5)
            if not message:
                return
            self.begin(list(fds))
            self.keep()
            if not self.reap():
                break
            with suppress(BrokenPipeError, ConnectionResetError):
                self.server.send(IDLE)
        self.server.close()  # no more calls: these orphans are ours until they end
        while not self.reap():
            select.poll().poll(LOOK_MS)


def main(server: socket.socket, run: Callable[[list[int]], None]) -> Any:
    """The keeper's process; never returns."""
    code = 1
    try:
        become_subreaper()
        Keeper(server, run).loop()
        code = 0
    finally:
        os._exit(code)
