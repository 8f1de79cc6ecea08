# SPDX-License-Identifier: Apache-2.0
"""The guest is what the other files here take for granted."""

import os
from pathlib import Path

import pytest

CGROUP = Path("/sys/fs/cgroup")


def own() -> Path:
    text = Path("/proc/self/cgroup").read_text()
    return CGROUP / text.strip().removeprefix("0::/")


@pytest.mark.needs("cgroup2")
def test_the_only_hierarchy_is_v2_with_every_controller_that_we_limit_by():
    assert [line[:3] for line in Path("/proc/self/cgroup").read_text().splitlines()] == ["0::"]
    found = set((CGROUP / "cgroup.controllers").read_text().split())
    assert {"cpu", "cpuset", "io", "memory", "hugetlb", "pids"} <= found


@pytest.mark.needs("cgroup2", "root")
def test_root_is_in_the_root_cgroup_of_the_initial_namespace():
    assert own() == CGROUP
    assert not (CGROUP / "cgroup.type").exists()  # only the real root lacks it


@pytest.mark.needs("cgroup2", "unprivileged")
def test_the_ordinary_user_is_at_the_top_of_a_subtree_that_is_its_own():
    top = CGROUP / "delegated.scope"
    assert own() in (top, top / "isolate.self")  # before our first box, or after
    assert top.stat().st_uid == os.geteuid() == 1000
    assert os.access(top / "cgroup.procs", os.W_OK)
    assert not os.access(CGROUP / "cgroup.procs", os.W_OK)
    assert not os.access(top / "memory.max", os.W_OK)  # its own ceiling is its giver's


@pytest.mark.needs("apparmor")
def test_apparmor_is_the_security_module():
    assert "apparmor" in Path("/sys/kernel/security/lsm").read_text().split(",")
    assert Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
