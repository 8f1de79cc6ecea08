# SPDX-License-Identifier: Apache-2.0
"""What root of a machine with v1 controllers can set up: a throttled disk, swap, huge pages, a user
with directories of his own. Run where pids and hugetlb are v2's, and where everything is v1's."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from isolate import CgroupLimit, HostLacks, LimitHit, Sandbox
from tests.live.cgroups import EAT, SECONDS, leaf_of, python
from tests.vm.devices import HUGE, READ, WRITE, huge_pages, loop_disk, number_of, swap_file

pytestmark = pytest.mark.needs("cgroup1", "root", "vm")
PYTHON = [sys.executable, "-I", "-S", "-c"]


@pytest.fixture(scope="module")
def disk():
    with loop_disk() as found:
        yield found


def seconds(box, code):
    done = box.run([*PYTHON, code], capture_output=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_bytes_a_second_are_held_and_not_more_than_asked(disk):
    point, device = disk
    code = WRITE.format(path=f"{point}/file", count=16)  # 4 MiB
    with Sandbox(write=[point], mem="64M") as free:
        assert seconds(free, code) < 3
    with Sandbox(CgroupLimit(io={device: {"write_bps": "1M"}}), write=[point], mem="64M") as box:
        held = leaf_of(box).read("blkio.throttle.write_bps_device")
        assert held == f"{number_of(device)} 1048576\n"
        assert 3.6 < seconds(box, code) < 5.2
        moved = {each.device: each for each in box.stats().io}
        assert moved[number_of(device)].written >= 4 << 20


def test_operations_a_second_are_held(disk):
    point, device = disk
    Path(point, "file").write_bytes(b"x" * 4096)
    code = READ.format(path=f"{point}/file", count=60)
    with Sandbox(CgroupLimit(io={device: {"read_iops": 20}}), read=[point], mem="64M") as box:
        assert 2.6 < seconds(box, code) < 4.4
    with Sandbox(read=[point], mem="64M") as free:
        assert seconds(free, code) < 2


def test_a_rate_that_is_not_there_is_refused(disk):
    _, device = disk
    with pytest.raises(HostLacks, match="io_weight"):
        Sandbox(CgroupLimit(io_weight=50)).run(["true"])  # no scheduler here has weights


def test_swap_is_none_unless_it_is_given():
    code = EAT.format(more=48 << 20)
    with swap_file():
        without = python(code, mem="32M")
        assert without.outcome == LimitHit("memory", without.outcome.used, 32 << 20)
        assert python(code, mem="32M", swap="64M").returncode == 0
        over = python(EAT.format(more=120 << 20), mem="32M", swap="32M").outcome
        assert (over.limit, over.ceiling) == ("swap", 64 << 20)  # v1 counts both together
        with Sandbox(mem="32M", swap="64M") as box:
            both = leaf_of(box).number("memory.memsw.limit_in_bytes")
            assert both == 96 << 20
        with pytest.raises(HostLacks, match="together with memory"):
            Sandbox(swap="32M").run(["true"])


def test_huge_pages_are_counted():
    with huge_pages(8):
        limit = CgroupLimit(hugetlb={"2M": "8M"})
        assert python(HUGE.format(count=4), limit).stdout == b"all\n"
        over = python(HUGE.format(count=5), limit)
        assert (over.returncode, over.stdout) == (-7, b"")  # SIGBUS: the page could not be had


FOREIGN = """
import json, sys
from isolate import HostLacks, LimitHit, Sandbox
eat = [sys.executable, "-I", "-S", "-c", "b = bytearray(96 << 20)\\nb[::4096] = b[::4096]"]
try:
    over = Sandbox(mem="32M", cpu=0.9, cpus="0", timeout=90).run(eat).outcome
    print(json.dumps([over.limit, over.ceiling] if isinstance(over, LimitHit) else str(over)))
except HostLacks as error:
    print(json.dumps(str(error)))
"""


def as_user(**environment):
    argv = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
    done = subprocess.run(
        [*argv, sys.executable, "-c", FOREIGN],
        capture_output=True, text=True, cwd="/srv/isolate",
        env={"PATH": "/usr/bin:/bin", "HOME": "/home/ordinary", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_ordinary_user_is_told_the_command_and_it_works():
    answer = as_user()
    assert "v1: none of its mounts is writable" in answer
    told = re.search(r"sudo (sh -c '.*?done'); export (\w+)=([\w-]+); or weaken", answer)
    assert told, answer
    subprocess.run(told[1], shell=True, check=True)
    try:
        assert as_user(**{told[2]: told[3]}) == ["memory", 32 << 20]
        assert not list(Path("/sys/fs/cgroup").glob(f"*/{told[3]}/isolate-*"))
    finally:
        for place in Path("/sys/fs/cgroup").glob(f"*/{told[3]}"):
            place.rmdir()
