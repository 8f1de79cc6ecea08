# SPDX-License-Identifier: Apache-2.0
"""Reading a box's counters: from the files of its cgroup, or else from its processes in /proc."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import evolve, frozen

from isolate.supervise import proctree
from isolate.supervise.statfiles import (
    V1_FILES,
    V2_FILES,
    cpu_v1,
    cpu_v2,
    io_v1,
    io_v2,
    parse_v1,
    parse_v2,
)
from isolate.supervise.stats import CpuStats, IoStats, MemoryStats, PidsStats, Stats

__all__ = ["Extra", "Moment", "extra", "moment", "read_directories", "read_stats", "read_tree"]

MOST = 1 << 20  # no file of a cgroup is that long; io.stat has a line a device
UNIFIED = "unified"
BYTES_V1 = "blkio.throttle.io_service_bytes_recursive"
Source = tuple[str, Callable[[str], Any]]
# The controller is not on, the file is newer than the kernel, or PSI is switched off.
ABSENT = {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.EACCES}


@frozen
class Moment:
    """The two numbers of a timeline, cheaply: bytes and seconds, None where not counted."""

    memory: int | None
    cpu: float | None


def text_of(path: str) -> str | None:
    """A control file's text, None where this kernel or this leaf has no such file.

    Raises: OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    try:
        parts = []
        left = MOST
        while left > 0 and (data := os.read(fd, min(left, 65536))):
            parts.append(data)
            left -= len(data)
        return b"".join(parts).decode("ascii", "replace")
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    finally:
        os.close(fd)


def texts_of(directory: str, files: Iterable[str]) -> dict[str, str]:
    """Those that are there."""
    found = {}
    for file in files:
        text = text_of(f"{directory}/{file}")
        if text is not None:
            found[file] = text
    return found


def read_directories(directories: Mapping[str, str]) -> Stats:
    """Stats of a leaf: its directory by v1 controller, or under "unified".

    Raises: IsolateError, OSError.
    """
    at, monotonic = time.time(), time.monotonic()
    unified = directories.get(UNIFIED)
    old = {name: path for name, path in directories.items() if path != unified}
    if unified is None:
        return parse_v1(texts_v1(old), at, monotonic)
    new = parse_v2(texts_of(unified, V2_FILES), at, monotonic)
    return joined(parse_v1(texts_v1(old), at, monotonic), new, old) if old else new


def texts_v1(directories: Mapping[str, str], names: Iterable[str] = V1_FILES) -> dict[str, str]:
    """Of v1 controllers."""
    texts: dict[str, str] = {}
    for controller in names:
        if controller in directories:
            texts.update(texts_of(directories[controller], V1_FILES[controller]))
    return texts


def joined(old: Stats, new: Stats, names: Container[str]) -> Stats:
    """Of a hybrid machine: each from where its controller is; time is in v2 in any case."""
    return evolve(
        new,
        source="cgroup v1 and v2",
        memory=old.memory if "memory" in names else new.memory,
        cpu=old.cpu if "cpuacct" in names else new.cpu,
        pids=old.pids if "pids" in names else new.pids,
        io=old.io if "blkio" in names else new.io,
    )


def read_tree(init_pid: int) -> Stats:
    """The sum over the processes below init; what they share is counted in each."""
    at, monotonic = time.time(), time.monotonic()
    processes = proctree.snapshot()
    init = processes.get(init_pid)
    if init is None:
        return Stats(at=at, monotonic=monotonic, source="proc")
    inside, own = proctree.inhabitants(init_pid, processes.values())
    usage = init.reaped + sum(each.reaped for each in own)
    usage += sum(each.cpu + each.reaped for each in inside)
    return Stats(
        at=at,
        monotonic=monotonic,
        source="proc",
        memory=MemoryStats(current=sum(each.resident for each in inside)),
        cpu=CpuStats(usage=usage),
        pids=PidsStats(current=sum(each.threads for each in inside)),
    )


def read_stats(leaf: Any, init_pid: int) -> Stats:
    """What a box uses now. Raises: IsolateError, OSError."""
    if leaf is not None and leaf.directories:
        return read_directories(leaf.directories)
    return read_tree(init_pid)


@frozen(kw_only=True)
class Extra:
    """What `Usage` has beyond the counters: seconds and bytes, None where not counted."""

    throttled: float | None = None
    read: int | None = None
    written: int | None = None


def moved(devices: Sequence[IoStats]) -> tuple[int, int]:
    """Bytes read and written, of all devices."""
    return sum(each.read for each in devices), sum(each.written for each in devices)


# What Extra is made of: by controller of v1, and of v2's directory.
EXTRA_V1: dict[str, Source] = {
    "cpu": ("cpu.stat", lambda text: cpu_v1({"cpu.stat": text}).throttled),
    "blkio": (BYTES_V1, lambda text: moved(io_v1({BYTES_V1: text}))),
}
EXTRA_V2: dict[str, Source] = {
    "cpu": ("cpu.stat", lambda text: cpu_v2({"cpu.stat": text}).throttled),
    "blkio": ("io.stat", lambda text: moved(io_v2({"io.stat": text}))),
}


def extra(leaf: Any) -> Extra:
    """Of a leaf; no file is opened for what the leaf doesn't count.

    Raises: IsolateError, OSError.
    """
    directories = leaf.directories if leaf is not None else {}
    unified = directories.get(UNIFIED)
    found: dict[str, Any] = {}
    for controller in EXTRA_V1:
        directory, sources = directories.get(controller), EXTRA_V1
        if directory in (None, unified):
            directory, sources = unified, EXTRA_V2
        if directory is not None:
            file, parse = sources[controller]
            with suppress_absent():
                found[controller] = leaf.files.parsed(f"{directory}/{file}", Extra, parse)
    read, written = found.get("blkio", (None, None))
    return Extra(throttled=found.get("cpu"), read=read, written=written)


@contextmanager
def suppress_absent() -> Iterator[None]:
    """A file that this kernel or this leaf doesn't have."""
    try:
        yield
    except OSError as error:
        if error.errno not in ABSENT:
            raise


def small(directory: str | None, file: str) -> int | None:
    """A file that holds one number."""
    text = None if directory is None else text_of(f"{directory}/{file}")
    return int(text) if text is not None and text.strip().isdigit() else None


def moment(leaf: Any, init_pid: int) -> Moment:
    """Memory and processor time now, in two reads. Raises: OSError."""
    if leaf is None or not leaf.directories:
        stats = read_tree(init_pid)
        return Moment(stats.memory.current, stats.cpu.usage)
    directories = leaf.directories
    unified = directories.get(UNIFIED)
    seen = Moment(None, None)
    if unified is not None:
        stats = parse_v2(texts_of(unified, ("memory.current", "cpu.stat")), 0.0, 0.0)
        seen = Moment(stats.memory.current, stats.cpu.usage)
    if directories.get("memory", unified) != unified:
        memory = small(directories["memory"], "memory.usage_in_bytes")
        seen = evolve(seen, memory=memory)
    if "cpuacct" in directories:
        cpu = small(directories["cpuacct"], "cpuacct.usage")
        seen = evolve(seen, cpu=None if cpu is None else cpu / 1e9)
    return seen
