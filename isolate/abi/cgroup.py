# SPDX-License-Identifier: Apache-2.0
"""Controllers, the fields of `CgroupLimit` that each holds, and weights from version to version.

Weights: the conversions of the OCI runtimes. Shares (v1, 2 to 262144, default 1024) and weight (v2,
1 to 10000, default 100) meet at both ends and at the defaults; blkio's (10 to 1000) is linear.
Source: runtime-spec config-linux.md; crun and runc, "cgroup v2" conversion tables.
"""

from __future__ import annotations

import math

__all__ = [
    "ACCOUNTS",
    "FIELDS",
    "ONLY_V2",
    "PERIOD_US",
    "PRIVATE_DEVICES",
    "V1_NAMES",
    "blkio_of_weight",
    "page_name",
    "shares_of_weight",
    "weight_of_blkio",
    "weight_of_shares",
]

PERIOD_US = 100_000
FIELDS = {
    "memory": ("memory", "memory_high", "memory_low", "memory_min", "swap"),
    "pids": ("pids",),
    "cpu": ("cpu", "cpu_burst", "cpu_weight"),
    "cpuset": ("cpuset", "mems"),
    "io": ("io", "io_weight"),
    "hugetlb": ("hugetlb",),
    "devices": ("devices",),
}
ONLY_V2 = ("memory_high", "memory_low", "memory_min")  # v1's soft limit neither slows nor protects
V1_NAMES = {"io": "blkio"}  # where v1 calls a controller by another name
ACCOUNTS = ("cpuacct",)  # v1: joined besides, for processor time
# What a private /dev holds: null zero full random urandom, tty, ptmx, pts; no node may be made.
PRIVATE_DEVICES = (
    *(f"c 1:{minor} rw" for minor in (3, 5, 7, 8, 9)),
    "c 5:0 rw",
    "c 5:2 rw",
    "c 136:* rw",
)


def weight_of_shares(shares: int) -> int:
    """cpu.shares as cpu.weight: a curve through 2 and 1, 1024 and 100, 262144 and 10000."""
    bits = math.log2(min(max(shares, 2), 262144))
    return min(10000, math.ceil(round(10 ** ((bits * bits + 125 * bits) / 612 - 7 / 34), 9)))


def shares_of_weight(weight: int) -> int:
    """The inverse: cpu.weight as cpu.shares."""
    power = math.log10(min(max(weight, 1), 10000))
    bits = (math.sqrt(125**2 + 4 * 612 * (power + 7 / 34)) - 125) / 2
    return min(262144, max(2, round(2**bits)))


def weight_of_blkio(weight: int) -> int:
    """blkio.weight as io.weight."""
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990


def blkio_of_weight(weight: int) -> int:
    """io.weight as blkio.weight."""
    return 10 + (min(max(weight, 1), 10000) - 1) * 990 // 9999


def page_name(size: int) -> str:
    """A page size as hugetlb's files have it: 2MB, 1GB, 64KB."""
    for shift, unit in ((30, "GB"), (20, "MB"), (10, "KB")):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return f"{size}B"
