# SPDX-License-Identifier: Apache-2.0
"""Programs that may write to cgroupfs (bare primitives hide nothing) and use that against us: they
make cgroups of their own, take rights away, move themselves; the limit holds and all of it goes."""

import os
import sys
import time
import uuid
from pathlib import Path

import pytest

from isolate import CgroupLimit, Namespace, Sandbox, TimedOut, run
from tests.conftest import leaves
from tests.live.cgroups import SECONDS, python

pytestmark = pytest.mark.needs("cgroup")
PYTHON = [sys.executable, "-I", "-S", "-c"]
OWN = """
import os, sys, time
def own():
    for line in open("/proc/self/cgroup"):
        number, names, path = line.rstrip("\\n").split(":", 2)
        mount = "/sys/fs/cgroup/pids" if "pids" in names.split(",") else "/sys/fs/cgroup"
        if names == "" and not os.path.exists("/sys/fs/cgroup/cgroup.procs"):
            continue
        if names == "" or "pids" in names.split(","):
            return mount + path
    raise SystemExit("no cgroup")
def go(place, pid=0):
    with open(place + "/cgroup.procs", "w") as file:
        file.write(str(pid))
def lives_on(marker):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c",
                                  "import time; time.sleep(300)", marker])
    os.waitpid(pid, 0)
base = own()
marker = sys.argv[1]
"""
MANY = """
for number in range(1000):
    os.mkdir(f"{base}/wide-{number}")
deep = base
for number in range(40):
    deep += f"/deep-{number}"
    os.mkdir(deep)
for place in (f"{base}/wide-1", deep):
    go(place)
    lives_on(marker)
go(f"{base}/wide-0")
count = 0
try:
    while count < 60:
        if os.fork() == 0:
            time.sleep(300)
            os._exit(0)
        count += 1
except OSError:
    pass
for place, _, _ in os.walk(base, topdown=False):
    os.chmod(place, 0)
print(count + 3, own().removeprefix(base), flush=True)
"""
AWAY = """
here, moved = base, []
while here != "/sys/fs":
    try:
        go(here)
        moved.append(here)
    except OSError:
        pass
    here = os.path.dirname(here)
lives_on(marker)
print(len(moved), flush=True)
time.sleep(300)
"""


def alive(marker):
    """Processes with this word in their command line, but for us."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes().split(b"\0")[3:]:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.fixture
def marker():
    word = f"isolate-marker-{uuid.uuid4().hex}"
    yield word
    end = time.monotonic() + SECONDS
    while alive(word) and time.monotonic() < end:  # killed is not yet gone
        time.sleep(0.05)
    assert not alive(word)


def spaces():
    """A user of his own needs a user namespace for the pid namespace."""
    return Namespace(pid=True, user=os.geteuid() != 0)


def test_a_thousand_cgroups_of_a_programs_own_go_with_it(marker):
    with spaces(), CgroupLimit(pids=20):
        done = run([*PYTHON, OWN + MANY, marker], capture_output=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    tasks, where = done.stdout.decode().split()
    assert where == "/wide-0"  # it did move
    assert int(tasks) == 20  # and was counted there too
    assert not leaves()


def test_without_a_pid_namespace_they_go_too(marker):
    with CgroupLimit(pids=20):
        done = run([*PYTHON, OWN + MANY, marker], capture_output=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == b"20"
    assert not leaves()


@pytest.mark.parametrize("pid", [True, False], ids=["pid-namespace", "bare"])
def test_who_moves_out_of_the_leaf_does_not_get_out_of_the_end(marker, pid):
    """Root may move itself anywhere; it is ended all the same, and so are its children."""
    held = [spaces()] if pid else []
    with CgroupLimit(pids=20):
        for each in held:
            each.__enter__()
        try:
            done = run([*PYTHON, OWN + AWAY, marker], capture_output=True, timeout=4)
        finally:
            for each in reversed(held):
                each.__exit__(None, None, None)
    assert isinstance(done.outcome, TimedOut), done.stderr
    assert int(done.stdout) >= 1
    assert not leaves()


def test_in_a_sandbox_there_is_nothing_to_write_to():
    code = (
        "import os\nfound = []\nfor place, _, files in os.walk('/sys'):\n"
        "    found += [f for f in files if f.startswith('cgroup.')]\nprint(found)\n"
        "for kind in ('cgroup', 'cgroup2'):\n    import ctypes\n"
        "    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    print(libc.mount(b'none', b'/tmp', kind.encode(), 0, None))\n"
        "try:\n    os.unlink('/proc/self/cgroup')\nexcept OSError:\n    print('kept')\n"
    )
    done = python(code, mem="64M", pids=9)
    assert done.stdout.split() == [b"[]", b"-1", b"-1", b"kept"]


def stumble(box, marker):
    box.popen(["sleep", "300", marker])
    raise RuntimeError


def test_a_box_that_is_left_by_an_exception_leaves_nothing(marker):
    with pytest.raises(RuntimeError), Sandbox(mem="64M", timeout=SECONDS) as box:
        stumble(box, marker)
    assert not leaves()
