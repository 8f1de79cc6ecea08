# SPDX-License-Identifier: Apache-2.0
"""A hybrid machine: pids and hugetlb are v2's, the rest is v1's, cpu and cpuacct share a mount."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isolate import CgroupLimit, LimitHit, Sandbox
from isolate.host.probe import probe
from tests.live.cgroups import EAT, SECONDS, above, leaf_of, python

pytestmark = pytest.mark.needs("hybrid", "root", "vm")
PYTHON = [sys.executable, "-I", "-S", "-c"]
LIMIT = 64 << 20
PIDS = (
    "import os, time\nn = 1\ntry:\n    while n < 40:\n        if os.fork() == 0:\n"
    "            time.sleep(60); os._exit(0)\n        n += 1\nexcept OSError:\n    pass\nprint(n)"
)


def test_each_controller_is_found_where_it_is():
    facts = probe().cgroup
    assert facts.version == 1
    assert facts.unified == ("hugetlb", "pids")
    assert set(facts.controllers) >= {"memory", "cpu", "cpuacct", "cpuset", "io", "freezer"}
    assert [why for _, why in facts.rungs] == ["", ""]


def test_a_box_is_in_both_trees_at_once_and_sees_itself_as_the_root():
    limit = CgroupLimit(memory=LIMIT, pids=20, cpu=0.75, cpu_weight=50, cpuset="0", devices=())
    with Sandbox(limit, timeout=SECONDS) as box:
        leaf = leaf_of(box)
        held = dict(leaf.directories)
        assert held["cpu"] == held["cpuacct"]
        assert held["pids"] == held["unified"]
        assert held["unified"].startswith("/sys/fs/cgroup/unified/")
        assert leaf.number("memory.limit_in_bytes") == LIMIT
        assert leaf.number("pids.max") == 20
        assert leaf.number("cpu.cfs_quota_us") == 75000
        assert leaf.read("cpuset.cpus") == "0\n"
        inside = box.run(["cat", "/proc/self/cgroup"], capture_output=True).stdout.decode()
        lines = [line.split(":", 2) for line in inside.splitlines()]
        shown = {name: path for _, names, path in lines for name in names.split(",")}
        assert [shown[each] for each in ("", "memory", "cpu", "cpuset", "devices")] == ["/"] * 5
        program = box.popen(["sleep", "100"])
        for directory in set(held.values()):
            assert str(program.pid) in Path(directory, "cgroup.procs").read_text().split()
        program.kill()
        program.wait()
    assert not any(os.path.exists(directory) for directory in held.values())


def test_limits_of_both_hold_together():
    over = python(EAT.format(more=LIMIT * 2), mem=LIMIT, pids=9)
    assert over.outcome == LimitHit("memory", over.outcome.used, LIMIT)
    assert LIMIT * 0.95 <= over.outcome.used <= LIMIT
    assert python(EAT.format(more=LIMIT // 2), mem=LIMIT, pids=9).returncode == 0
    most = python(PIDS, mem=LIMIT, pids=9)
    assert most.stdout == b"9\n"
    assert most.outcome == LimitHit("pids", 9, 9)


def test_a_limit_of_v2_alone_makes_no_v1_directory():
    with Sandbox(pids=9, timeout=SECONDS) as box:  # a live box counts all that can be counted
        assert "memory" in box.cgroup
    from isolate import run

    with CgroupLimit(pids=9):
        done = run([*PYTHON, PIDS], capture_output=True)
    assert done.stdout == b"9\n"
    assert done.usage.cpu > 0


def test_half_a_processor_is_half_of_one():
    spin = "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass"
    with Sandbox(cpu=0.5, timeout=SECONDS) as box:
        usage = box.run([*PYTHON, spin]).usage
        assert 0.38 < usage.cpu / usage.wall < 0.62
        stats = box.stats()
        assert stats.cpu.throttled_periods > 0
        assert stats.cpu.limit == 0.5


def test_statistics_come_from_where_each_controller_is():
    with Sandbox(mem=LIMIT, pids=30, timeout=SECONDS) as box:
        program = box.popen([*PYTHON, "b = b'x' * (20 << 20)\nprint(1, flush=True)\ninput()"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert program.stdout.readline() == b"1\n"
        stats = box.stats()
        assert stats.source == "cgroup v1 and v2"
        assert 20 << 20 < stats.memory.current < LIMIT
        assert (stats.memory.limit, stats.pids.limit) == (LIMIT, 30)
        assert stats.pids.current == 1
        assert stats.cpu.usage > 0
        program.communicate(b"\n")


def test_a_box_is_frozen_thawed_and_killed_in_both():
    with Sandbox(mem=LIMIT, timeout=SECONDS) as box:
        count = "import time\nn = 0\nwhile True:\n    time.sleep(.01)\n    n += 1\n"
        count += "    print(n, flush=True)"
        program = box.popen([*PYTHON, count], stdout=subprocess.PIPE)
        assert program.stdout.readline() == b"1\n"
        box.freeze()
        used = box.stats().cpu.usage
        time.sleep(0.5)
        assert box.stats().frozen
        assert box.stats().cpu.usage == used
        box.thaw()
        assert int(program.stdout.readline()) > 1
        box.kill()
        assert program.wait(SECONDS) != 0


def test_what_a_killed_host_left_in_both_trees_goes_with_the_next_start():
    code = (
        "import os\nfrom isolate import Sandbox\nbox = Sandbox(mem='64M', pids=9).open()\n"
        "leaf = box.session.made.leaf\nos.mkdir(leaf.directories['memory'] + '/nested')\n"
        "os.mkdir(leaf.directories['unified'] + '/nested')\n"
        "print(*leaf.tops, flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    stale = done.stdout.split()
    assert len(stale) >= 4
    assert any(os.path.isdir(each) for each in stale)
    # A process that starts afterwards takes them away.
    again = "from isolate import Sandbox\nprint(Sandbox(mem='64M').run(['true']).returncode)"
    done = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True)
    assert done.stdout == "0\n"
    assert not [each for each in stale if os.path.exists(each)]


def test_nested_cgroups_of_both_go_with_the_leaf():
    with Sandbox(mem=LIMIT, pids=9, timeout=SECONDS) as box:
        held = set(leaf_of(box).directories.values())
        for directory in held:
            for number in range(50):
                os.makedirs(f"{directory}/wide-{number}/deep")
    assert not any(os.path.exists(directory) for directory in held)


def test_whose_memory_it_was_is_told_on_v1_here_too():
    with Sandbox(mem="256M", timeout=SECONDS) as box:
        over = above(box, "memory")
        Path(over, "memory.limit_in_bytes").write_text(str(LIMIT))
        done = box.run([*PYTHON, EAT.format(more=LIMIT * 2)], capture_output=True)
        assert (done.outcome.limit, done.outcome.whose) == ("memory", over)
