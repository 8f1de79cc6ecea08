"""A box whose first process only waits, while its steward does the work: op STEWARD, which a policy
with an AppArmor profile has. Without a profile's name it works on any kernel, so all but the label
is tried here; the label is in tests/vm/test_apparmor_first.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isolate import Exited, HostLacks, Killed, LaunchError, LimitHit, Sandbox, TimedOut, outside
from isolate.abi.ops import OpCode, Phase
from isolate.plan.model import Op
from isolate.supervise.launch import Session
from isolate.supervise.proctree import inhabitants, snapshot

STEWARD = Op(code=OpCode.STEWARD, phase=Phase.ROOT, about="split")
SETUP_OPS = Session.setup_ops


def splitting(op):
    return lambda self: (*SETUP_OPS(self), op)


@pytest.fixture(autouse=True)
def stewards(monkeypatch):
    monkeypatch.setattr(Session, "setup_ops", splitting(STEWARD))


def told(box, script):
    done = box.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def status_of(pid, name):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    raise AssertionError(name)


def children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_pid_1_is_the_box_s_and_waits_with_nothing_open_and_no_power():
    with Sandbox() as box:
        assert box.run(["true"]).returncode == 0
        assert status_of(box.pid, "NSpid").split()[-1] == "1"
        assert int(status_of(box.pid, "CapEff"), 16) == 0
        assert int(status_of(box.pid, "CapPrm"), 16) == 0
        if os.geteuid() == 0:
            assert os.listdir(f"/proc/{box.pid}/fd") == []
        [steward] = children(box.pid)
        assert status_of(steward, "Name") == "isolate-init"
        assert status_of(steward, "NSpid").split()[-1] == "2"


def test_a_program_sees_them_and_nothing_else():
    with Sandbox() as box:
        names = told(box, "cat /proc/[0-9]*/comm")
        assert set(names) <= {"cat", "sh", "isolate-init"}
        parents = told(box, "grep PPid /proc/2/status; grep PPid /proc/self/status")
        assert parents[1] == "1"
        assert parents[3] != "1"


def test_programs_run_report_and_time_out_as_ever():
    with Sandbox(pids=64) as box:
        assert box.run(["sh", "-c", "exit 7"]).outcome == Exited(7)
        assert box.run(["sh", "-c", "kill -9 $$"]).outcome == Killed(9)
        assert isinstance(box.run(["sleep", "60"], timeout=0.2).outcome, TimedOut)
        assert box.run(["cat"], input=b"text", capture_output=True).stdout == b"text"
        assert box.call(sum, [1, 2, 3]) == 6
        assert box.run(["true"]).returncode == 0
    assert Sandbox().run(["sh", "-c", "exit 3"]).outcome == Exited(3)


def test_a_tree_ends_with_its_limit_and_the_rest_lives_on():
    with Sandbox() as box:
        other = box.popen(["sleep", "300"])
        script = "setsid sleep 301 & setsid sh -c 'setsid sleep 302 & wait' & wait"
        done = box.run(["sh", "-c", script], timeout=0.5)
        assert isinstance(done.outcome, TimedOut)
        left = told(box, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "300" in left
        assert not {"301", "302"} & set(left)
        other.kill()
        assert other.wait() == -signal.SIGKILL


def test_an_orphan_comes_to_the_steward_and_is_reaped():
    with Sandbox() as box:
        box.run(["sh", "-c", "(sleep 0.05 &) ; exit 0"], check=True)
        until = time.monotonic() + 20
        while "Z" in (states := told(box, "grep -h ^State /proc/[0-9]*/status | cut -c8")):
            assert time.monotonic() < until, states
        assert len(children(box.pid)) == 1


def test_nothing_outlives_the_block():
    with Sandbox() as box:
        box.popen(["sh", "-c", "setsid sleep 303 & setsid sleep 304 & wait"])
        pid = box.pid
        steward = children(pid)[0]
        box.run(["true"])
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{steward}").exists()


def test_background_work_of_a_one_shot_ends_with_it():
    done = Sandbox().run(["sh", "-c", "setsid sleep 305 >/dev/null 2>&1 & exit 4"])
    assert done.outcome == Exited(4)


def test_the_end_of_the_steward_is_the_end_of_the_box():
    with Sandbox() as box:
        program = box.popen(["sleep", "306"])
        os.kill(children(box.pid)[0], signal.SIGKILL)
        assert program.wait(timeout=60) == -signal.SIGKILL
        until = time.monotonic() + 60
        while Path(f"/proc/{box.pid}/stat").exists() and status_of(box.pid, "State")[0] != "Z":
            assert time.monotonic() < until
        with pytest.raises(Exception, match="box has ended|before it answered|isolate-init"):
            box.run(["true"])


def test_the_end_of_pid_1_is_the_end_of_the_box():
    with Sandbox() as box:
        program = box.popen(["sleep", "307"])
        os.kill(box.pid, signal.SIGKILL)
        assert program.wait(timeout=60) == -signal.SIGKILL


def test_a_signal_to_pid_1_from_inside_reaches_nobody():
    with Sandbox() as box:
        told(box, "kill -TERM 1 2>/dev/null; kill -TERM 2 2>/dev/null; echo alive")
        assert box.run(["true"]).returncode == 0


HOST = """
import sys, time
sys.path[:0] = [{root!r}]
from tests.live.test_steward import STEWARD, splitting
from isolate import Sandbox
from isolate.supervise.launch import Session
Session.setup_ops = splitting(STEWARD)
box = Sandbox().open()
program = box.popen(["sleep", "308"])
print(box.pid, flush=True)
time.sleep(300)
"""


def test_it_dies_with_its_host():
    root = str(Path(__file__).resolve().parents[2])
    argv = [sys.executable, "-c", HOST.format(root=root)]
    with outside():
        host = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    with host:
        pid = int(host.stdout.readline())
        family = [pid, *(each.pid for each in inhabitants(pid, snapshot().values())[1])]
        assert len(family) == 3  # pid 1, the steward, the program's keeper
        host.kill()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{each}").exists() and status_of(each, "State")[0] != "Z"
              for each in family):  # fmt: skip
        assert time.monotonic() < until
        time.sleep(0.01)
    # A new process of the library reclaims what was left in the cgroup tree.
    again = "from isolate import Sandbox; Sandbox().run(['true'], check=True)"
    with outside():
        subprocess.run([sys.executable, "-c", again], check=True, timeout=110, cwd=root)


def test_statistics_count_neither_of_them():
    with Sandbox() as box:
        before = box.stats().pids.current
        program = box.popen(["sleep", "309"])
        assert box.stats().pids.current == before + 1
        inside, own = inhabitants(box.pid, snapshot().values())
        assert [each.name for each in inside] == ["sleep"]
        assert [each.name for each in own] == ["isolate-init"] * 2
        program.kill()


@pytest.mark.needs("root")
def test_a_limit_of_the_box_is_told(monkeypatch):
    done = Sandbox(pids=8).run(
        ["python3", "-c", "import os, time\nwhile True:\n  os.fork() or time.sleep(20)"],
        timeout=60, capture_output=True,
    )  # fmt: skip
    assert isinstance(done.outcome, (Exited, LimitHit))


def test_a_label_that_can_t_be_entered_fails_the_set_up(monkeypatch):
    """Here without AppArmor, and in the VM for a name that nobody has loaded."""
    asked = Op(
        code=OpCode.STEWARD, phase=Phase.ROOT, about="enter x",
        strs=(b"changeprofile isolate-no-such", b"isolate-no-such (enforce)"),
    )  # fmt: skip
    monkeypatch.setattr(Session, "setup_ops", splitting(asked))
    with pytest.raises((LaunchError, HostLacks)) as caught, Sandbox() as box:
        box.run(["true"])
    if isinstance(caught.value, LaunchError):
        assert caught.value.op.code is OpCode.STEWARD
        assert caught.value.errno in (22, 2)  # EINVAL without AppArmor
