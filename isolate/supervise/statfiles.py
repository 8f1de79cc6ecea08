# SPDX-License-Identifier: Apache-2.0
"""From the texts of cgroup files to `Stats`. Pure: the same texts give the same values.

A file that is absent gives None. What a known file holds in a form that is not the kernel's is an
IsolateError that names the file; keys and lines that we don't know are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from isolate.errors import IsolateError
from isolate.supervise.stats import (
    CpuStats,
    IoStats,
    MemoryStats,
    PidsStats,
    Pressure,
    PressureStats,
    Stall,
    Stats,
)

__all__ = ["V1_FILES", "V2_FILES", "parse_v1", "parse_v2"]

V1_FILES = {
    "memory": (
        "memory.usage_in_bytes",
        "memory.max_usage_in_bytes",
        "memory.limit_in_bytes",
        "memory.stat",
        "memory.kmem.usage_in_bytes",
        "memory.kmem.tcp.usage_in_bytes",
        "memory.failcnt",
        "memory.memsw.failcnt",
        "memory.oom_control",
    ),
    "cpu": ("cpu.stat", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "cpuacct": ("cpuacct.usage", "cpuacct.stat"),
    "pids": ("pids.current", "pids.peak", "pids.max", "pids.events"),
    "blkio": ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"),
}
V2_FILES = """
    memory.current memory.peak memory.max memory.stat memory.swap.current memory.swap.peak
    memory.events cpu.stat cpu.max pids.current pids.peak pids.max pids.events io.stat
    cpu.pressure memory.pressure io.pressure cgroup.events
""".split()
USER_HZ = 100  # of cpuacct.stat; the same on every architecture that we know
UNLIMITED = 1 << 62  # v1 writes "no limit" as the largest number of pages
NUMBER = re.compile(r"\d{1,20}", re.ASCII)
DECIMAL = re.compile(r"\d{1,20}(\.\d{1,9})?", re.ASCII)
DEVICE = re.compile(r"\d{1,10}:\d{1,10}", re.ASCII)
Texts = Mapping[str, str]


def whole(text: str, file: str) -> int:
    """A number that the kernel wrote. Raises: IsolateError."""
    if not NUMBER.fullmatch(text):
        raise IsolateError(f"{file} holds {text[:40]!r} where the kernel writes a number")
    return int(text)


def single(texts: Texts, file: str) -> int | None:
    """A file that holds one number; "max" is None, as no ceiling is."""
    text = texts.get(file, "").strip()
    return None if text in ("", "max") else whole(text, file)


def keyed(texts: Texts, file: str) -> dict[str, int]:
    """A file of lines "key value"."""
    found = {}
    for line in texts.get(file, "").splitlines():
        parts = line.split()
        if len(parts) == 2:
            found[parts[0]] = whole(parts[1], file)
    return found


def ceiling(value: int | None) -> int | None:
    """v1's limit in bytes; None for none."""
    return None if value is None or value >= UNLIMITED else value


def scaled(value: int | None, per_second: float) -> float | None:
    """Seconds of a count of ticks, microseconds or nanoseconds."""
    return None if value is None else value / per_second


def limit_hits_v1(texts: Texts) -> int | None:
    """Of memory, and of memory and swap together: with no swap allowed the second comes first."""
    hits = single(texts, "memory.failcnt")
    return None if hits is None else hits + (single(texts, "memory.memsw.failcnt") or 0)


def memory_v1(texts: Texts) -> MemoryStats:
    """The memory controller; totals, so that a cgroup below the leaf counts too."""
    stat = keyed(texts, "memory.stat")
    return MemoryStats(
        current=single(texts, "memory.usage_in_bytes"),
        peak=single(texts, "memory.max_usage_in_bytes"),
        limit=ceiling(single(texts, "memory.limit_in_bytes")),
        swap=stat.get("total_swap"),
        anon=stat.get("total_rss"),
        file=stat.get("total_cache"),
        shmem=stat.get("total_shmem"),
        mapped=stat.get("total_mapped_file"),
        kernel=single(texts, "memory.kmem.usage_in_bytes"),
        sock=single(texts, "memory.kmem.tcp.usage_in_bytes"),
        limit_hits=limit_hits_v1(texts),
        oom_kills=keyed(texts, "memory.oom_control").get("oom_kill"),
    )


def quota_v1(texts: Texts) -> float | None:
    """Processors' worth of time; -1 is no ceiling."""
    text = texts.get("cpu.cfs_quota_us", "").strip()
    period = single(texts, "cpu.cfs_period_us")
    if text.startswith("-") or not text or not period:
        return None
    return whole(text, "cpu.cfs_quota_us") / period


def cpu_v1(texts: Texts) -> CpuStats:
    """cpuacct for the time, cpu for the quota."""
    stat, account = keyed(texts, "cpu.stat"), keyed(texts, "cpuacct.stat")
    return CpuStats(
        usage=scaled(single(texts, "cpuacct.usage"), 1e9),
        user=scaled(account.get("user"), USER_HZ),
        system=scaled(account.get("system"), USER_HZ),
        limit=quota_v1(texts),
        periods=stat.get("nr_periods"),
        throttled_periods=stat.get("nr_throttled"),
        throttled=scaled(stat.get("throttled_time"), 1e9),
    )


def pids(texts: Texts) -> PidsStats:
    """The same files in both versions."""
    return PidsStats(
        current=single(texts, "pids.current"),
        peak=single(texts, "pids.peak"),
        limit=single(texts, "pids.max"),
        refused=keyed(texts, "pids.events").get("max"),
    )


