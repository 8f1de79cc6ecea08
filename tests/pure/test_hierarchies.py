# SPDX-License-Identifier: Apache-2.0
"""v1 hierarchies that several controllers share: as systemd mounts them, and all in one."""

import os
from types import SimpleNamespace

import pytest

from isolate import CgroupLimit, HostLacks
from isolate.supervise import cgroup_files, cgroup_v1, cgroup_v2, cgroupfs
from isolate.supervise import freezer as freezing
from isolate.supervise.cgroupfs import Leaf, create

FILES = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.failcnt"),
    "pids": ("pids.max",),
    "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.cfs_burst_us", "cpu.shares"),
    "cpuacct": ("cpuacct.usage",),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "blkio": ("blkio.throttle.read_bps_device", "blkio.weight"),
    "hugetlb": ("hugetlb.2MB.limit_in_bytes",),
    "freezer": ("freezer.state",),
    "devices": ("devices.allow", "devices.deny", "devices.list"),
}


class Machine:
    """v1 hierarchies as plain directories, in which a new cgroup has its files."""

    def __init__(self, root, monkeypatch, *hierarchies):
        self.root = root
        self.mounts = {}
        for names in hierarchies:
            (root / names).mkdir()
            self.mounts.update(dict.fromkeys(names.split(","), str(root / names)))
        if "cpuset" in self.mounts:
            for name, value in (("cpus", "0-3"), ("mems", "0")):
                (root / self.mounts["cpuset"] / f"cpuset.{name}").write_text(f"{value}\n")
        monkeypatch.setenv("ISOLATE_CGROUP_PARENT", "isolate-pure")
        monkeypatch.setattr(cgroup_v1, "mounts", lambda: self.mounts)
        monkeypatch.setattr(cgroupfs, "reclaim_once", lambda above: None)
        self.real_mkdir = os.mkdir
        monkeypatch.setattr(os, "mkdir", self.mkdir)
        monkeypatch.setattr(os, "rmdir", self.rmdir)

    def controllers(self, path):
        return [name for name, mount in self.mounts.items() if str(path).startswith(mount + "/")]

    def mkdir(self, path, mode=0o777, **other):
        self.real_mkdir(path, mode, **other)
        for name in self.controllers(path):
            for file in ("tasks", "cgroup.procs", *FILES[name]):
                with open(f"{path}/{file}", "w") as made:
                    made.write("0\n" if file.endswith("failcnt") else "")

    def rmdir(self, path, **other):
        """A cgroup's files go with it; what is below does not."""
        if any(entry.is_dir() for entry in os.scandir(path)):
            raise OSError(39, "not empty", str(path))
        for entry in list(os.scandir(path)):
            os.unlink(entry.path)
        real_rmdir(path, **other)

    def leaves(self):
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob("*/*/isolate-*"))


real_rmdir = os.rmdir
SYSTEMD = ("memory", "cpu,cpuacct", "pids", "cpuset", "blkio", "freezer", "devices", "hugetlb")
LIMIT = CgroupLimit(memory="64M", pids=7, cpu=0.5)


def text(leaf, controller, file):
    with open(f"{leaf.directories[controller]}/{file}") as opened:
        return opened.read().strip()


def test_controllers_that_share_a_mount_share_one_directory(tmp_path, monkeypatch):
    machine = Machine(tmp_path, monkeypatch, *SYSTEMD)
    leaf = create(LIMIT)
    try:
        assert leaf.directories["cpu"] == leaf.directories["cpuacct"]
        assert len(leaf.tops) == len(set(leaf.tops)) == len(machine.leaves()) == 3
        assert set(leaf.join_fds) == {f"cgroup:{n}" for n in ("memory", "pids", "cpu", "cpuacct")}
        assert text(leaf, "cpu", "cpu.cfs_quota_us") == "50000"
        assert text(leaf, "pids", "pids.max") == "7"
        assert text(leaf, "memory", "memory.limit_in_bytes") == str(64 << 20)
    finally:
        leaf.close()
    assert machine.leaves() == []


