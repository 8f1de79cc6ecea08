# SPDX-License-Identifier: Apache-2.0
"""`Stats`: what a box uses at one moment, as the kernel has counted it. Values only, no reading."""

from __future__ import annotations

from typing import Any

from attrs import asdict, frozen

__all__ = [
    "CpuStats",
    "IoStats",
    "MemoryStats",
    "PidsStats",
    "Pressure",
    "PressureStats",
    "Stall",
    "Stats",
]


@frozen(kw_only=True)
class MemoryStats:
    """Memory of all processes of the box, in bytes; None where this kernel doesn't tell.

    Attributes:
        current: all that is charged to the box now.
        peak: the most that was ever charged to it.
        limit: the ceiling; None is no ceiling.
        swap, swap_peak: what lies in swap now, and at most (v2, Linux 6.5).
        anon: memory of processes that no file stands behind.
        file: page cache, tmpfs and shared memory included.
        shmem: tmpfs and shared memory; a part of `file`.
        mapped: files that are mapped into processes; a part of `file`.
        kernel: what the kernel holds for the box, of which `kernel_stack`, `pagetables`, `slab`
            and `sock` (network buffers) are parts; v1 has `kernel` and `sock` alone.
        limit_hits: how often the ceiling was reached; each time the kernel tried to reclaim.
            v1's failcnt, which Linux 6.18 leaves at 0.
        oom_kills: processes that the kernel killed for memory.

    Source: kernel Documentation/admin-guide/cgroup-v2.rst, "memory.stat", "memory.events";
    Documentation/admin-guide/cgroup-v1/memory.rst, 5.2 and 2.7.
    """

    current: int | None = None
    peak: int | None = None
    limit: int | None = None
    swap: int | None = None
    swap_peak: int | None = None
    anon: int | None = None
    file: int | None = None
    shmem: int | None = None
    mapped: int | None = None
    kernel: int | None = None
    kernel_stack: int | None = None
    pagetables: int | None = None
    slab: int | None = None
    sock: int | None = None
    limit_hits: int | None = None
    oom_kills: int | None = None


@frozen(kw_only=True)
class CpuStats:
    """Processor time of all processes of the box; None where this kernel doesn't tell.

    Attributes:
        usage: seconds, of every process that there was.
        user, system: seconds in programs and in the kernel; v1 counts in steps of 10 ms.
        limit: processors' worth of time per second; None is no ceiling.
        periods: periods of the quota in which the box had something to run.
        throttled_periods: those of them in which it was stopped for having used its share.
        throttled: seconds for which it was stopped, summed over processors.
    """

    usage: float | None = None
    user: float | None = None
    system: float | None = None
    limit: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled: float | None = None


@frozen(kw_only=True)
class PidsStats:
    """Processes and threads of the box; None where this kernel doesn't tell.

    Attributes:
        current: how many there are now.
        peak: the most that there were (Linux 6.11).
        limit: the ceiling; None is no ceiling.
        refused: how often a start was refused for it.
    """

    current: int | None = None
    peak: int | None = None
    limit: int | None = None
    refused: int | None = None


@frozen(kw_only=True)
class IoStats:
    """What went to and from one block device.

    Attributes:
        device: "MAJOR:MINOR".
        read, written: bytes.
        reads, writes: operations.
    """

    device: str
    read: int = 0
    written: int = 0
    reads: int = 0
    writes: int = 0


@frozen(kw_only=True)
class Stall:
    """Time that was lost by waiting for a resource.

    Attributes:
        avg10, avg60, avg300: percent of the last 10, 60 and 300 seconds.
        total: seconds since the box began.
    """

    avg10: float
    avg60: float
    avg300: float
    total: float


@frozen(kw_only=True)
class Pressure:
    """One resource's stalls: of at least one task, and of all of them at once.

    Source: kernel Documentation/accounting/psi.rst.
    """

    some: Stall | None = None
    full: Stall | None = None


@frozen(kw_only=True)
class PressureStats:
    """Pressure by resource; None on v1, and where the kernel has no PSI or it is switched off."""

    cpu: Pressure | None = None
    memory: Pressure | None = None
    io: Pressure | None = None


@frozen(kw_only=True)
class Stats:
    """What a box uses at one moment.

    Attributes:
        at: when it was read: seconds since the epoch.
        monotonic: the same by the clock that never jumps; for differences.
        source: "cgroup v1", "cgroup v2", or "proc" where the box has no cgroup: then it is a sum
            over the processes that were there, without what had ended unseen.
        memory, cpu, pids, pressure: see there.
        io: by device; empty where nothing was moved, or nothing is counted.
        frozen: whether the box is frozen.
    """

    at: float
    monotonic: float
    source: str
    memory: MemoryStats = MemoryStats()
    cpu: CpuStats = CpuStats()
    pids: PidsStats = PidsStats()
    io: tuple[IoStats, ...] = ()
    pressure: PressureStats = PressureStats()
    frozen: bool = False

    @property
    def read(self) -> int:
        """Bytes read from all devices."""
        return sum(each.read for each in self.io)

    @property
    def written(self) -> int:
        """Bytes written to all devices."""
        return sum(each.written for each in self.io)

    def cores_since(self, earlier: Stats) -> float | None:
        """Processors' worth of time between two moments: 1.5 is one and a half of them."""
        passed = self.monotonic - earlier.monotonic
        if self.cpu.usage is None or earlier.cpu.usage is None or passed <= 0:
            return None
        return max(0.0, self.cpu.usage - earlier.cpu.usage) / passed

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)
