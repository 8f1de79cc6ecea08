"""Every system call of the caller's own thread made to fail, the n-th alone, by strace(1).

`test_faults.py` makes a call fail for good, which Python itself can't bear for openat, read or
write; here one call of a start fails, whichever it is. What comes of it is an error of ours that
names what was done, and the caller's descriptors, children, mounts and cgroups are as before.

ISOLATE_FAULTS=all takes every single call, about a thousand; otherwise some of each kind.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isolate.abi.syscalls import numbers

pytestmark = pytest.mark.needs("strace", "x86_64")

SCRIPT = Path(__file__).with_name("faulty_caller.py")
ALL = os.environ.get("ISOLATE_FAULTS") == "all"
# Not ours: Python's memory and locks; or a call whose failure the kernel doesn't know.
OTHERS = set(
    "getpid geteuid getegid gettid getrandom futex close getsockname lseek rt_sigtimedwait"
    " rt_sigaction readlink mmap munmap mprotect brk madvise rt_sigreturn restart_syscall"
    " sched_yield".split()
)
OURS = {"LaunchError", "SupervisorError", "HostLacks", "InitGone"}
ROUTES = {"run": 3, "live": 2, "pty": 1}  # how many of a kind


def script(*args):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    argv = [sys.executable, str(SCRIPT), *args]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def spread(count, most):
    """The last, the first, and some between: numbers from 1."""
    if ALL or count <= most:
        return range(1, count + 1)
    return sorted({count - (count - 1) * each // max(1, most - 1) for each in range(most)})


@pytest.fixture(scope="module")
def reports():
    """What came of the faults of one route, asked for once."""
    known = {}

    def of(route):
        if route not in known:
            (counts,) = script(route, "list")
            cases = [
                f"{name}:{nth}:EIO"
                for name, count in sorted(counts.items())
                if name not in OTHERS
                for nth in spread(count, ROUTES[route])
            ]
            known[route] = counts, script(route, *cases)
            assert len(known[route][1]) == len(cases)
        return known[route]

    return of


def call_of(report):
    return report["case"].partition(":")[0]


@pytest.mark.parametrize("route", ROUTES)
def test_one_failing_call_of_the_caller_is_an_error_of_ours_or_none(route, reports):
    for report in reports(route)[1]:
        assert "bare" not in report, report
        assert report.get("error", "none") in {*OURS, "none"}, report
        assert report.get("outcome", "none") in ("Exited(code=0)", "0", "none"), report


@pytest.mark.parametrize("route", ROUTES)
def test_a_launch_that_failed_names_step_errno_object_and_who_asked(route, reports):
    failed = [each for each in reports(route)[1] if each.get("error") == "LaunchError"]
    assert len(failed) >= 8
    for report in failed:
        # Python tells of a thread that could not be started without its errno.
        assert report["errno"] == (11 if report["errno"] == 11 else 5), report
        assert report["about"] and report["origin"], report
        assert report["step"] >= 0


@pytest.mark.parametrize("route", ROUTES)
def test_nothing_is_left_of_a_start_that_failed(route, reports):
    for report in reports(route)[1]:
        if call_of(report) == "waitid":  # who may not reap leaves a zombie
            assert set(report["left"]) <= {"children"}
        else:
            assert report["left"] == [], report


@pytest.mark.parametrize("route", ROUTES)
def test_the_next_start_works(route, reports):
    assert [each for each in reports(route)[1] if "again" in each] == []


def test_the_calls_that_decide_are_among_them(reports):
    """A fault that is never made proves nothing."""
    counts, found = reports("run")
    assert set(counts) <= set(numbers(os.uname().machine))
    wanted = {"openat", "write", "read", "clone3", "pipe2", "socketpair", "memfd_create", "sendmsg"}
    wanted |= {"recvmsg", "poll", "waitid", "pidfd_send_signal", "eventfd2", "ioctl"}
    assert wanted <= set(counts)
    failing = {call_of(each) for each in found if "error" in each}
    assert wanted - {"ioctl"} <= failing


@pytest.mark.needs("cgroup1")
def test_a_limit_that_could_not_be_written_stops_the_start(reports):
    """Never a program without its limits."""
    found = [each for each in reports("run")[1] if each.get("about") == "make the box's cgroup"]
    assert {call_of(each) for each in found} >= {"mkdir", "flock"}
    assert all(each["origin"].startswith("CgroupLimit") for each in found)


@pytest.mark.needs("root")
def test_a_root_s_trees_and_maps_stop_the_start(reports):
    found = {call_of(each): each for each in reports("run")[1] if "error" in each}
    for name in ("openat2", "open_tree", "mount_setattr"):
        assert found[name]["origin"].startswith("Chroot"), found[name]
        assert found[name]["about"].startswith("open /")
    assert found["socket"]["origin"].startswith("Namespace")
