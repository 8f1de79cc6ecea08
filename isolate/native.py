# SPDX-License-Identifier: Apache-2.0
"""The one importer of the C extension: start a process with a plan, or run a plan in this one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from isolate import _native  # type: ignore[attr-defined,unused-ignore]
from isolate.errors import IsolateError

__all__ = ["FAIL_SIZE", "INIT_PATH", "RECORD_SIZE", "check", "enter", "parse_fail", "spawn"]

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


def spawn(
    blob: bytes,
    fds: Sequence[int],
    *,
    shares_memory: bool,
    mount_ns: int = -1,
    cgroup_fd: int = -1,
) -> tuple[int, int]:
    """Start a process that runs the plan; returns (pid, pidfd).

    Args:
        mount_ns: the fd of a mount namespace that the process starts with a copy of; -1: ours.
        cgroup_fd: the directory of a v2 cgroup that it is born in; -1: ours.

    Raises: OSError of clone3 or setns. What fails later is told on the plan's record pipe.
    """
    buffer = ffi.new("uint64_t[]", (len(blob) + 7) // 8)
    ffi.memmove(buffer, blob, len(blob))
    out = ffi.new("struct iso_spawned *")
    slots = ffi.new("int32_t[]", list(fds))
    shares = int(shares_memory)
    error = lib.iso_spawn(
        buffer, len(blob), slots, len(fds), shares, mount_ns, cgroup_fd, out
    )
    if error < 0:
        call = "clone3" if out.entered else "setns"
        raise OSError(-error, os.strerror(-error), call)
    return int(out.pid), int(out.pidfd)


def enter(blob: bytes, fds: Sequence[int]) -> None:
    """Run the plan's ops in the calling thread.

    Raises: IsolateError naming the step, with the OSError as its cause.
    """
    buffer = ffi.new("uint64_t[]", (len(blob) + 7) // 8)
    ffi.memmove(buffer, blob, len(blob))
    step = ffi.new("uint32_t *")
    error = lib.iso_enter(buffer, len(blob), ffi.new("int32_t[]", list(fds)), len(fds), step)
    if error < 0:
        cause = OSError(-error, os.strerror(-error))
        raise IsolateError(f"step {int(step[0])} of the plan failed: {cause}") from cause
