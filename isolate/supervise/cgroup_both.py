# SPDX-License-Identifier: Apache-2.0
"""Limits that cgroup v1 and v2 hold in the same files, or in files that differ by their ending."""

from __future__ import annotations

import os
from collections.abc import Mapping

from isolate.abi.cgroup import FIELDS, page_name
from isolate.errors import HostLacks
from isolate.policy.cgroup import CgroupLimit
from isolate.supervise.cgroup_files import Setter, put_checked, swap_exists

__all__ = ["no_swap_limit", "set_hugetlb", "set_pids", "setters"]


def set_pids(directory: str, limit: CgroupLimit) -> None:
    """pids.max."""
    if limit.pids is not None:
        put_checked(directory, "pids.max", limit.pids)


def set_hugetlb(directory: str, limit: CgroupLimit) -> None:
    """By page size: v2's file, where there is one, or v1's."""
    for each in limit.hugetlb:
        file = f"hugetlb.{page_name(each.page)}.max"
        if not os.path.exists(f"{directory}/{file}"):
            file = f"hugetlb.{page_name(each.page)}.limit_in_bytes"
        if not os.path.exists(f"{directory}/{file}"):
            raise HostLacks("hugetlb", f"this kernel has no pages of {page_name(each.page)}")
        put_checked(directory, file, each.limit, each.page - 1)


def no_swap_limit(directory: str, file: str) -> None:
    """Raises: HostLacks, if the machine has swap and the kernel no limit for it."""
    if swap_exists():
        raise HostLacks("swap", f"{directory} has no {file}", "boot with swapaccount=1")


def setters(own: Mapping[str, Setter]) -> dict[str, Setter]:
    """One for each controller: a version's own, and the common ones."""
    found = {**own, "pids": set_pids, "hugetlb": set_hugetlb}
    assert set(found) == set(FIELDS)
    return found
