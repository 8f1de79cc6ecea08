# SPDX-License-Identifier: Apache-2.0
"""For every rung of the ladder that fails: the reason and the exact command; doctor shows all."""

import os
import shlex
import subprocess

import pytest
from attrs import evolve

from isolate import HostLacks, Sandbox
from isolate.checkup import examine
from isolate.host import cgroup_cures as cures
from isolate.host import cgroups
from isolate.host.facts import CgroupFacts, Host
from isolate.plan.compile import compile_box
from tests import hosts

UID = os.geteuid()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose texts are made up; `machine[PATH]` is what a file of /proc or /sys holds."""
    texts = {"/proc/mounts": "", "/proc/self/mountinfo": "", "/proc/self/cgroup": "0::/\n"}
    real = cgroups.read
    monkeypatch.setattr(cgroups, "read", lambda path: texts.get(path, real(path)))
    monkeypatch.setattr(cgroups, "SYSTEMD", "/nonexistent")
    return texts


def v1_mounts(machine, place, *hierarchies):
    """Mounted below a directory that is ours to write."""
    lines = []
    for names in hierarchies:
        (place / names).mkdir()
        lines.append(f"cgroup {place / names} cgroup rw,relatime,{names} 0 0")
    machine["/proc/mounts"] = "\n".join(lines)


def top(path, *names):
    return cgroups.Top(str(path), names)


def test_every_rung_is_tried_for_doctor_also_where_the_first_holds(machine, tmp_path, monkeypatch):
    v1_mounts(machine, tmp_path, "memory", "cpu,cpuacct", "pids")
    monkeypatch.setattr(cgroups, "find_top", lambda: "no cgroup2 mount shows our own cgroup")
    few, every = cgroups.probe_cgroup(), cgroups.probe_cgroup(every=True)
    assert [name for name, _ in few.rungs] == ["v1", "v2 cgroup of ours"]
    assert [name for name, _ in every.rungs] == ["v1", "v2 cgroup of ours", "systemd scope"]
    assert evolve(every, rungs=few.rungs, commands=few.commands) == few
    assert few.controllers == ("cpu", "cpuacct", "memory", "pids")


def test_a_scope_that_could_be_had_changes_nothing_where_there_is_a_place(
    machine, tmp_path, monkeypatch
):
    v1_mounts(machine, tmp_path, "memory")
    monkeypatch.setattr(cgroups, "find_top", lambda: "not ours")
    monkeypatch.setattr(cgroups, "scope_rung", lambda: (("pids", "cpu"), ""))
    assert cgroups.probe_cgroup(every=True).unified == ()
    assert cgroups.probe_cgroup(every=True).controllers == ("memory",)


@pytest.mark.parametrize("every", [False, True])
def test_each_rung_that_fails_has_a_command_and_no_other(machine, monkeypatch, every):
    monkeypatch.setattr(cgroups, "find_top", lambda: "not writable")
    facts = cgroups.probe_cgroup(every)
    assert {name for name, _ in facts.commands} == {name for name, why in facts.rungs if why}
    assert all(text for _, text in facts.commands)
    monkeypatch.setattr(cgroups, "find_top", lambda: top("/x", *cgroups.HANDED))
    facts = cgroups.probe_cgroup(every)
    assert "v2 cgroup of ours" not in dict(facts.commands)
    assert facts.command == ""


def test_doctor_has_a_finding_for_each_rung_with_reason_and_command():
    facts = CgroupFacts(
        why="v1: none; v2: foreign",
        rungs=(("v1", "none"), ("v2 cgroup of ours", "foreign"), ("systemd scope", "no bus")),
        commands=(("v2 cgroup of ours", "sudo two"), ("systemd scope", "sudo three")),
        command="sudo main",
    )
    found = {each.name: each for each in examine(evolve(hosts.ORDINARY, cgroup=facts))}
    rungs = [found[f"cgroup: {name}"] for name, _ in facts.rungs]
    assert [each.why for each in rungs] == ["none", "foreign", "no bus"]
    assert [each.cure for each in rungs] == ["sudo main", "sudo two", "sudo three"]
    assert not any(each.ok or each.required for each in rungs)
    assert found["memory"].cure.startswith("sudo main")


def test_a_rung_that_fails_where_another_holds_says_so():
    facts = evolve(hosts.ROOT_V2.cgroup, rungs=(("v1", "none"), ("v2 cgroup of ours", "")))
    found = {each.name: each for each in examine(evolve(hosts.ROOT_V2, cgroup=facts))}
    assert found["cgroup: v1"].why == "none (another rung holds)"
    assert (found["cgroup: v2 cgroup of ours"].ok, found["cgroup: v2 cgroup of ours"].why) == (
        True,
        "",
    )


@pytest.mark.parametrize("short", [{"mem": "64M"}, {"cpu": 0.5}, {"cpus": "0"}, {"swap": "1M"}])
def test_every_limit_that_is_refused_tells_the_same_command(short):
    facts = CgroupFacts(why="v1: none", command="sudo do-this")
    with pytest.raises(HostLacks, match="sudo do-this"):
        compile_box(Sandbox(**short).policy, evolve(hosts.ORDINARY, cgroup=facts))


def test_a_controller_that_is_missing_in_a_place_has_its_command_too():
    facts = CgroupFacts(version=2, controllers=("pids",), unified=("pids",), command="sudo more")
    with pytest.raises(HostLacks, match="sudo more") as caught:
        compile_box(Sandbox(mem="64M").policy, evolve(hosts.DELEGATED, cgroup=facts))
    assert "the memory controller is not available" in str(caught.value)


class TestMore:
    """There is a place, but not every controller."""

    def test_what_is_handed_down_without_systemd(self, machine, monkeypatch):
        machine["/proc/self/mountinfo"] = "1 1 0:1 / /c rw - cgroup2 none rw"
        found = cgroups.more(["cpu", "io"], False, top("/c/users/mine", "pids"))
        assert found == "sudo sh -c 'echo +cpu +io >/c/users/cgroup.subtree_control'"

    def test_the_root_has_all_that_the_kernel_has(self, machine):
        machine["/proc/self/mountinfo"] = "1 1 0:1 / /c rw - cgroup2 none rw"
        assert cgroups.more(["cpu"], False, top("/c", "pids")) == ""
        assert cgroups.more(["cpu"], False, "none") == ""

    def test_an_ordinary_user_of_systemd_asks_for_a_drop_in(self, machine, monkeypatch):
        monkeypatch.setattr(cgroups, "SYSTEMD", "/")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        found = cgroups.more(["cpuset"], False, top("/c/x", "pids"))
        assert "Delegate=yes" in found
        assert "restart user@1000.service" in found

    def test_root_mounts_what_v1_has_and_nobody_mounted(self, machine, tmp_path, monkeypatch):
        v1_mounts(machine, tmp_path, "memory")
        machine["/proc/cgroups"] = (
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
            "memory\t1\t1\t1\nblkio\t0\t1\t1\npids\t0\t1\t0\n"
        )
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        found = cgroups.more(["io", "pids", "hugetlb"], True, "none")
        assert found == cures.mount_v1(["blkio"])  # pids is switched off, hugetlb not built
        assert cgroups.more(["pids"], True, "none") == ""
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert cgroups.more(["io"], True, "none") == ""


class TestMounts:
    def test_controllers_of_ours_are_found_by_v1s_names(self, machine, tmp_path):
        v1_mounts(machine, tmp_path, "cpu,cpuacct", "net_cls,net_prio", "blkio")
        assert set(cgroups.v1_mounts()) == {"cpu", "cpuacct", "blkio"}
        found, why = cgroups.v1_rung()
        assert (found, why) == (("cpu", "cpuacct", "io"), "")

    def test_mounts_that_are_not_ours_are_told_from_none(self, machine, tmp_path, monkeypatch):
        assert cgroups.v1_rung() == ((), "no controller is mounted")
        v1_mounts(machine, tmp_path, "memory")
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert cgroups.v1_rung() == ((), "none of its mounts is writable")

    def test_a_directory_of_ours_in_a_mount_that_is_not_is_enough(
        self, machine, tmp_path, monkeypatch
    ):
        v1_mounts(machine, tmp_path, "memory")
        monkeypatch.setenv("ISOLATE_CGROUP_PARENT", "mine")
        own = tmp_path / "memory" / "mine"
        monkeypatch.setattr(os, "access", lambda path, mode: str(path) == str(own))
        assert cgroups.v1_rung()[0] == ()
        own.mkdir()
        assert cgroups.v1_rung()[0] == ("memory",)

    def test_the_v1_command_names_each_mount_once(self, machine, tmp_path, monkeypatch):
        v1_mounts(machine, tmp_path, "memory", "cpu,cpuacct")
        text = cgroups.command(False)
        assert text.count(f"{tmp_path}/cpu,cpuacct") == 1
        assert f"{tmp_path}/memory" in text
        assert text.endswith(f"export ISOLATE_CGROUP_PARENT=isolate-{UID}")


def typed(text):
    """A shell's own view of a command: it parses, and what sudo would run is one argument."""
    subprocess.run(["sh", "-n", "-c", text], check=True)
    return shlex.split(text)


