# SPDX-License-Identifier: Apache-2.0
"""System calls that ask the kernel something: here, or in a copy of this process where a filter may
kill who asks.

Only a process that is under a seccomp filter pays for the copy.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from isolate.abi.syscalls import numbers

__all__ = ["answers", "direct", "is_filtered", "status_field"]

Call = tuple[Any, ...]  # number, then arguments: integers, or buffers
ANSWER = struct.Struct("=q")
NONE = -(1 << 62)
PR_SET_DUMPABLE = 4
PR_GET_SECCOMP = 21
STATUS = "/proc/self/status"


def status_field(status: str, name: str) -> str:
    """One line's value of /proc/PID/status, empty if absent."""
    for line in status.splitlines():
        head, _, value = line.partition(":")
        if head == name:
            return (value.split() or [""])[0]
    return ""


def is_filtered(status: str | None = None) -> bool:
    """Whether a seccomp filter is in force, by /proc/self/status; without a /proc prctl(2) tells,
    in a copy of this process: there may be one that kills for that."""
    if not status:
        try:
            with open(STATUS, encoding="utf-8", errors="replace") as file:
                status = file.read()
        except OSError:
            return in_a_copy([(numbers(os.uname().machine)["prctl"], PR_GET_SECCOMP)]) != [0]
    return status_field(status, "Seccomp") not in ("0", "")


def direct(call: Call) -> int:
    """What one call gives: a result from 0 up, or a negative errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    number, *args = call
    passed = (ctypes.c_long(each) if isinstance(each, int) else each for each in args)
    result = int(libc.syscall(ctypes.c_long(number), *passed))
    return result if result >= 0 else -ctypes.get_errno()


def copied() -> int:
    """fork: 0 in the copy. It makes no call but those, and is gone: threads are no matter.

    A fork by libc alone would be cheaper, but leaves the interpreter's lock as another thread had
    it. Raises: OSError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "use of fork() may lead to deadlocks"
        return os.fork()


def make_all(calls: Sequence[Call], first: int, told: mmap.mmap) -> None:
    """In the copy: each call from `first` on, its answer where the other process sees it."""
    me = os.getpid()
    for index in range(first, len(calls)):
        answer = direct(calls[index])
        if os.getpid() != me:  # a kernel that isn't Linux may have taken it for a fork
            os._exit(0)
        ANSWER.pack_into(told, index * ANSWER.size, answer)


def in_a_copy(calls: Sequence[Call]) -> list[int | None]:
    """One copy, and another one after each call that has killed its copy."""
    with mmap.mmap(-1, ANSWER.size * len(calls)) as told:
        for index in range(len(calls)):
            ANSWER.pack_into(told, index * ANSWER.size, NONE)
        first = 0
        while first < len(calls):
            pid = copied()
            if pid == 0:
                try:
                    make_all(calls, first, told)
                finally:
                    os._exit(0)
            with suppress(ChildProcessError):  # SIGCHLD is ignored, or somebody waited for all
                os.waitpid(pid, 0)
            found = [ANSWER.unpack_from(told, i * ANSWER.size)[0] for i in range(len(calls))]
            first = next((i for i in range(first, len(calls)) if found[i] == NONE), len(calls)) + 1
        found = [ANSWER.unpack_from(told, i * ANSWER.size)[0] for i in range(len(calls))]
    return [None if each == NONE else int(each) for each in found]


def answers(calls: Sequence[Call], filtered: bool | None = None) -> list[int | None]:
    """What the kernel, or a filter, says to each call: a result, a negative errno, None for death.

    Args:
        filtered: whether to ask in a copy; None looks whether a filter is in force.
    """
    if not (is_filtered() if filtered is None else filtered):
        return [direct(call) for call in calls]
    # First of all: who is killed leaves no core. That call may kill as well, and costs one copy.
    quiet: list[Call] = []
    with suppress(KeyError):
        quiet = [(numbers(os.uname().machine)["prctl"], PR_SET_DUMPABLE, 0, 0, 0, 0)]
    return in_a_copy([*quiet, *calls])[len(quiet) :]
