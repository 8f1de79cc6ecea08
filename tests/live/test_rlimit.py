"""All sixteen limits, read back inside by the kernel's own table, and two of them felt."""

import errno
import re
import resource
import sys

import pytest

from isolate import INFINITY, INHERIT, PolicyError, Rlimit
from tests.live.helpers import ROOT

# /proc/PID/limits by our names, and a pair that an ordinary user may set as well.
ROWS = {
    "cpu": ("Max cpu time", (50, 60)),
    "fsize": ("Max file size", (1 << 20, 1 << 21)),
    "data": ("Max data size", (1 << 30, 1 << 31)),
    "stack": ("Max stack size", (1 << 20, 1 << 22)),
    "core": ("Max core file size", (0, 4096)),
    "rss": ("Max resident set", (1 << 30, 1 << 31)),
    "nproc": ("Max processes", (500, 600)),
    "nofile": ("Max open files", (30, 40)),
    "memlock": ("Max locked memory", (4096, 8192)),
    "as_": ("Max address space", (1 << 31, 1 << 32)),
    "locks": ("Max file locks", (5, 6)),
    "sigpending": ("Max pending signals", (7, 8)),
    "msgqueue": ("Max msgqueue size", (0, 4096)),
    "nice": ("Max nice priority", (0, 0)),
    "rtprio": ("Max realtime priority", (0, 0)),
    "rttime": ("Max realtime timeout", (1000000, 2000000)),
}


def inside(limit):
    with limit as scope:
        done = scope.run(["cat", "/proc/self/limits"], capture_output=True, text=True)
    assert done.returncode == 0
    found = {}
    for line in done.stdout.splitlines()[1:]:
        name, soft, hard = re.match(r"(.+?) {2,}(\S+) +(\S+)", line).groups()
        found[name] = (soft, hard)
    return found


def test_there_are_sixteen():
    assert len(ROWS) == 16


@pytest.mark.parametrize("name", sorted(ROWS))
def test_each_limit_is_in_force_inside_and_no_other_is(name):
    row, (soft, hard) = ROWS[name]
    before = inside(Rlimit())
    after = inside(Rlimit(**{name: (soft, hard)}))
    assert after.pop(row) == (str(soft), str(hard))
    before.pop(row)
    assert after == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE) != (30, 40)  # the caller keeps its own


def test_inherit_and_infinity():
    ours = inside(Rlimit(core=INHERIT))["Max core file size"]
    both = resource.getrlimit(resource.RLIMIT_CORE)
    assert ours == tuple("unlimited" if n == resource.RLIM_INFINITY else str(n) for n in both)
    if ROOT:
        assert inside(Rlimit(core=INFINITY))["Max core file size"] == ("unlimited",) * 2


def test_the_limit_is_felt():
    code = (
        "import os\nn = 0\n"
        "try:\n    while n < 99: os.dup(0); n += 1\n"
        "except OSError as error: print(n, error.errno)"
    )
    with Rlimit(nofile=20) as scope:
        done = scope.run([sys.executable, "-c", code], capture_output=True, text=True)
    count, number = done.stdout.split()
    assert int(count) <= 17
    assert int(number) == errno.EMFILE


def test_two_limits_narrow_by_soft_and_hard():
    a, b = Rlimit(nofile=(30, 50)), Rlimit(nofile=(40, 45))
    with a, b as scope:
        done = scope.run(["sh", "-c", "ulimit -Sn; ulimit -Hn"], capture_output=True, text=True)
    assert done.stdout.split() == ["30", "45"]


@pytest.mark.needs("unprivileged")
def test_a_value_above_the_callers_hard_limit_leaves_that():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert inside(Rlimit(nofile=hard + 1))["Max open files"][1] == str(hard)


def test_a_soft_limit_above_the_hard_one_is_refused():
    with pytest.raises(PolicyError, match="soft"):
        Rlimit(nofile=(50, 40))
