# SPDX-License-Identifier: Apache-2.0
"""Leaves of the cgroup tree (v1): made with their limits, read, emptied, removed, reclaimed.

A leaf's owner holds a lock on its directory (flock); who can take the lock of a leaf that it did
not make knows that the owner is dead, and removes it. Never below the caller's own cgroup.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import signal
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from attrs import Factory, define, frozen

from isolate.errors import HostLacks
from isolate.policy.cgroup import CgroupLimit

__all__ = ["Counters", "Leaf", "create", "parent_name", "reclaim"]

PERIOD_US = 100_000
REMOVE_SECONDS = 5.0
COUNT = itertools.count()
RECLAIMED: set[tuple[int, str]] = set()


@frozen(kw_only=True)
class Counters:
    """What the kernel has counted; bytes, processes, seconds. None: no such controller."""

    memory_peak: int | None = None
    oom_kills: int = 0
    pids_peak: int | None = None
    pids_refused: int = 0
    cpu: float | None = None


def parent_name() -> str:
    """The directory below each controller that holds our leaves; tests set their own."""
    return os.environ.get("ISOLATE_CGROUP_PARENT", "isolate")


@lru_cache(maxsize=1)
def mounts() -> dict[str, str]:
    """Mount point by v1 controller."""
    found = {}
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        parts = line.split()
        if parts[2] == "cgroup":
            for name in parts[3].split(","):
                found[name] = parts[1]
    return found


def put(directory: str, file: str, value: int | str) -> None:
    """Write one control file. Raises: HostLacks naming file and value."""
    path = f"{directory}/{file}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise HostLacks(file, f"writing {value} to {path}: {error.strerror}") from error


def get(directory: str, file: str) -> str:
    """A control file's text. Raises: OSError."""
    return Path(f"{directory}/{file}").read_text(encoding="ascii")


def number(directory: str, file: str) -> int:
    """A control file that holds one number; "max" is a very large one."""
    text = get(directory, file).strip()
    return 1 << 62 if text == "max" else int(text)


def keyed(directory: str, file: str, key: str) -> int:
    """The number behind `key` in a file of "key value" lines, 0 if absent."""
    match = re.search(rf"^{key} (\d+)$", get(directory, file), re.MULTILINE)
    return int(match[1]) if match else 0


def put_checked(directory: str, file: str, value: int, slack: int = 0) -> None:
    """Write, and compare with what the kernel made of it. Raises: HostLacks."""
    put(directory, file, value)
    held = number(directory, file)
    if not value - slack <= held <= value:
        raise HostLacks(file, f"{directory}/{file} holds {held} after {value} was written")


def set_memory(directory: str, limit: CgroupLimit) -> None:
    """memory.max and, with it, no swap beyond what is allowed."""
    page = os.sysconf("SC_PAGESIZE")
    if limit.memory is not None:
        put_checked(directory, "memory.limit_in_bytes", limit.memory, page)
        both = "memory.memsw.limit_in_bytes"
        if os.path.exists(f"{directory}/{both}"):
            put_checked(directory, both, limit.memory + (limit.swap or 0), page)
    if limit.memory_high is not None:
        put_checked(directory, "memory.soft_limit_in_bytes", limit.memory_high, page)