@pytest.mark.parametrize(
    "text",
    [
        cures.scope(0),
        cures.scope(1000),
        cures.own_v2("/sys/fs/cgroup", 1000, 77),
        cures.own_v1(["/a", "/b", "/a"], 1000),
        cures.mount_v1(["pids", "blkio"]),
        cures.hand_down("/sys/fs/cgroup/x", ["cpu", "io"]),
        cures.delegate_more(1000),
        cures.scope_cure("jeepney is not installed", 1000),
        cures.scope_cure("no bus on which systemd listens to us", 0),
        cures.scope_cure("no bus on which systemd listens to us", 1000),
        cures.scope_cure("no controllers in /sys/fs/cgroup", 1000),
    ],
)
def test_every_command_is_one_that_a_shell_takes(text):
    words = typed(text)
    if words[0] == "sudo" and words[1] == "sh":
        assert words[2] == "-c"
        subprocess.run(["sh", "-n", "-c", words[3]], check=True)


def test_the_command_for_v1_makes_the_directories(tmp_path):
    """Run as it is told, but for sudo: on directories of our own."""
    for name in ("memory", "pids"):
        (tmp_path / name).mkdir()
    text = cures.own_v1([f"{tmp_path}/memory", f"{tmp_path}/pids"], UID)
    subprocess.run(text.removeprefix("sudo "), shell=True, check=True)
    for name in ("memory", "pids"):
        assert (tmp_path / name / f"isolate-{UID}").stat().st_uid == UID


def test_the_command_for_v2_writes_what_a_delegation_is(tmp_path):
    own = tmp_path / f"isolate-{UID}"
    own.mkdir()
    for file in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        (own / file).write_text("")
    text = cures.own_v2(str(tmp_path), UID, 4711)
    subprocess.run(text.removeprefix("sudo "), shell=True, check=True)
    assert (own / "cgroup.procs").read_text() == "4711\n"
    handed = (tmp_path / "cgroup.subtree_control").read_text().split()
    assert {"+memory", "+pids", "+cpu"} <= set(handed)


def test_a_machine_without_systemd_has_nothing_to_type_for_a_scope():
    assert cures.scope_cure("systemd is not running", UID).startswith("nothing to type")


def test_the_commands_go_through_json():
    facts = CgroupFacts(commands=(("v1", "sudo x"),), rungs=(("v1", "none"),))
    host = evolve(hosts.ORDINARY, cgroup=facts)
    assert Host.from_json(host.to_json()) == host
