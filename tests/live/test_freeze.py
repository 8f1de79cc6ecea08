"""Frozen programs do nothing, not even die by themselves; limits and kills still hold."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import isolate
from isolate import HostLacks, IsolateError, Killed, LimitHit, Sandbox, TimedOut
from isolate.supervise import cgroupfs

needs_cgroup = pytest.mark.needs("cgroup1")
TICK = """
import os, sys, time
for _ in range({}):
    if os.fork() == 0: break
n = 0
while True:
    n += 1
    sys.stdout.write("."); sys.stdout.flush()
    time.sleep(0.005)
"""


def ticking(box, forks=0, **options):
    argv = [sys.executable, "-c", TICK.format(forks)]
    program = box.popen(argv, stdout=subprocess.PIPE, **options)
    assert program.stdout.read(1) == b"."
    end = time.monotonic() + 30
    while box.stats().pids.current != forks + 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert box.stats().pids.current == forks + 1
    return program


def silent(stream):
    """Whether nothing more comes, once what was written before is read."""
    os.set_blocking(stream.fileno(), False)
    while stream.read():
        pass
    time.sleep(0.3)
    return not stream.read()


@needs_cgroup
def test_a_frozen_box_does_nothing_and_goes_on_when_thawed():
    with Sandbox() as box, ticking(box, forks=3) as program:
        box.freeze()
        stats = box.stats()
        assert stats.frozen
        assert stats.pids.current == 4
        assert silent(program.stdout)
        assert box.stats().cpu.usage == stats.cpu.usage
        box.freeze()  # again: nothing happens
        box.thaw()
        assert not box.stats().frozen
        assert not silent(program.stdout)
        box.thaw()
        program.kill()


@needs_cgroup
def test_nothing_starts_in_a_frozen_box():
    with Sandbox() as box:
        box.call(len, "x")
        box.freeze()
        for start in (
            lambda: box.run(["/bin/true"]),
            lambda: box.popen(["/bin/true"]),
            lambda: box.call(len, "x"),
        ):
            with pytest.raises(IsolateError, match=r"thaw\(\)"):
                start()
        box.thaw()
        assert box.call(len, "xy") == 2
        assert box.run(["/bin/true"]).returncode == 0


@needs_cgroup
def test_time_counts_on_while_frozen():
    with Sandbox() as box:
        program = ticking(box, timeout=1)
        box.freeze()
        assert program.wait(30) == -9
        assert program.outcome == TimedOut(1)
        assert box.stats().frozen
        program.stdout.close()


@needs_cgroup
def test_a_call_runs_out_of_time_while_frozen():
    with Sandbox(timeout=1) as box:
        box.call(len, "x")
        import threading

        timer = threading.Timer(0.3, box.freeze)
        timer.start()
        with pytest.raises(isolate.TimeLimitExceeded):
            box.call(time.sleep, 60)
        timer.join()
        box.thaw()
        assert box.call(len, "xyz") == 3


@needs_cgroup
def test_a_frozen_box_ends_with_its_block():
    with Sandbox() as box:
        program = ticking(box, forks=5)
        box.freeze()
    assert program.wait(20) == -9
    program.stdout.close()


@needs_cgroup
def test_a_frozen_box_can_be_killed():
    with Sandbox() as box:
        program = ticking(box)
        box.freeze()
        box.kill()
        assert program.wait(20) == -9
        assert program.outcome == Killed(9)
        program.stdout.close()


@needs_cgroup
def test_processes_that_fork_all_the_time_are_all_frozen():
    chain = "import os, time\nwhile True:\n    p = os.fork()\n    if p: os._exit(0)\n"
    with Sandbox(pids=50) as box:
        box.popen([sys.executable, "-c", chain])
        time.sleep(0.3)
        box.freeze()
        before = box.stats().cpu.usage
        time.sleep(0.3)
        assert box.stats().cpu.usage == before
        box.kill()


@needs_cgroup
def test_kill_ends_a_box_that_shares_the_hosts_processes():
    with Sandbox(pid=False, allow=[isolate.allow.HostPid()]) as box:
        program = ticking(box, forks=6)
        leaf = box.session.made.leaf.directories["pids"]
        assert len(cgroupfs.pids_in(leaf)) == 7
        box.kill()
        assert cgroupfs.pids_in(leaf) == []
        program.wait(20)
        program.stdout.close()


@needs_cgroup
def test_a_frozen_box_dies_with_its_host():
    """isolate-init thaws what it kills: on v1 it would neither run nor die."""
    code = (
        "import time; from isolate import Sandbox\n"
        "with Sandbox() as box:\n"
        "    script = 'for i in 1 2 3; do (sleep 300; :) & done; echo go; wait'\n"
        "    p = box.popen(['/bin/sh', '-c', script], stdout=-1)\n    p.stdout.readline()\n"
        "    box.freeze()\n"
        "    leaf = next(iter(box.session.made.leaf.directories.values()))\n"
        "    print(*open(leaf + '/cgroup.procs').read().split(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(each) for each in host.stdout.readline().split()]
    assert len(pids) >= 4
    fds = [os.pidfd_open(pid) for pid in pids]
    host.kill()
    host.wait()
    host.stdout.close()
    for fd in fds:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        assert poller.poll(20_000)
        os.close(fd)
    code = "from isolate import Sandbox; Sandbox().run(['/bin/true'])"  # collects the leaves
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@needs_cgroup
def test_what_a_killed_host_and_init_left_frozen_is_ended_by_the_next_start():
    code = (
        "import subprocess, sys, time; from isolate import Sandbox\n"
        "with Sandbox() as box:\n"
        "    p = box.popen(['/bin/sleep', '300'])\n    box.freeze()\n"
        "    print(p.pid, box.pid, flush=True)\n    time.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid, init = map(int, host.stdout.readline().split())
    fd = os.pidfd_open(pid)
    os.kill(init, signal.SIGKILL)  # so that it can't thaw anything
    host.kill()
    host.wait()
    host.stdout.close()
    code = "from isolate import Sandbox; Sandbox().run(['/bin/true'])"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(20_000)
    os.close(fd)
    parent = os.environ["ISOLATE_CGROUP_PARENT"]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{parent}"))


@needs_cgroup
def test_limits_of_other_kinds_still_end_a_thawed_box():
    with Sandbox(mem="64M") as box:
        box.freeze()
        box.thaw()
        done = box.run([sys.executable, "-c", "bytearray(b'x') * (200 << 20)"])
        assert isinstance(done.outcome, LimitHit)


@pytest.mark.needs("unprivileged")
def test_without_a_cgroup_freezing_is_refused_by_name():
    with Sandbox() as box:
        with pytest.raises(HostLacks, match="freeze"):
            box.freeze()
        assert box.run(["/bin/true"]).returncode == 0


def test_a_box_that_has_ended_can_be_neither_frozen_nor_thawed():
    with Sandbox() as box:
        pass
    for verb in (box.freeze, box.thaw):
        with pytest.raises(IsolateError, match="ended"):
            verb()
