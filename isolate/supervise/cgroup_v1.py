# SPDX-License-Identifier: Apache-2.0
"""Limits of cgroup v1: one directory a controller."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache

from isolate.abi.cgroup import (
    ONLY_V2,
    PERIOD_US,
    V1_NAMES,
    blkio_of_weight,
    shares_of_weight,
)
from isolate.errors import HostLacks
from isolate.policy.cgroup import CgroupLimit
from isolate.supervise.cgroup_both import no_swap_limit, setters
from isolate.supervise.cgroup_devices import device_number
from isolate.supervise.cgroup_files import get, put, put_checked, put_cpus, read_small

__all__ = ["controller", "hierarchies", "mounts", "set_limits"]


@lru_cache(maxsize=1)
def mounts() -> dict[str, str]:
    """Mount point by v1 controller."""
    found = {}
    for line in (read_small("/proc/mounts") or "").splitlines():
        parts = line.split()
        if parts[2] == "cgroup":
            for name in parts[3].split(","):
                found[name] = parts[1]
    return found


def controller(name: str) -> str:
    """v1's name of a controller."""
    return V1_NAMES.get(name, name)


def hierarchies(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Controllers (v2's names) by mount point: some share one, as cpu and cpuacct mostly do.

    A cpuset that comes with others is named too: a leaf of it must have processors.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        mount = mounts().get(controller(name))
        if mount is not None:
            found[mount] = (*found.get(mount, ()), name)
    for mount, held in found.items():
        if mounts().get("cpuset") == mount and "cpuset" not in held:
            found[mount] = (*held, "cpuset")
    return found


def set_memory(directory: str, limit: CgroupLimit) -> None:
    """The limit and, with it, no swap beyond what is allowed."""
    for name in ONLY_V2:
        if getattr(limit, name) is not None:
            raise HostLacks(name, "cgroup v1 has no such limit", "boot with cgroup v2")
    page = os.sysconf("SC_PAGESIZE")
    if limit.memory is None and limit.swap is not None:
        raise HostLacks("swap", "on cgroup v1 swap is limited together with memory: give memory=")
    if limit.memory is None:
        return
    put_checked(directory, "memory.limit_in_bytes", limit.memory, page)
    both = "memory.memsw.limit_in_bytes"
    if os.path.exists(f"{directory}/{both}"):
        put_checked(directory, both, limit.memory + (limit.swap or 0), page)
    else:
        no_swap_limit(directory, both)


def set_cpu(directory: str, limit: CgroupLimit) -> None:
    """Quota per period with its burst, and shares."""
    if limit.cpu is not None:
        quota = max(1000, round(limit.cpu * PERIOD_US))
        put_checked(directory, "cpu.cfs_period_us", PERIOD_US)
        put_checked(directory, "cpu.cfs_quota_us", quota)
        if limit.cpu_burst is not None:
            put_checked(directory, "cpu.cfs_burst_us", min(quota, round(limit.cpu_burst * 1e6)))
    if limit.cpu_weight is not None:
        put_checked(directory, "cpu.shares", shares_of_weight(limit.cpu_weight))


def set_cpuset(directory: str, limit: CgroupLimit) -> None:
    """v1 wants both lists before a task may join: the parent's where none is asked for."""
    above = os.path.dirname(directory)
    for file, value in (("cpuset.cpus", limit.cpuset), ("cpuset.mems", limit.mems)):
        if not get(above, file).strip():
            put(above, file, get(os.path.dirname(above), file).strip())
        put_cpus(directory, file, value or get(above, file).strip(), file)


def set_io(directory: str, limit: CgroupLimit) -> None:
    """Rates by device; the weight where the scheduler has one."""
    for each in limit.io:
        device = device_number(each.device)
        for way in ("read", "write"):
            for kind in ("bps", "iops"):
                rate = getattr(each, f"{way}_{kind}")
                if rate is not None:
                    set_rate(directory, f"blkio.throttle.{way}_{kind}_device", device, rate)
    if limit.io_weight is not None:
        for file in ("blkio.weight", "blkio.bfq.weight"):
            if os.path.exists(f"{directory}/{file}"):
                put_checked(directory, file, blkio_of_weight(limit.io_weight))
                return
        raise HostLacks("io_weight", f"{directory} has no weight", "use the BFQ scheduler")


def set_rate(directory: str, file: str, device: str, rate: int) -> None:
    """One device's line. Raises: HostLacks, if the kernel holds another number."""
    put(directory, file, f"{device} {rate}")
    if f"{device} {rate}" not in get(directory, file).splitlines():
        raise HostLacks("io", f"{directory}/{file} doesn't hold {device} {rate} after writing it")


def set_devices(directory: str, limit: CgroupLimit) -> None:
    """Nothing but what is asked for may be opened; the list is read back. Raises: HostLacks."""
    if limit.devices is None:
        return
    put(directory, "devices.deny", "a")
    for rule in limit.devices:
        put(directory, "devices.allow", rule)
    held = sorted(get(directory, "devices.list").splitlines())
    if held != sorted(limit.devices):
        raise HostLacks("devices", f"{directory}/devices.list holds {', '.join(held)}")


SETTERS = setters(
    {
        "memory": set_memory,
        "cpu": set_cpu,
        "cpuset": set_cpuset,
        "io": set_io,
        "devices": set_devices,
    }
)


def set_limits(name: str, directory: str, limit: CgroupLimit) -> None:
    """One controller's limits; by v2's name of it."""
    if name in SETTERS:
        SETTERS[name](directory, limit)