def test_everything_in_one_hierarchy_is_one_directory(tmp_path, monkeypatch):
    machine = Machine(tmp_path, monkeypatch, "memory,cpu,cpuacct,pids,cpuset,freezer")
    leaf = create(LIMIT)
    try:
        assert len(leaf.tops) == 1
        assert len(set(leaf.directories.values())) == 1
        # A leaf without processors or memory nodes takes no process at all.
        assert text(leaf, "cpuset", "cpuset.cpus") == "0-3"
        assert text(leaf, "cpuset", "cpuset.mems") == "0"
    finally:
        leaf.close()
    assert machine.leaves() == []


def test_a_cpuset_of_its_own_is_left_alone_unless_it_is_asked_for(tmp_path, monkeypatch):
    Machine(tmp_path, monkeypatch, *SYSTEMD)
    with_leaf(LIMIT, lambda leaf: "cpuset" not in leaf.directories)
    with_leaf(CgroupLimit(cpuset="1"), lambda leaf: text(leaf, "cpuset", "cpuset.cpus") == "1")


def with_leaf(limit, check):
    leaf = create(limit)
    try:
        assert check(leaf)
    finally:
        leaf.close()


def test_each_controller_has_its_own_where_each_has_its_mount(tmp_path, monkeypatch):
    machine = Machine(tmp_path, monkeypatch, "memory", "cpu", "cpuacct", "pids")
    leaf = create(LIMIT)
    assert len(machine.leaves()) == 4
    leaf.close()
    assert machine.leaves() == []


def test_a_limit_that_fails_leaves_no_directory_of_any_hierarchy(tmp_path, monkeypatch):
    machine = Machine(tmp_path, monkeypatch, *SYSTEMD)
    with pytest.raises(HostLacks, match="3MB"):
        create(CgroupLimit(memory="64M", pids=7, hugetlb={"3M": "3M"}))
    assert machine.leaves() == []
    assert not list(tmp_path.glob("*/isolate-pure"))


@pytest.mark.parametrize(
    ("names", "mounts", "found"),
    [
        (("cpu", "cpuacct"), {"cpu": "/a", "cpuacct": "/a"}, {"/a": ("cpu", "cpuacct")}),
        (("cpu", "cpuacct"), {"cpu": "/a", "cpuacct": "/b"}, {"/a": ("cpu",), "/b": ("cpuacct",)}),
        (("cpu", "cpuacct"), {"cpu": "/a"}, {"/a": ("cpu",)}),
        (("io",), {"blkio": "/b"}, {"/b": ("io",)}),
        (("memory",), {"memory": "/m", "cpuset": "/m"}, {"/m": ("memory", "cpuset")}),
        (("cpuset",), {"memory": "/m", "cpuset": "/m"}, {"/m": ("cpuset",)}),
        ((), {"memory": "/m"}, {}),
    ],
)
def test_controllers_by_mount(monkeypatch, names, mounts, found):
    monkeypatch.setattr(cgroup_v1, "mounts", lambda: mounts)
    assert cgroup_v1.hierarchies(names) == found


