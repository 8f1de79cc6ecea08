"""A caller under a filter that kills for what the probe asks: it is told, and lives."""

import os
import subprocess
import sys
import threading

import pytest

from isolate import outside
from isolate.host import asking
from isolate.host.probe import probe

pytestmark = pytest.mark.needs("x86_64")

ASKED = ["unshare", "setns", "mount", "umount2", "open_tree", "mount_setattr", "keyctl"]
SCRIPT = """
import signal, sys
from isolate import Action, IsolateError, Sandbox, SeccompFilter, confine
from isolate.host.probe import probe
calls, how = sys.argv[1].split(","), sys.argv[2]
free = probe()
assert free.refused == () or free.filtered
confine(SeccompFilter.deny(*calls, action=Action(how)))
host = probe()
print(host.filtered, ",".join(sorted(host.refused)), host.landlock, host.landlock_why,
      ",".join(host.seccomp_flags), host.seccomp_why, sep="|")
try:
    print(Sandbox().run(["true"]).returncode)
except IsolateError as error:
    print(type(error).__name__, getattr(error, "what", error))
"""


def asked(calls, how="kill_process"):
    """What a Python under such a filter prints."""
    with outside():
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, ",".join(calls), how],
            capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr)
    first, second, *_ = done.stdout.splitlines()
    return first.split("|"), second


@pytest.mark.parametrize("how", ["kill_process", "kill_thread", "trap"])
def test_each_call_that_kills_is_told_as_refused(how):
    (filtered, refused, *_), second = asked(ASKED, how)
    assert filtered == "True"
    assert set(ASKED) <= set(refused.split(","))
    assert second.startswith("HostLacks")


def test_one_that_kills_for_one_call_leaves_the_others():
    (_, refused, level, *_), _ = asked(["keyctl"])
    assert refused == "keyctl"
    assert int(level) == probe().landlock


def test_landlock_that_kills_is_a_landlock_that_isn_t_there():
    (_, refused, level, why, *_), second = asked(["landlock_create_ruleset"])
    assert (refused, level) == ("", "0")
    assert why == "a seccomp filter around this process kills for landlock_create_ruleset"
    assert second == "0"  # a second lock: the box is held by its mounts


def test_seccomp_and_prctl_that_kill_leave_no_flags():
    (_, _, _, _, flags, why), second = asked(["seccomp", "prctl"])
    assert (flags, why) == ("", "the kernel, or a filter above, knows no listeners")
    # isolate-init can't live there, at one moment or another; the caller does.
    assert second.split()[0] in ("LaunchError", "InitGone")


# ---- the copy that asks ----------------------------------------------------------------------

GETPID, EXIT_GROUP, TGKILL, MMAP = 39, 231, 234, 9


def test_a_copy_says_what_this_process_would_hear():
    calls = [(GETPID,), (3, 999), (165, 0, 0, 1, 0, 0)]  # close, mount
    here = [asking.direct(call) for call in calls]
    there = asking.in_a_copy(calls)
    assert here[0] == os.getpid() != there[0] > 0
    assert here[1:] == there[1:] == [-9, -14]


def test_who_dies_is_told_and_the_rest_is_asked_all_the_same():
    die = (EXIT_GROUP, 3)
    found = asking.in_a_copy([die, (3, 999), die, die, (3, 999), die])
    assert found == [None, -9, None, None, -9, None]


def test_a_copy_is_reaped_and_leaves_nothing():
    before = set(os.listdir("/proc/self/fd"))
    asking.in_a_copy([(GETPID,)] * 3)
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_copies_of_a_threaded_program_answer():
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            bytearray(100_000)

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for each in threads:
        each.start()
    try:
        for _ in range(20):
            assert asking.in_a_copy([(3, 999)]) == [-9]
    finally:
        stop.set()
        for each in threads:
            each.join()


IGNORING = """
import signal
from isolate.host import asking
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print(asking.in_a_copy([(3, 999), (231, 0), (3, 999)]))
"""


def test_it_works_where_sigchld_is_ignored():
    with outside():
        done = subprocess.run(
            [sys.executable, "-c", IGNORING], capture_output=True, text=True, timeout=60
        )
    assert done.stdout.strip() == "[-9, None, -9]", done.stderr
