"""A caller with thousands of descriptors: none goes in, none is lost, no start waits."""

import errno
import os
import resource
import subprocess
import sys
import threading

import pytest

from isolate import Sandbox, native
from isolate.supervise import start

MANY = 3 * start.MANY
pytestmark = pytest.mark.needs("userns")


@pytest.fixture
def crowd():
    """So many more descriptors than before; the library has taken its own already."""
    Sandbox().run(["true"], check=True)
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (old[1], old[1]))
    null = os.open("/dev/null", os.O_RDWR)
    held = [null, *(os.dup(null) for _ in range(MANY))]
    yield held
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, old)


def numbers():
    return sorted(map(int, os.listdir("/proc/self/fd")))


def test_a_program_starts_and_has_three(crowd):
    for box in (Sandbox(), Sandbox().open()):
        done = box.run(["ls", "/proc/self/fd"], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["0", "1", "2", "3"]  # 3 is the listing's own
        if hasattr(box, "close"):
            box.close()


@pytest.mark.needs("root")  # init is not dumpable: only root may look
def test_isolate_init_has_none_of_them(crowd):
    with Sandbox() as box:
        held = {os.readlink(f"/proc/{box.pid}/fd/{n}") for n in os.listdir(f"/proc/{box.pid}/fd")}
        assert len(os.listdir(f"/proc/{box.pid}/fd")) < 12, held


def test_the_callers_are_all_there_afterwards(crowd):
    before = numbers()
    for _ in range(5):
        Sandbox().run(["true"], check=True)
    assert numbers() == before
    for fd in crowd[::100]:
        os.fstat(fd)


def test_more_threads_than_places_start_at_once(crowd):
    failed = []

    def launch():
        try:
            for _ in range(5):
                done = Sandbox().run(["echo", "x"], capture_output=True, text=True, check=True)
                assert done.stdout == "x\n"
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=launch) for _ in range(3 * start.PLACES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(start.SHARED.places) == start.PLACES


def test_the_places_are_free_again_after_a_failed_start(crowd, monkeypatch):
    def refused(*_, **given):
        assert given["keep"] == start.MANY
        raise OSError(errno.EAGAIN, "no", "clone3")

    monkeypatch.setattr(native, "spawn", refused)
    with pytest.raises(Exception, match="clone3"):
        Sandbox().run(["true"])
    assert len(start.SHARED.places) == start.PLACES
    for number in (n for place in start.SHARED.places for n in place):
        assert os.readlink(f"/proc/self/fd/{number}") == "/dev/null"


def test_few_descriptors_are_copied_as_ever(monkeypatch):
    Sandbox().run(["true"], check=True)
    real, kept = native.spawn, []

    def spawn(*given, **how):
        kept.append(how["keep"])
        return real(*given, **how)

    monkeypatch.setattr(native, "spawn", spawn)
    Sandbox().run(["true"], check=True)
    assert kept == [0]


def test_what_would_be_left_out_is_refused():
    with pytest.raises(OSError, match="Invalid"):
        native.spawn(b"\0" * 64, [], shares_memory=True, keep=3)  # no plan at all
    _, encoded = start.start_plan(0)
    with pytest.raises(OSError, match="Invalid"):
        native.spawn(encoded.blob, [300] * len(encoded.slots), shares_memory=True, keep=256)


REFUSED = """
import os
import isolate
from isolate import Arg, Rule, Sandbox, SeccompFilter
Sandbox().run(["true"], check=True)
isolate.confine(SeccompFilter.deny(Rule("close_range", Arg(2) == 2)))
null = os.open("/dev/null", os.O_RDWR)
held = [os.dup(null) for _ in range(500)]
before = os.listdir("/proc/self/fd")
for _ in range(3):
    done = Sandbox(seccomp=None).run(["ls", "/proc/self/fd"], capture_output=True, text=True)
    print(done.stdout.split(), done.outcome)
assert os.listdir("/proc/self/fd") == before
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child is left")
"""


@pytest.mark.needs("root")
def test_where_a_part_of_the_table_is_refused_all_of_it_is_copied():
    """As a container's filter may do: the child must not go on in its caller's table."""
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("['0', '1', '2', '3'] Exited(code=0)") == 3, done.stdout
    assert done.stdout.endswith("no child is left\n")
