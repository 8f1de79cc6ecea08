# SPDX-License-Identifier: Apache-2.0
"""What a run has used."""

from __future__ import annotations

from attrs import frozen

__all__ = ["Usage"]


@frozen(kw_only=True)
class Usage:
    """The account of one run; None where this machine, or this box's cgroup, doesn't count it.

    Attributes:
        wall: seconds from the exec to the end.
        user, system: seconds of processor time, by wait4(2) of the program.
        cpu: seconds of the whole box by its cgroup, None without one.
        peak_memory: bytes; of the whole box by its cgroup, else of the largest process.
        pids_peak: most processes at once, None where the kernel doesn't count.
        output: bytes written to stdout and stderr.
        throttled: seconds for which the box was stopped because of its cpu= ceiling.
        read, written: bytes from and to block devices; what the page cache served is not in it.
        oom_kills: processes that the kernel killed for memory.
        pids_refused: starts of a process or thread that were refused.
    """

    wall: float
    user: float
    system: float
    cpu: float | None = None
    peak_memory: int | None = None
    pids_peak: int | None = None
    output: int = 0
    throttled: float | None = None
    read: int | None = None
    written: int | None = None
    oom_kills: int = 0
    pids_refused: int = 0