def test_mounts_are_told_apart_by_their_options(monkeypatch):
    lines = (
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n"
        "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n"
        "cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\n"
    )
    monkeypatch.setattr(cgroup_v1, "read_small", lambda path: lines)
    cgroup_v1.mounts.cache_clear()
    try:
        found = cgroup_v1.mounts()
    finally:
        cgroup_v1.mounts.cache_clear()
    assert found["cpu"] == found["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert "/sys/fs/cgroup/unified" not in found.values()


def v2_directory(path, *files):
    path.mkdir()
    for file in files:
        (path / file).write_text("")
    return str(path)


def test_a_weight_is_written_in_v2_only_where_v2_has_the_controller(tmp_path):
    top = v2_directory(tmp_path / "top", "pids.max")
    leaf = v2_directory(tmp_path / "top" / "box", "pids.max")
    limit = CgroupLimit(cpu_weight=50, io_weight=70, memory_low="1M")
    cgroup_v2.set_standing(top, leaf, ("pids",), limit)  # the rest is in v1 hierarchies
    with pytest.raises(HostLacks, match=r"cpu\.weight"):
        cgroup_v2.set_standing(top, leaf, ("pids", "cpu"), limit)
    with pytest.raises(HostLacks, match="weight"):
        cgroup_v2.set_standing(top, leaf, ("io",), limit)
    with pytest.raises(HostLacks, match=r"memory\.low"):
        cgroup_v2.set_standing(top, leaf, ("memory",), limit)


def test_a_weight_of_a_split_leaf_is_set_where_it_has_siblings(tmp_path):
    above = v2_directory(tmp_path / "above", "memory.low", "memory.min")
    top = v2_directory(tmp_path / "above" / "top", "cpu.weight", "io.weight", "memory.low")
    limit = CgroupLimit(cpu_weight=50, io_weight=70, memory_low="1M")
    cgroup_v2.set_standing(top, f"{top}/box", ("cpu", "io", "memory"), limit)
    held = {name: open(f"{top}/{name}").read() for name in ("cpu.weight", "io.weight")}
    assert held == {"cpu.weight": "50", "io.weight": "default 70"}
    assert open(f"{top}/memory.low").read() == str(1 << 20)
    assert open(f"{above}/memory.low").read() == "max"


class TestFreezer:
    """Where v1's freezer shares a hierarchy, the box's own leaf is what is frozen."""

    def freezer(self, tmp_path, monkeypatch, shared):
        directory = tmp_path / "isolate-pure" / "isolate-1-0-x"
        monkeypatch.setenv("ISOLATE_CGROUP_PARENT", "isolate-pure")
        other = tmp_path / "memory" / "isolate-1-0-x"
        for path in (directory if shared else other, directory.parent):
            path.mkdir(parents=True, exist_ok=True)
        source = directory if shared else other
        (source / "cgroup.procs").write_text("")
        (source / "freezer.state").write_text("")
        monkeypatch.setattr(freezing.cgroupfs, "mounts", lambda: {"freezer": str(tmp_path)})
        return SimpleNamespace(directories={"memory": str(source)}), directory

    def test_the_shared_leaf_is_frozen_in_place_and_not_removed(self, tmp_path, monkeypatch):
        leaf, directory = self.freezer(tmp_path, monkeypatch, shared=True)
        found = freezing.Freezer()
        found.freeze(leaf)
        assert (directory / "freezer.state").read_text() == "FROZEN"
        assert found.lock_fd == -1
        found.close()
        assert directory.is_dir()
        assert (directory / "freezer.state").read_text() == "THAWED"

    def test_elsewhere_a_leaf_is_made_and_goes(self, tmp_path, monkeypatch):
        leaf, directory = self.freezer(tmp_path, monkeypatch, shared=False)
        found = freezing.Freezer()
        found.place_v1(leaf.directories["memory"], leaf.directories)
        assert directory.is_dir()
        assert found.lock_fd >= 0
        (directory / "freezer.state").write_text("")
        monkeypatch.setattr(cgroup_files, "remove_once", freezing_rmtree)
        found.close()
        assert not directory.exists()


def freezing_rmtree(directory):
    """A plain directory keeps its files, a cgroup doesn't."""
    for entry in os.scandir(directory):
        os.unlink(entry.path)
    real_rmdir(directory)


@pytest.mark.parametrize(
    ("version", "directories", "file", "where"),
    [
        (2, {"unified": "/u", "memory": "/u"}, "memory.peak", "/u"),
        (2, {"unified": "/u"}, "cpu.stat", "/u"),
        (1, {"memory": "/m", "unified": "/u"}, "memory.stat", "/m"),
        (1, {"memory": "/m", "unified": "/u", "pids": "/u"}, "pids.max", "/u"),
        (1, {"memory": "/m"}, "pids.max", None),
        (1, {"memory": "/m"}, "cgroup.events", None),
    ],
)
def test_a_file_is_looked_for_where_its_controller_is(version, directories, file, where):
    assert Leaf(version=version, directories=directories).directory_of(file) == where
