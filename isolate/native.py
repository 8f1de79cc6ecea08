# SPDX-License-Identifier: Apache-2.0
"""The one importer of the C extension: start a process with a plan, or run a plan in this one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from isolate import _native  # type: ignore[attr-defined,unused-ignore]
from isolate.errors import IsolateError

__all__ = [
    "FAIL_SIZE",
    "INIT_PATH",
    "RECORD_SIZE",
    "EnterError",
    "Spaces",
    "check",
    "enter",
    "make_spaces",
    "parse_fail",
    "spawn",
]

ffi, lib = _native.ffi, _native.lib

INIT_PATH = Path(__file__).parent / "_libexec" / "isolate-init"
FAIL_SIZE: int = ffi.sizeof("struct iso_fail")
RECORD_SIZE: int = ffi.sizeof("struct iso_record")


def parse_fail(data: bytes) -> tuple[int, int, int]:
    """(step, errno, monotonic ns) of one record of the record pipe."""
    record = ffi.from_buffer("struct iso_fail *", data)
    return int(record.step), int(record.error), int(record.at_ns)


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
    blob: bytes, fds: Sequence[int], *, shares_memory: bool, spaces: Spaces = OURS
) -> tuple[int, int]:
    """Start a process that runs the plan; returns (pid, pidfd).

    Raises: OSError of clone3 or setns. What fails later is told on the plan's record pipe.
    """
    buffer = ffi.new("uint64_t[]", (len(blob) + 7) // 8)
    ffi.memmove(buffer, blob, len(blob))
    out = ffi.new("struct iso_spawned *")
    slots = ffi.new("int32_t[]", list(fds))
    places = ffi.new("int32_t[]", [spaces.net, spaces.ipc, spaces.mount, spaces.cgroup])
    error = lib.iso_spawn_in(buffer, len(blob), slots, len(fds), int(shares_memory), places, out)
    if error < 0:
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
