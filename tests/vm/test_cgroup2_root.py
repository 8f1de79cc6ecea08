# SPDX-License-Identifier: Apache-2.0
"""What root of a machine of its own can set up: a loop device, swap, huge pages, a foreign user."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isolate import CgroupLimit, LimitHit, Sandbox
from tests.live.cgroups import EAT, SECONDS, leaf_of, python
from tests.vm.devices import HUGE, READ, WRITE, huge_pages, loop_disk, number_of, swap_file

pytestmark = pytest.mark.needs("cgroup2", "root")
PYTHON = [sys.executable, "-I", "-S", "-c"]


@pytest.fixture
def disk():
    with loop_disk() as found:
        yield found


def seconds(box, code):
    done = box.run([*PYTHON, code], capture_output=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_bytes_a_second_are_held_and_not_more_than_asked(disk):
    point, device = disk
    code = WRITE.format(path=f"{point}/file", count=24)  # 6 MiB
    with Sandbox(write=[point], mem="64M") as free:
        assert seconds(free, code) < 3
    limit = CgroupLimit(io={device: {"write_bps": "1M"}})
    with Sandbox(limit, write=[point], mem="64M") as box:
        assert f"{number_of(device)} rbps=max wbps=1048576" in leaf_of(box).read("io.max")
        assert 5.5 < seconds(box, code) < 7.5
    by_file = CgroupLimit(io={f"{point}/file": {"write_bps": "4M"}})  # the disk that it is on
    with Sandbox(by_file, write=[point], mem="64M") as box:
        assert 1.2 < seconds(box, code) < 3


def test_operations_a_second_are_held(disk):
    point, device = disk
    Path(point, "file").write_bytes(b"x" * 4096)
    code = READ.format(path=f"{point}/file", count=100)
    with Sandbox(CgroupLimit(io={device: {"read_iops": 20}}), read=[point], mem="64M") as box:
        assert 4.5 < seconds(box, code) < 6.5
    with Sandbox(read=[point], mem="64M") as free:
        assert seconds(free, code) < 2


@pytest.fixture
def swap():
    with swap_file():
        yield


def test_swap_is_none_unless_it_is_given(swap):
    code = EAT.format(more=48 << 20)
    without = python(code, mem="32M")
    assert without.outcome == LimitHit("memory", without.outcome.used, 32 << 20)
    assert python(code, mem="32M", swap="64M").returncode == 0
    assert isinstance(python(EAT.format(more=120 << 20), mem="32M", swap="32M").outcome, LimitHit)


def test_huge_pages_are_counted():
    with huge_pages(16):
        limit = CgroupLimit(hugetlb={"2M": "8M"})
        assert python(HUGE.format(count=4), limit).stdout == b"all\n"
        over = python(HUGE.format(count=5), limit)
        assert (over.returncode, over.stdout) == (-7, b"")  # SIGBUS: the page could not be had


FOREIGN = """
import json, sys
from isolate import HostLacks, Sandbox
from isolate.machine import LOOKED, machine
for line in sys.stdin:
    machine.cache_clear()  # facts are kept while a process lives
    LOOKED.clear()
    try:
        done = Sandbox(mem="64M").run(["cat", "/proc/self/cgroup"], capture_output=True)
        print(json.dumps(done.stdout.decode()), flush=True)
    except HostLacks as error:
        print(json.dumps(str(error)), flush=True)
"""


def test_without_delegation_the_command_is_told_and_it_works():
    argv = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
    user = subprocess.Popen(
        [*argv, sys.executable, "-c", FOREIGN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/srv/isolate",
    )
    try:
        answer = ask(user)
        assert "/sys/fs/cgroup is not writable" in answer
        told = re.search(r"sudo (sh -c '.*?procs'); or weaken", answer)
        assert told, answer
        subprocess.run(told[1], shell=True, check=True)
        assert ask(user) == "0::/\n"
        own = Path(f"/proc/{user.pid}/cgroup").read_text()
        assert own == "0::/isolate-1000/isolate.self\n"
    finally:
        user.stdin.close()
        user.wait(60)
    below = Path("/sys/fs/cgroup/isolate-1000")
    for path in (below / "isolate.self", below):
        for _ in range(100):
            if not path.exists():
                break
            try:
                path.rmdir()
            except OSError:
                time.sleep(0.1)
        assert not path.exists()


def ask(user):
    user.stdin.write("again\n")
    user.stdin.flush()
    return json.loads(user.stdout.readline())
