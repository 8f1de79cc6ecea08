# SPDX-License-Identifier: Apache-2.0
"""Limits of cgroup v2: one directory for every controller."""

from __future__ import annotations

import os

from isolate.abi.cgroup import PERIOD_US, blkio_of_weight
from isolate.errors import HostLacks
from isolate.policy.cgroup import CgroupLimit, IoLimit
from isolate.supervise.cgroup_both import no_swap_limit, setters
from isolate.supervise.cgroup_devices import device_number
from isolate.supervise.cgroup_files import get, put, put_checked, put_cpus, put_text

__all__ = ["enable", "set_limits", "set_standing"]

RATES = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


def enable(directory: str, names: tuple[str, ...]) -> None:
    """Hand controllers down to what is below. Raises: HostLacks."""
    held = get(directory, "cgroup.subtree_control").split()
    missing = [name for name in names if name not in held]
    if not missing:
        return
    put(directory, "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
    held = get(directory, "cgroup.subtree_control").split()
    for name in missing:
        if name not in held:
            raise HostLacks(name, f"{directory}/cgroup.subtree_control holds {' '.join(held)}")


def set_memory(directory: str, limit: CgroupLimit) -> None:
    """Ceilings, protections, swap; an OOM kill takes the whole leaf."""
    page = os.sysconf("SC_PAGESIZE")
    for field, file in (
        ("memory", "memory.max"),
        ("memory_high", "memory.high"),
        ("memory_low", "memory.low"),
        ("memory_min", "memory.min"),
    ):
        value = getattr(limit, field)
        if value is not None:
            put_checked(directory, file, value, page - 1)
    put_checked(directory, "memory.oom.group", 1)
    swap = limit.swap if limit.swap is not None or limit.memory is None else 0
    if swap is None:
        return
    if os.path.exists(f"{directory}/memory.swap.max"):
        put_checked(directory, "memory.swap.max", swap, page - 1)
    else:
        no_swap_limit(directory, "memory.swap.max")


def set_cpu(directory: str, limit: CgroupLimit) -> None:
    """Quota per period with its burst, and weight."""
    if limit.cpu is not None:
        quota = max(1000, round(limit.cpu * PERIOD_US))
        put_text(directory, "cpu.max", f"{quota} {PERIOD_US}")
        if limit.cpu_burst is not None:
            put_checked(directory, "cpu.max.burst", min(quota, round(limit.cpu_burst * 1e6)))
    if limit.cpu_weight is not None:
        put_checked(directory, "cpu.weight", limit.cpu_weight)


def set_cpuset(directory: str, limit: CgroupLimit) -> None:
    """Lists that hold: what is effective is compared, since the kernel takes any number."""
    for file, value in (("cpuset.cpus", limit.cpuset), ("cpuset.mems", limit.mems)):
        if value is not None:
            put_cpus(directory, file, value, f"{file}.effective")


def set_io(directory: str, limit: CgroupLimit) -> None:
    """Rates by device; the weight where the scheduler has one."""
    for each in limit.io:
        set_device(directory, each)
    if limit.io_weight is None:
        return
    if os.path.exists(f"{directory}/io.weight"):
        put_text(directory, "io.weight", f"default {limit.io_weight}")
    elif os.path.exists(f"{directory}/io.bfq.weight"):
        wanted = f"default {blkio_of_weight(limit.io_weight)}"
        put_text(directory, "io.bfq.weight", wanted)
    else:
        raise HostLacks("io_weight", f"{directory} has no weight", "use the BFQ scheduler")


def set_device(directory: str, limit: IoLimit) -> None:
    """One line of io.max. Raises: HostLacks, if the kernel holds other numbers."""
    device = device_number(limit.device)
    rates = {RATES[name]: getattr(limit, name) for name in RATES}
    wanted = {name: str(rate) for name, rate in rates.items() if rate is not None}
    put(directory, "io.max", " ".join([device, *(f"{k}={v}" for k, v in wanted.items())]))
    for line in get(directory, "io.max").splitlines():
        name, *pairs = line.split()
        if name == device:
            held = dict(pair.split("=", 1) for pair in pairs)
            if all(held.get(key) == value for key, value in wanted.items()):
                return
    raise HostLacks("io", f"{directory}/io.max doesn't hold {wanted} for {device} after writing it")


def set_devices(directory: str, limit: CgroupLimit) -> None:
    """v2 has no such files. Raises: HostLacks."""
    if limit.devices is not None:
        raise HostLacks("devices", f"cgroup v2 ({directory}) has no list of devices")


SETTERS = setters(
    {
        "memory": set_memory,
        "cpu": set_cpu,
        "cpuset": set_cpuset,
        "io": set_io,
        "devices": set_devices,
    }
)


def set_standing(top: str, leaf: str, names: tuple[str, ...], limit: CgroupLimit) -> None:
    """What counts among siblings, at every level of ours: a weight is one of the directory that has
    siblings, and protection is never more than what is above has. Of v2's controllers: `names`.

    Raises: HostLacks.
    """
    if top != leaf and limit.cpu_weight is not None and "cpu" in names:
        put_checked(top, "cpu.weight", limit.cpu_weight)
    if top != leaf and limit.io_weight is not None and "io" in names:
        set_io(top, CgroupLimit(io_weight=limit.io_weight))
    if "memory" not in names:
        return
    for field, file in (("memory_low", "memory.low"), ("memory_min", "memory.min")):
        value = getattr(limit, field)
        if value is not None:
            put_text(os.path.dirname(top), file, "max")  # claims nothing itself
            if top != leaf:
                put_checked(top, file, value, os.sysconf("SC_PAGESIZE") - 1)


def set_limits(name: str, directory: str, limit: CgroupLimit) -> None:
    """One controller's limits. Raises: HostLacks."""
    SETTERS[name](directory, limit)