def set_cpu(directory: str, limit: CgroupLimit) -> None:
    """Quota per period, and shares by the OCI runtimes' conversion."""
    if limit.cpu is not None:
        put_checked(directory, "cpu.cfs_period_us", PERIOD_US)
        put_checked(directory, "cpu.cfs_quota_us", max(1000, round(limit.cpu * PERIOD_US)))
    if limit.cpu_weight is not None:
        put_checked(directory, "cpu.shares", 2 + (limit.cpu_weight - 1) * 262142 // 9999)


def set_cpuset(directory: str, limit: CgroupLimit) -> None:
    """v1 wants both lists before a task may join: the parent's where none is asked for."""
    above = os.path.dirname(directory)
    for file, value in (("cpuset.cpus", limit.cpuset), ("cpuset.mems", limit.mems)):
        if not get(above, file).strip():
            put(above, file, get(os.path.dirname(above), file).strip())
        put(directory, file, value or get(above, file).strip())


SETTERS = {"memory": set_memory, "cpu": set_cpu, "cpuset": set_cpuset}
FIELDS = {
    "memory": ("memory", "memory_high", "swap"),
    "pids": ("pids",),
    "cpu": ("cpu", "cpu_weight"),
    "cpuset": ("cpuset", "mems"),
}


def set_limits(name: str, directory: str, limit: CgroupLimit) -> None:
    """One controller's limits."""
    if name == "pids" and limit.pids is not None:
        put_checked(directory, "pids.max", limit.pids)
    elif name in SETTERS:
        SETTERS[name](directory, limit)


def lock(directory: str, blocking: bool = False) -> int | None:
    """An fd that holds the directory's lock; None if somebody else has it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def pids_in(directory: str) -> list[int]:
    """Processes of one cgroup; none if it is gone."""
    try:
        return [int(line) for line in get(directory, "cgroup.procs").split()]
    except (FileNotFoundError, OSError):
        return []


def kill_in(directory: str) -> None:
    """SIGKILL all processes of a directory and below, by pidfd; the caller repeats until empty."""
    for place, _, _ in os.walk(directory):
        for pid in pids_in(place):
            with suppress(ProcessLookupError):  # it ended by itself
                fd = os.pidfd_open(pid)
                try:
                    if pid in pids_in(place):  # the number was not reused
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                finally:
                    os.close(fd)


def remove_tree(directory: str) -> None:
    """Remove a leaf and what was made below it. Raises: OSError, if it stays busy."""
    end = time.monotonic() + REMOVE_SECONDS
    while True:
        try:
            for place, _, _ in os.walk(directory, topdown=False):
                os.rmdir(place)
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
            kill_in(directory)
            time.sleep(0.002)


@define
class Leaf:
    """One box's cgroup: a directory in each controller, locked while we live."""

    directories: dict[str, str]
    lock_fds: list[int] = Factory(list)
    join_fds: dict[str, int] = Factory(dict)
    owner: int = Factory(os.getpid)

    def counters(self) -> Counters:
        """What was counted until now; read before `close`."""
        memory, pids = self.directories.get("memory"), self.directories.get("pids")
        cpu = self.directories.get("cpuacct")
        return Counters(
            memory_peak=number(memory, "memory.max_usage_in_bytes") if memory else None,
            oom_kills=keyed(memory, "memory.oom_control", "oom_kill") if memory else 0,
            pids_peak=self.pids_peak(pids) if pids else None,
            pids_refused=keyed(pids, "pids.events", "max") if pids else 0,
            cpu=number(cpu, "cpuacct.usage") / 1e9 if cpu else None,
        )

    def pids_peak(self, directory: str) -> int | None:
        """pids.peak, where the kernel has it (Linux 6.11)."""
        if not os.path.exists(f"{directory}/pids.peak"):
            return None
        return number(directory, "pids.peak")

    def close(self) -> None:
        """Kill what is left, remove, unlock. A fork of the owner only closes its descriptors."""
        for fd in self.join_fds.values():
            os.close(fd)
        self.join_fds = {}
        try:
            if self.owner == os.getpid():
                for directory in self.directories.values():
                    remove_tree(directory)
        finally:
            for fd in self.lock_fds:
                os.close(fd)
            self.lock_fds = []
        if self.owner == os.getpid():
            self.remove_parents()

    def remove_parents(self) -> None:
        """The directories above, if no other box has a leaf there."""
        for directory in self.directories.values():
            with suppress(OSError):  # ENOTEMPTY, EBUSY: in use by others
                os.rmdir(os.path.dirname(directory))


def make_parent(directory: str) -> None:
    """The place of leaves in one controller; may vanish and come back at any time."""
    with suppress(FileExistsError):
        os.mkdir(directory, 0o755)


def make_leaf(above: str, name: str) -> tuple[str, int]:
    """A new directory, locked before `reclaim` of another process could take it for stale."""
    for _ in range(100):
        make_parent(above)
        try:
            guard = lock(above, blocking=True)
            try:
                os.mkdir(f"{above}/{name}", 0o755)
                held = lock(f"{above}/{name}")
            finally:
                os.close(guard) if guard is not None else None
        except FileNotFoundError:
            continue  # the parent was removed as empty by another process
        if held is None:
            raise HostLacks("cgroup", f"{above}/{name} is locked by somebody else")
        return f"{above}/{name}", held
    raise HostLacks("cgroup", f"{above} vanishes as often as it is made")


def reclaim(above: str) -> None:
    """Remove the leaves whose owner is dead: their lock is free."""
    try:
        names = [name for name in os.listdir(above) if name.startswith("isolate-")]
        guard = lock(above, blocking=True)
    except FileNotFoundError:
        return
    try:
        for name in names:
            with suppress(FileNotFoundError):
                held = lock(f"{above}/{name}")
                if held is not None:
                    try:
                        remove_tree(f"{above}/{name}")
                    finally:
                        os.close(held)
    finally:
        os.close(guard) if guard is not None else None


COUNTING = ("memory", "pids", "cpu", "blkio")


def controllers_of(limit: CgroupLimit) -> list[str]:
    """The v1 controllers that these limits need, cpuacct for the account of time."""
    found = [
        name
        for name, fields in FIELDS.items()
        if any(getattr(limit, field) is not None for field in fields) and name in mounts()
    ]
    if limit.account:
        found += [name for name in COUNTING if name in mounts() and name not in found]
    return found + [name for name in ("cpuacct",) if name in mounts()]


def create(limit: CgroupLimit) -> Leaf:
    """A leaf with these limits, in every controller that they need.

    Raises: HostLacks.
    """
    name = f"isolate-{os.getpid()}-{next(COUNT)}-{os.urandom(4).hex()}"
    leaf = Leaf({})
    try:
        for controller in controllers_of(limit):
            above = f"{mounts()[controller]}/{parent_name()}"
            if (os.getpid(), above) not in RECLAIMED:
                reclaim(above)
                RECLAIMED.add((os.getpid(), above))
            directory, held = make_leaf(above, name)
            leaf.directories[controller] = directory
            leaf.lock_fds.append(held)
            set_limits(controller, directory, limit)
            fd = os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC)
            leaf.join_fds[f"cgroup:{controller}"] = fd
    except OSError as error:
        leaf.close()
        raise HostLacks("cgroup", f"making {name}: {error}") from error
    except BaseException:
        leaf.close()
        raise
    return leaf
