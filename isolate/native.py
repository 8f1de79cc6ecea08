# SPDX-License-Identifier: Apache-2.0
"""The one importer of the C extension: start a process with a plan, or run a plan in this one."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from isolate import _native  # type: ignore[attr-defined,unused-ignore]
from isolate.errors import IsolateError

__all__ = [
    "INIT_PATH",
    "RECORD_SIZE",
    "EnterError",
    "Notice",
    "Notifier",
    "Spaces",
    "answer",
    "ask",
    "check",
    "enter",
    "filter_answer",
    "make_spaces",
    "spawn",
    "told",
]

ffi, lib = _native.ffi, _native.lib

INIT_PATH = Path(__file__).parent / "_libexec" / "isolate-init"
RECORD_SIZE: int = ffi.sizeof("struct iso_record")


def interrupted(call: Callable[[int], int], seconds: float | None) -> int:
    """A native wait, taken up again after signals, whose handlers run in between.

    Raises: TimeoutError; OSError.
    """
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        left = -1 if until is None else max(0, int((until - time.monotonic()) * 1000 + 0.999))
        found = call(left)
        if found >= 0:
            return found
        if found != -errno.EINTR:
            raise OSError(-found, os.strerror(-found))  # ETIMEDOUT is TimeoutError


def ask(
    control: int, request: int, flags: int, serial: int, blob: bytes | None, fds: Sequence[int]
) -> int:
    """Send a request to isolate-init; our end of its status socket. Raises: OSError."""
    head = ffi.new("struct iso_request *", [request, flags, 0, serial])
    found: int = lib.iso_ask(
        control, head, ffi.NULL if blob is None else blob, len(blob or b""), list(fds), len(fds)
    )
    if found < 0:
        raise OSError(-found, os.strerror(-found))
    return found


def answer(status_fd: int, seconds: float | None) -> tuple[bytes, int]:
    """A record of isolate-init, and the descriptor that came with it or -1; no bytes: it is gone.

    Raises: TimeoutError; OSError.
    """
    record, fd = ffi.new("struct iso_record *"), ffi.new("int32_t *")
    told = interrupted(lambda wait: lib.iso_answer(status_fd, wait, record, fd), seconds)
    return (bytes(ffi.buffer(record)) if told else b""), int(fd[0])


def told(record_fd: int, seconds: float | None, most: int = 8) -> list[tuple[int, int, int]]:
    """What was written to a record pipe, when its last writer is gone (exec or death).

    Returns: (step, errno, monotonic ns) of each record.
    Raises: TimeoutError; OSError.
    """
    records = ffi.new("struct iso_fail[]", most)
    count = interrupted(lambda wait: lib.iso_told(record_fd, wait, records, most), seconds)
    return [(int(r.step), int(r.error), int(r.at_ns)) for r in records[0:count]]


def check(blob: bytes) -> int | None:
    """None for a well-formed plan blob, else the offset where it is wrong."""
    buffer = ffi.new("uint64_t[]", (len(blob) + 7) // 8)
    ffi.memmove(buffer, blob, len(blob))
    where = ffi.new("uint32_t *")
    ok: int = lib.iso_plan_check(buffer, len(blob), where)
    return None if ok == 0 else int(where[0])


@frozen
class Spaces:
    """Namespaces that a process starts in; of the mounts it gets a copy. Descriptors, -1: ours.

    `cgroup` is the directory of a v2 cgroup that it is born in.
    """

    net: int = -1
    ipc: int = -1
    mount: int = -1
    cgroup: int = -1


OURS: Spaces = Spaces()


def spawn(
    blob: bytes, fds: Sequence[int], *, shares_memory: bool, spaces: Spaces = OURS, keep: int = 0
) -> tuple[int, int]:
    """Start a process that runs the plan; returns (pid, pidfd).

    Args:
        keep: of our descriptors it gets those below that number; 0: all. `fds` have to be below.

    Raises: OSError of clone3 or setns. What fails later is told on the plan's record pipe.
    """
    buffer = ffi.new("uint64_t[]", (len(blob) + 7) // 8)
    ffi.memmove(buffer, blob, len(blob))
    out = ffi.new("struct iso_spawned *")
    slots = ffi.new("int32_t[]", list(fds))
    places = ffi.new("int32_t[]", [spaces.net, spaces.ipc, spaces.mount, spaces.cgroup, keep])
    error = lib.iso_spawn_in(buffer, len(blob), slots, len(fds), int(shares_memory), places, out)
    if error < 0:
        if out.pid > 0:  # it was started, but our signals are blocked still
            os.kill(out.pid, signal.SIGKILL)
            os.waitpid(out.pid, 0)
            os.close(out.pidfd)
        call = "clone3" if out.entered else "setns"
        raise OSError(-error, os.strerror(-error), call)
    return int(out.pid), int(out.pidfd)


class EnterError(IsolateError, OSError):
    """An op of a plan failed in the calling thread; those before it are in force.

    Attributes:
        step: index of the op.
    """

    def __init__(self, step: int, number: int) -> None:
        super().__init__(number, os.strerror(number))
        self.step = step

    def __str__(self) -> str:
        return f"step {self.step} of the plan failed: {os.strerror(self.errno or 0)}"

    def __reduce__(self) -> tuple[type[EnterError], tuple[int, int]]:
        return EnterError, (self.step, self.errno or 0)


def make_spaces() -> tuple[int, int]:
    """Descriptors of a new network namespace, with its loopback up, and a new IPC namespace.

    Raises: OSError of clone3, unshare or ioctl.
    """
    net, ipc = ffi.new("int32_t *"), ffi.new("int32_t *")
    error = lib.iso_make_spaces(net, ipc)
    if error < 0:
        raise OSError(-error, os.strerror(-error), "unshare")
    return int(net[0]), int(ipc[0])


def enter(blob: bytes, fds: Sequence[int]) -> None:
    """Run the plan's ops in the calling thread.

    Raises: EnterError naming the step.
    """
    buffer = ffi.new("uint64_t[]", (len(blob) + 7) // 8)
    ffi.memmove(buffer, blob, len(blob))
    step = ffi.new("uint32_t *")
    error = lib.iso_enter(buffer, len(blob), ffi.new("int32_t[]", list(fds)), len(fds), step)
    if error < 0:
        raise EnterError(int(step[0]), -int(error))


@frozen
class Notice:
    """One refused call; see struct iso_notice.

    Attributes:
        told: ISO_TOLD_*.
        kind: its place in the listener's table; ISO_SEEN_KINDS where it has none.
        data: strings and addresses that the kinds of its arguments ask for, as they were.
    """

    told: int
    id: int
    tag: int
    pid: int
    nr: int
    arch: int
    action: int
    kind: int
    args: tuple[int, ...]
    data: tuple[bytes, bytes]


def filter_answer(program: bytes, data: bytes) -> int:
    """SECCOMP_RET_* of a filter for one struct seccomp_data."""
    return int(lib.iso_filter_run(program, len(program), data))


class Notifier:
    """The native half of a supervisor of refused calls (`_native/notify.c`); `close` it.

    `next` belongs to one thread; the rest may be called by any, also while `next` waits.
    """

    WOKEN, GONE, NEW, HANDLER, KILL = (
        lib.ISO_TOLD_WOKEN, lib.ISO_TOLD_GONE, lib.ISO_TOLD_NEW,
        lib.ISO_TOLD_HANDLER, lib.ISO_TOLD_KILL,
    )  # fmt: skip
    KINDS: int = lib.ISO_SEEN_KINDS
    SIGHTS: int = lib.ISO_SIGHTS
    REPORT, SILENT, HANDLED, OBSERVE = (
        lib.ISO_WAY_REPORT, lib.ISO_WAY_SILENT, lib.ISO_WAY_HANDLER, lib.ISO_WAY_OBSERVE
    )  # fmt: skip
    STRING, BYTES = lib.ISO_LOOK_STRING, lib.ISO_LOOK_BYTES

    def __init__(
        self, programs: Sequence[bytes], sights: bytes, arch: int, lethal: bool
    ) -> None:
        if len(sights) != self.SIGHTS * int(ffi.sizeof("struct iso_sight")):
            raise ValueError("a table of sights of the wrong size")
        kept = [ffi.new("char[]", program) for program in programs]
        table = ffi.new("struct iso_sight[]", self.SIGHTS)
        ffi.memmove(table, sights, len(sights))
        self.state = lib.iso_notify_open(
            ffi.new("void *[]", kept), [len(program) for program in programs], len(programs),
            table, arch, int(lethal),
        )  # fmt: skip
        if self.state == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self.state = ffi.gc(self.state, lib.iso_notify_close)  # for a handler that comes late
        self.out = ffi.new("struct iso_notice *")

    def add(self, sock: int, tag: int) -> None:
        """Take over a socket, on which a listener will come. Raises: OSError."""
        error = lib.iso_notify_add(self.state, sock, tag)
        if error < 0:
            raise OSError(-error, os.strerror(-error))

    def wake(self) -> None:
        """Have `next` return."""
        lib.iso_notify_wake(self.state)

    def next(self, seconds: float | None) -> Notice:
        """What is to be told; blocks without the interpreter's lock. Raises: OSError."""
        wait = -1 if seconds is None else max(0, int(seconds * 1000) + 1)
        told = lib.iso_notify_next(self.state, wait, self.out)
        if told < 0:
            raise OSError(-told, os.strerror(-told))
        out = self.out
        data = tuple(bytes(ffi.buffer(out.data[i], out.len[i])) for i in range(2))
        return Notice(
            told, out.id, out.tag, out.pid, out.nr, out.arch, out.action, out.kind,
            tuple(out.args), (data[0], data[1]),
        )  # fmt: skip

    def counts(self, tag: int) -> tuple[list[int], int, int]:
        """(how often each kind was seen, how often any other, the sum)."""
        numbers = self.numbers()
        kinds = lib.iso_notify_counts(self.state, tag, numbers)
        if kinds < 0:
            return [], 0, 0
        return list(numbers[0:kinds]), int(numbers[kinds]), int(numbers[kinds + 1])

    def knows(self, tag: int) -> bool:
        """Whether there is a listener of that tag still."""
        return int(lib.iso_notify_counts(self.state, tag, self.numbers())) >= 0

    def numbers(self) -> Any:
        """Room for the counts."""
        return ffi.new("uint64_t[]", self.KINDS + 2)

    def forget(self, tag: int) -> None:
        """A listener that is gone."""
        lib.iso_notify_forget(self.state, tag)

    def answer(
        self, notice: Notice, *, value: int = 0, error: int = 0, goes_on: bool = False
    ) -> bool:
        """Answer; False if the call is gone."""
        done = lib.iso_notify_answer(
            self.state, notice.tag, notice.id, value, error, int(goes_on)
        )
        return int(done) == 0

    def waits(self, notice: Notice) -> bool:
        """Whether the call still waits: then its pid is its own."""
        return int(lib.iso_notify_valid(self.state, notice.tag, notice.id)) == 0

    def give_fd(self, notice: Notice, fd: int, at: int | None, flags: int) -> int:
        """A copy of an fd as the call's result; its number there. Raises: OSError."""
        where = -1 if at is None else at
        given = lib.iso_notify_give_fd(self.state, notice.tag, notice.id, fd, where, flags)
        if given < 0:
            raise OSError(-given, os.strerror(-given))
        return int(given)

    def peek(self, notice: Notice, address: int, size: int) -> bytes:
        """Memory of the caller, as much as is there. Raises: OSError."""
        buffer = ffi.new("char[]", max(1, size))
        got = lib.iso_notify_peek(
            self.state, notice.tag, notice.id, notice.pid, address, buffer, size
        )
        if got < 0:
            raise OSError(-got, os.strerror(-got))
        return bytes(ffi.buffer(buffer, got))

    def close(self) -> None:
        """Close every listener: who still waits gets ENOSYS. Later questions find nothing."""
        lib.iso_notify_shut(self.state)