def io_v1(texts: Texts) -> tuple[IoStats, ...]:
    """blkio's lines "8:0 Read 4096"."""
    found: dict[str, dict[str, int]] = {}
    for file, names in (
        ("blkio.throttle.io_service_bytes_recursive", {"Read": "read", "Write": "written"}),
        ("blkio.throttle.io_serviced_recursive", {"Read": "reads", "Write": "writes"}),
    ):
        for line in texts.get(file, "").splitlines():
            parts = line.split()
            if len(parts) == 3 and DEVICE.fullmatch(parts[0]) and parts[1] in names:
                device = found.setdefault(parts[0], {})
                device[names[parts[1]]] = whole(parts[2], file)
    return tuple(IoStats(device=device, **counts) for device, counts in sorted(found.items()))


def io_v2(texts: Texts) -> tuple[IoStats, ...]:
    """io.stat's lines "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0"."""
    names = {"rbytes": "read", "wbytes": "written", "rios": "reads", "wios": "writes"}
    found: dict[str, dict[str, int]] = {}
    for line in texts.get("io.stat", "").splitlines():
        device, *pairs = line.split() or [""]
        if not DEVICE.fullmatch(device) or not pairs:
            continue
        counts = found.setdefault(device, {})
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key in names:
                counts[names[key]] = whole(value, "io.stat")
    return tuple(IoStats(device=device, **counts) for device, counts in sorted(found.items()))


def stall(line: str, file: str) -> Stall:
    """ "avg10=0.00 avg60=0.00 avg300=0.00 total=0", total in microseconds. Raises: IsolateError."""
    values = dict(part.partition("=")[::2] for part in line.split())
    wanted = [values.get(key, "") for key in ("avg10", "avg60", "avg300", "total")]
    if not all(DECIMAL.fullmatch(value) for value in wanted):
        raise IsolateError(f"{file} holds {line[:80]!r} where the kernel writes averages")
    avg10, avg60, avg300, total = map(float, wanted)
    return Stall(avg10=avg10, avg60=avg60, avg300=avg300, total=total / 1e6)


def pressure(texts: Texts, resource: str) -> Pressure | None:
    """One resource's PSI file; cpu has no "full" before Linux 5.13."""
    file = f"{resource}.pressure"
    found = {}
    for line in texts.get(file, "").splitlines():
        kind, _, rest = line.partition(" ")
        if kind in ("some", "full"):
            found[kind] = stall(rest, file)
    return Pressure(**found) if found else None


def memory_v2(texts: Texts) -> MemoryStats:
    """The memory controller."""
    stat, events = keyed(texts, "memory.stat"), keyed(texts, "memory.events")
    return MemoryStats(
        current=single(texts, "memory.current"),
        peak=single(texts, "memory.peak"),
        limit=single(texts, "memory.max"),
        swap=single(texts, "memory.swap.current"),
        swap_peak=single(texts, "memory.swap.peak"),
        anon=stat.get("anon"),
        file=stat.get("file"),
        shmem=stat.get("shmem"),
        mapped=stat.get("file_mapped"),
        kernel=stat.get("kernel"),
        kernel_stack=stat.get("kernel_stack"),
        pagetables=stat.get("pagetables"),
        slab=stat.get("slab"),
        sock=stat.get("sock"),
        limit_hits=events.get("max"),
        oom_kills=events.get("oom_kill"),
    )


def quota_v2(texts: Texts) -> float | None:
    """cpu.max, "50000 100000" or "max 100000". Raises: IsolateError."""
    parts = texts.get("cpu.max", "").split()
    if not parts or parts[0] == "max":
        return None
    period = whole(parts[1], "cpu.max") if len(parts) == 2 else 0
    if not period:
        raise IsolateError(f"cpu.max holds {' '.join(parts)[:40]!r}: no quota and period")
    return whole(parts[0], "cpu.max") / period


def cpu_v2(texts: Texts) -> CpuStats:
    """cpu.stat is there without the controller too; then it lacks the throttling."""
    stat = keyed(texts, "cpu.stat")
    return CpuStats(
        usage=scaled(stat.get("usage_usec"), 1e6),
        user=scaled(stat.get("user_usec"), 1e6),
        system=scaled(stat.get("system_usec"), 1e6),
        limit=quota_v2(texts),
        periods=stat.get("nr_periods"),
        throttled_periods=stat.get("nr_throttled"),
        throttled=scaled(stat.get("throttled_usec"), 1e6),
    )


def parse_v1(texts: Texts, at: float, monotonic: float) -> Stats:
    """Stats of the files in V1_FILES. Raises: IsolateError naming a file that can't be read."""
    return Stats(
        at=at,
        monotonic=monotonic,
        source="cgroup v1",
        memory=memory_v1(texts),
        cpu=cpu_v1(texts),
        pids=pids(texts),
        io=io_v1(texts),
    )


def parse_v2(texts: Texts, at: float, monotonic: float) -> Stats:
    """Stats of the files in V2_FILES. Raises: IsolateError naming a file that can't be read."""
    return Stats(
        at=at,
        monotonic=monotonic,
        source="cgroup v2",
        memory=memory_v2(texts),
        cpu=cpu_v2(texts),
        pids=pids(texts),
        io=io_v2(texts),
        pressure=PressureStats(
            cpu=pressure(texts, "cpu"),
            memory=pressure(texts, "memory"),
            io=pressure(texts, "io"),
        ),
        frozen=keyed(texts, "cgroup.events").get("frozen") == 1,
    )
