# SPDX-License-Identifier: Apache-2.0
"""What only v2 has: birth in the leaf, high and low marks, group kills, delegation."""

import os
import sys
from pathlib import Path

import pytest

from isolate import CgroupLimit, LimitHit, Namespace, Sandbox, run
from isolate.supervise import cgroup_place, cgroupfs
from tests.live.cgroups import EAT, SECONDS, leaf_of, python

pytestmark = pytest.mark.needs("cgroup2")
LIMIT = 64 << 20
PYTHON = [sys.executable, "-I", "-S", "-c"]


def test_the_program_is_in_the_leaf_from_birth_and_init_is_not():
    with Sandbox(mem=LIMIT, timeout=SECONDS) as box:
        leaf = Path(leaf_of(box).directories["unified"])
        program = box.popen(["sleep", "100"])
        inside = (leaf / "cgroup.procs").read_text().split()
        assert inside == [str(program.pid)]
        init = Path(f"/proc/{box.pid}/cgroup").read_text().strip().removeprefix("0::")
        assert not f"/sys/fs/cgroup{init}".startswith(str(leaf))
        program.kill()


def test_whatever_writes_its_pid_elsewhere_gets_nowhere():
    code = (
        "import os\nfor place in ('/sys/fs/cgroup', '/proc/1/root/sys/fs/cgroup'):\n"
        "    try:\n        open(place + '/cgroup.procs', 'w').write('0'); print('moved')\n"
        "    except OSError: print('held')\n"
        "print(open('/proc/self/cgroup').read().strip())"
    )
    assert python(code, mem=LIMIT).stdout.split() == [b"held", b"held", b"0::/"]


def test_an_oom_kill_is_of_the_group_and_init_goes_on():
    child = (
        f"import subprocess, sys; subprocess.Popen([*{PYTHON!r}, {EAT.format(more=LIMIT * 2)!r}])"
    )
    with Sandbox(mem=LIMIT, timeout=SECONDS) as box:
        done = box.run([*PYTHON, f"{child}\nimport time\ntime.sleep(100)"])
        assert done.outcome == LimitHit("memory", done.outcome.used, LIMIT)
        assert leaf_of(box).keyed("memory.events", "oom_group_kill") >= 1
        assert box.run(["true"]).returncode == 0


def test_above_the_high_mark_it_is_slowed_and_not_killed():
    limit = CgroupLimit(memory="128M", memory_high="32M", memory_low="8M", memory_min="4M", swap=0)
    with Sandbox(limit, timeout=SECONDS) as box:
        leaf = leaf_of(box)
        held = [leaf.number(f"memory.{name}") for name in ("max", "high", "low", "min")]
        assert held == [128 << 20, 32 << 20, 8 << 20, 4 << 20]
        place = Path(leaf.tops[0])
        assert (place / "memory.min").read_text() == "4194304\n"  # protection ends where it is 0
        assert (place.parent / "memory.min").read_text() == "max\n"
        below = box.run([*PYTHON, EAT.format(more=16 << 20)], capture_output=True)
        assert (below.returncode, leaf.keyed("memory.events", "high")) == (0, 0)
        above = box.run([*PYTHON, EAT.format(more=34 << 20)], capture_output=True)
        assert above.returncode == 0
        assert leaf.keyed("memory.events", "high") > 0


def test_bare_primitives_are_born_in_a_leaf_too():
    own = Namespace(user=True, pid=True, cgroup=True) if os.geteuid() else Namespace(cgroup=True)
    with own, CgroupLimit(pids=3):
        done = run(["cat", "/proc/self/cgroup"], capture_output=True)
    assert done.stdout == b"0::/\n"


def test_without_a_cgroup_namespace_the_place_is_seen_and_still_holds():
    with CgroupLimit(pids=4), Namespace(user=True, pid=True):
        done = run(["cat", "/proc/self/cgroup"], capture_output=True)
    assert os.environ["ISOLATE_CGROUP_PARENT"].encode() in done.stdout


def test_a_dead_owners_leaf_is_reclaimed_and_a_live_ones_is_not():
    import subprocess

    code = (
        "import os; from isolate.supervise import cgroupfs; from isolate import CgroupLimit\n"
        "leaf = cgroupfs.create(CgroupLimit(pids=5)); print(leaf.tops[0], flush=True)\n"
        "os.mkdir(leaf.tops[0] + '/nested'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    stale = done.stdout.strip()
    assert os.path.isdir(stale)
    live = cgroupfs.create(CgroupLimit(pids=5))
    try:
        cgroupfs.reclaim(os.path.dirname(stale))
        assert not os.path.exists(stale)
        assert os.path.isdir(live.tops[0])
    finally:
        live.close()
    assert not os.path.exists(live.tops[0])


def test_the_place_is_below_what_is_ours():
    top = cgroup_place.place()
    if os.geteuid() == 0:
        assert top == "/sys/fs/cgroup"
    else:
        assert top == "/sys/fs/cgroup/delegated.scope"
        assert Path("/proc/self/cgroup").read_text() == "0::/delegated.scope/isolate.self\n"
