# SPDX-License-Identifier: Apache-2.0
"""The rungs to a place, on directories that look like a cgroup tree; and values read back."""

import os
import signal
from pathlib import Path

import pytest

from isolate.errors import HostLacks
from isolate.host import cgroups
from isolate.host.facts import CgroupFacts
from isolate.supervise import cgroup_files, cgroup_v2
from isolate.supervise.cgroup_oom import Levels, Oom, levels


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A root with controllers, and a delegated cgroup below it that is our own."""
    for place, kind in ((tmp_path, None), (tmp_path / "mine.scope", "domain")):
        place.mkdir(exist_ok=True)
        (place / "cgroup.controllers").write_text("cpu memory pids\n")
        (place / "cgroup.procs").write_text(f"{os.getpid()}\n")
        (place / "cgroup.subtree_control").write_text("")
        if kind:
            (place / "cgroup.type").write_text(f"{kind}\n")
    monkeypatch.setattr(cgroups, "own_cgroup", lambda: str(tmp_path / "mine.scope"))
    monkeypatch.setattr(cgroups, "SYSTEMD", "/nonexistent")
    return tmp_path


def test_a_delegated_cgroup_that_only_we_are_in_is_a_place(tree):
    top = cgroups.find_top()
    assert (top.path, top.move) == (str(tree / "mine.scope"), (os.getpid(),))
    assert top.controllers == ("cpu", "memory", "pids")


def test_the_root_may_hold_processes_besides(tree, monkeypatch):
    monkeypatch.setattr(cgroups, "own_cgroup", lambda: str(tree))
    assert cgroups.find_top().move == ()


def test_where_we_moved_ourselves_the_place_is_above(tree, monkeypatch):
    below = tree / "mine.scope" / cgroups.SELF
    below.mkdir()
    (tree / "mine.scope" / "cgroup.procs").write_text("")
    monkeypatch.setattr(cgroups, "own_cgroup", lambda: str(below))
    assert cgroups.find_top() == cgroups.Top(str(tree / "mine.scope"), ("cpu", "memory", "pids"))


def test_other_peoples_processes_are_never_moved(tree):
    (tree / "mine.scope" / "cgroup.procs").write_text(f"{os.getpid()}\n{os.getppid()}\n0\n")
    assert "holds 2 processes that are not ours" in cgroups.find_top()


def test_a_child_of_ours_moves_with_us(tree):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        (tree / "mine.scope" / "cgroup.procs").write_text(f"{os.getpid()}\n{pid}\n")
        assert set(cgroups.find_top().move) == {os.getpid(), pid}
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("cgroup.controllers", "", "no controllers"),
        ("cgroup.type", "threaded\n", "is threaded"),
        ("cgroup.type", "domain invalid\n", "is domain invalid"),
    ],
)
def test_each_rung_that_fails_says_why(tree, file, text, why):
    (tree / "mine.scope" / file).write_text(text)
    assert why in cgroups.find_top()


def test_systemds_own_cgroups_are_not_taken(tree, monkeypatch):
    monkeypatch.setattr(cgroups, "SYSTEMD", "/")
    found = cgroups.find_top()
    if os.geteuid() == 0:
        assert "has not delegated it" in found
    else:
        assert found.path == str(tree / "mine.scope")  # it gave us the directory


def test_without_a_place_the_facts_hold_every_reason_and_a_command(monkeypatch):
    monkeypatch.setattr(cgroups, "v1_rung", lambda: ((), "no controller is mounted"))
    monkeypatch.setattr(cgroups, "find_top", lambda: "not writable")
    monkeypatch.setattr(cgroups, "scope_rung", lambda: ((), "systemd is not running"))
    monkeypatch.setattr(cgroups, "SYSTEMD", "/nonexistent")
    facts = cgroups.probe_cgroup()
    assert (facts.version, facts.controllers) == (0, ())
    assert [name for name, _ in facts.rungs] == ["v1", "v2 cgroup of ours", "systemd scope"]
    assert all(reason and reason in facts.why for _, reason in facts.rungs)
    assert facts.command.startswith("sudo sh -c")
    assert f"isolate-{os.geteuid()}" in facts.command


def test_with_systemd_the_command_is_a_scope(monkeypatch):
    monkeypatch.setattr(cgroups, "SYSTEMD", "/")
    user = "" if os.geteuid() == 0 else "--user "
    assert cgroups.command(True) == f"systemd-run {user}--scope -p Delegate=yes -- PROGRAM"


def test_a_scope_that_may_be_had_counts_as_v2(monkeypatch):
    monkeypatch.setattr(cgroups, "v1_rung", lambda: ((), "none"))
    monkeypatch.setattr(cgroups, "find_top", lambda: "not ours")
    monkeypatch.setattr(cgroups, "scope_rung", lambda: (("memory", "pids", "rdma"), ""))
    facts = cgroups.probe_cgroup()
    assert (facts.version, facts.controllers) == (2, ("memory", "pids"))
    assert facts.rungs[-1] == ("systemd scope", "")


def test_v1_and_v2_side_by_side_are_hybrid(monkeypatch):
    monkeypatch.setattr(cgroups, "v1_rung", lambda: (("memory", "pids"), ""))
    monkeypatch.setattr(cgroups, "find_top", lambda: cgroups.Top("/x", ("hugetlb", "misc")))
    assert cgroups.probe_cgroup() == CgroupFacts(
        version=1,
        controllers=("hugetlb", "memory", "pids"),
        unified=("hugetlb",),
        rungs=(("v1", ""), ("v2 cgroup of ours", "")),
    )


def test_a_number_that_the_kernel_changed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("")
    cgroup_files.put_checked(str(tmp_path), "memory.max", 8192)
    monkeypatch.setattr(cgroup_files, "number", lambda *_: 4096)
    cgroup_files.put_checked(str(tmp_path), "memory.max", 8191, slack=4095)  # a page's rest
    with pytest.raises(HostLacks, match="holds 4096 after 8192"):
        cgroup_files.put_checked(str(tmp_path), "memory.max", 8192)
    monkeypatch.setattr(cgroup_files, "number", lambda *_: 12288)
    with pytest.raises(HostLacks, match="holds 12288"):
        cgroup_files.put_checked(str(tmp_path), "memory.max", 8192, slack=4096)


def test_a_list_is_compared_with_what_is_in_force(tmp_path):
    (tmp_path / "cpuset.cpus").write_text("")
    (tmp_path / "cpuset.cpus.effective").write_text("0-2\n")
    cgroup_files.put_cpus(str(tmp_path), "cpuset.cpus", "0,1,2", "cpuset.cpus.effective")
    with pytest.raises(HostLacks, match="holds '0-2' after 0-3"):
        cgroup_files.put_cpus(str(tmp_path), "cpuset.cpus", "0-3", "cpuset.cpus.effective")


def test_a_controller_that_is_not_handed_down_is_an_error(tmp_path):
    (tmp_path / "cgroup.subtree_control").write_text("memory")
    cgroup_v2.enable(str(tmp_path), ("memory",))
    with pytest.raises(HostLacks, match="pids"):
        cgroup_v2.enable(str(tmp_path), ("memory", "pids"))  # a plain file: holds "+pids"


def test_a_directory_that_is_none_is_named(tmp_path):
    with pytest.raises(HostLacks, match=f"{tmp_path}/absent/pids.max"):
        cgroup_files.put(f"{tmp_path}/absent", "pids.max", 5)


def level(path: Path, oom: int, peak: int = 0, most: str = "max"):
    path.mkdir(parents=True, exist_ok=True)
    (path / "memory.events.local").write_text(f"low 0\nhigh 0\nmax 9\noom {oom}\noom_kill 0\n")
    (path / "memory.peak").write_text(str(peak))
    (path / "memory.max").write_text(most)


def test_the_level_that_counted_is_whose_limit_it_was(tmp_path):
    leaf, above = tmp_path / "a" / "leaf", tmp_path / "a"
    level(tmp_path, 7)
    level(above, 3)
    level(leaf, 0)
    found = levels(2, str(leaf), str(tmp_path))
    assert found.oom() == Oom("machine")
    level(above, 4, 999, "1000")
    assert found.oom() == Oom(str(above), "memory", 999, 1000)
    level(leaf, 1, 50, "64")
    assert found.oom() == Oom("box", "memory", 50, 64)
    assert found.now().oom() == Oom("machine")  # counted again: nothing since


def test_v1_without_working_counters_asks_which_level_was_full(tmp_path):
    for file, value in {"tasks": "", "memory.failcnt": "0", "memory.limit_in_bytes": str(64 << 20),
                        "memory.max_usage_in_bytes": str(64 << 20)}.items():  # fmt: skip
        (tmp_path / file).write_text(value)
    found = Levels(1, ((str(tmp_path), 0),))
    assert found.oom() == Oom("box", "memory", 64 << 20, 64 << 20)
    (tmp_path / "memory.max_usage_in_bytes").write_text(str(60 << 20))
    assert found.oom() == Oom("machine")
    (tmp_path / "memory.memsw.limit_in_bytes").write_text(str(96 << 20))
    (tmp_path / "memory.memsw.max_usage_in_bytes").write_text(str(96 << 20))
    (tmp_path / "memory.failcnt").write_text("5")
    assert found.oom() == Oom("box", "swap", 96 << 20, 96 << 20)


def test_a_tree_of_any_shape_is_removed(tmp_path):
    top = tmp_path / "leaf"
    deep = top
    for number in range(300):
        deep = deep / f"level-with-a-long-name-{number}"
        os.makedirs(top / f"wide-{number}")
        if len(str(deep)) < 3900:
            os.mkdir(deep)
    for place in (top / "wide-3", top / "level-with-a-long-name-0"):
        os.chmod(place, 0)
    cgroup_files.remove_tree(str(top))
    assert not top.exists()
    cgroup_files.remove_tree(str(top))  # what is gone is gone
