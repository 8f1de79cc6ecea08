# SPDX-License-Identifier: Apache-2.0
"""What a run has used."""

from __future__ import annotations

from attrs import frozen

__all__ = ["Usage"]


@frozen(kw_only=True)
class Usage:
    """The account of one run.

    Attributes:
        wall: seconds from the exec to the end.
        user, system: seconds of processor time, by wait4(2) of the program.
        cpu: seconds of the whole box by its cgroup, None without one.
        peak_memory: bytes; of the whole box by its cgroup, else of the largest process.
        pids_peak: most processes at once, None where the kernel doesn't count.
        output: bytes written to stdout and stderr.
    """

    wall: float
    user: float
    system: float
    cpu: float | None = None
    peak_memory: int | None = None
    pids_peak: int | None = None
    output: int = 0
