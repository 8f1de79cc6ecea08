# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isolate import CgroupLimit, HostLacks, LimitHit, Sandbox
from isolate.supervise import cgroupfs

EAT = "b = b'x' * ({} << 20)"
pytestmark = pytest.mark.needs("cgroup1")


def python(code, **short):
    return Sandbox(timeout=30, **short).run([sys.executable, "-c", code], capture_output=True)


def test_more_memory_than_allowed_is_told_from_a_plain_kill():
    done = python(EAT.format(200), pid=True, mem="64M")
    assert done.outcome == LimitHit("memory", 64 << 20, 64 << 20)
    killed = python("import os; os.kill(os.getpid(), 9)", mem="64M")
    assert killed.outcome.signal == 9


def test_a_little_less_is_let_through():
    done = python(EAT.format(30), mem="64M")
    assert done.returncode == 0
    assert 30 << 20 < done.usage.peak_memory < 64 << 20


def test_files_in_memory_count():
    done = python("open('/tmp/x', 'wb').write(b'x' * (60 << 20))", mem="32M", tmp="128M")
    assert isinstance(done.outcome, LimitHit)
    assert done.outcome.limit == "memory"


def test_a_child_that_is_killed_for_memory_ends_the_run():
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {EAT.format(200)!r}])"
    done = python(code + "\nimport time; time.sleep(20)", mem="64M")
    assert isinstance(done.outcome, LimitHit)
    assert done.outcome.limit == "memory"


def test_pids_are_exact():
    code = "import os, time\nn = 0\ntry:\n    while n < 60:\n        p = os.fork()\n" \
           "        if p == 0: time.sleep(20); os._exit(0)\n        n += 1\n" \
           "except OSError:\n    print(n)"  # fmt: skip
    done = python(code, pids=10)
    assert done.stdout == b"9\n"
    assert done.outcome == LimitHit("pids", 10, 10)


def test_half_a_processor_is_half_a_processor():
    code = "import time\nend = time.time() + 2\nwhile time.time() < end: pass"
    done = python(code, cpu=0.5)
    assert done.usage.cpu / done.usage.wall < 0.65  # test_cgroup_limits.py: not less either


def test_cpuset_is_what_affinity_says():
    done = python("import os; print(os.sched_getaffinity(0))", cpus="0")
    assert done.stdout == b"{0}\n"


def test_the_account_is_the_kernels():
    busy = "import time\nend = time.process_time() + .3\nwhile time.process_time() < end: pass"
    done = python(busy, mem="64M")
    assert done.usage.cpu == pytest.approx(done.usage.user + done.usage.system, rel=0.2, abs=0.05)


def test_a_limit_that_the_kernel_refuses_is_named():
    with pytest.raises(HostLacks, match=r"cpuset\.cpus"):
        Sandbox(cpus="9999").run(["true"])


def test_a_dead_owners_leaf_is_reclaimed():
    code = (
        "import os, sys; from isolate.supervise import cgroupfs; from isolate import CgroupLimit\n"
        "leaf = cgroupfs.create(CgroupLimit(pids=5)); print(leaf.directories['pids'], flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True).stdout
    stale = out.strip()
    assert os.path.isdir(stale)
    live = cgroupfs.create(CgroupLimit(pids=5))
    try:
        for controller in ("pids", "cpuacct", "freezer"):
            cgroupfs.reclaim(os.path.dirname(stale.replace("/pids/", f"/{controller}/")))
        assert not os.path.exists(stale)
        assert os.path.isdir(live.directories["pids"])  # its owner lives
    finally:
        live.close()


def test_the_program_is_in_the_leaf_and_init_is_not():
    with Sandbox(mem="64M") as box:
        leaf = box.session.made.leaf.directories["memory"]
        inside = set(Path(leaf, "cgroup.procs").read_text().split())
        assert str(box.pid) not in inside
        code = "import os; print(os.path.basename(open('/proc/self/cgroup').read()) != '')"
        assert box.run([sys.executable, "-c", code]).returncode == 0


def test_a_hundred_boxes_leave_nothing():
    for _ in range(100):
        assert Sandbox(mem="64M").run(["true"]).returncode == 0
    parent = os.environ["ISOLATE_CGROUP_PARENT"]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{parent}"))
