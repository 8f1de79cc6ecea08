"""`box.stats()` against the kernel's own files, and against psutil as an independent reader."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from isolate import IsolateError, PolicyError, Sandbox
from isolate.supervise.leafstats import read_tree

needs_cgroup = pytest.mark.needs("cgroup1")
ROOT = os.geteuid() == 0
HOLD = """
import sys
kept = bytearray(b"x" * ({} << 20))
print("ready", flush=True)
sys.stdin.read()
"""


def held(box, megabytes):
    """A program that holds so much memory until its stdin is closed, ready."""
    argv = [sys.executable, "-c", HOLD.format(megabytes)]
    program = box.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout.readline() == b"ready\n"
    return program


def test_a_fresh_box_uses_nothing_and_counts_itself():
    with Sandbox(pids=20) as box:
        stats = box.stats()
        assert (stats.pids.current or 0) == 0
        assert (stats.cpu.usage or 0) == 0
        assert abs(stats.at - time.time()) < 60
        assert not stats.frozen


def test_what_programs_hold_is_seen_from_outside():
    with Sandbox() as box, held(box, 40) as program:
        stats = box.stats()
        assert 40 << 20 <= stats.memory.current < 120 << 20
        assert stats.pids.current == 1
        assert stats.cpu.usage > 0
        program.stdin.close()
        program.wait(20)
        assert box.stats().memory.current < 20 << 20
        assert box.stats().cpu.usage >= stats.cpu.usage  # the ended one is not forgotten


@needs_cgroup
def test_every_number_is_the_kernels():
    with Sandbox(mem="128M", cpu=1.5, pids=33) as box, held(box, 20):
        leaf = {name: Path(path) for name, path in box.session.made.leaf.directories.items()}
        stats = box.stats()

        def number(controller, file):
            return int((leaf[controller] / file).read_text())

        assert stats.source == "cgroup v1"
        assert stats.memory.limit == number("memory", "memory.limit_in_bytes") == 128 << 20
        assert stats.memory.peak == number("memory", "memory.max_usage_in_bytes")
        assert stats.pids.current == number("pids", "pids.current") == 1
        assert stats.pids.limit == number("pids", "pids.max") == 33
        assert stats.cpu.limit == 1.5
        lines = (leaf["memory"] / "memory.stat").read_text().splitlines()
        kinds = dict(line.split() for line in lines)
        assert stats.memory.anon == int(kinds["total_rss"])
        assert stats.memory.file == int(kinds["total_cache"])
        # The program sleeps, so that nothing moves but what the kernel holds in stock per CPU.
        assert stats.memory.current == pytest.approx(
            number("memory", "memory.usage_in_bytes"), abs=1 << 20
        )
        assert stats.memory.current == pytest.approx(
            stats.memory.anon + stats.memory.file + stats.memory.kernel, abs=2 << 20
        )
        assert stats.cpu.usage == pytest.approx(number("cpuacct", "cpuacct.usage") / 1e9, abs=0.01)
        # Two separate files, and v1 rounds the second down to 10 ms twice.
        assert stats.cpu.user + stats.cpu.system == pytest.approx(stats.cpu.usage, abs=0.03)


@needs_cgroup
def test_an_independent_reader_says_the_same():
    with Sandbox(mem="256M") as box, held(box, 50) as program:
        other = psutil.Process(program.pid)
        stats = box.stats()
        memory, times = other.memory_full_info(), other.cpu_times()
        # psutil counts what is mapped into the process, the cgroup what was charged to it: the
        # pages that it shares with other programs (libraries in the page cache) are not its own.
        assert stats.memory.anon == pytest.approx(memory.uss, rel=0.05, abs=3 << 20)
        assert stats.cpu.usage == pytest.approx(times.user + times.system, abs=0.05)
        assert stats.pids.current == other.num_threads() == 1


def test_without_a_cgroup_the_processes_are_summed_as_psutil_sums_them():
    with Sandbox() as box, held(box, 30) as one, held(box, 10) as two:
        stats = read_tree(box.pid)
        others = [psutil.Process(each.pid) for each in (one, two)]
        assert stats.source == "proc"
        assert stats.pids.current == 2
        resident = sum(each.memory_info().rss for each in others)
        assert stats.memory.current == pytest.approx(resident, rel=0.02)
        times = [each.cpu_times() for each in others]
        assert stats.cpu.usage == pytest.approx(sum(t.user + t.system for t in times), abs=0.05)
    assert read_tree(1 << 30).memory.current is None


@needs_cgroup
def test_a_stopped_processor_share_is_counted():
    burn = "import time\nwhile time.process_time() < .2: pass"
    with Sandbox(cpu=0.05) as box:  # less than a crowded machine would give it anyway
        done = box.run([sys.executable, "-c", burn])
        stats = box.stats()
    assert stats.cpu.throttled_periods > 0
    assert stats.cpu.throttled > 0.2
    assert done.usage.throttled == pytest.approx(stats.cpu.throttled, abs=0.2)
    assert done.usage.cpu == pytest.approx(stats.cpu.usage, abs=0.05)


@needs_cgroup
def test_refused_starts_and_kills_for_memory_are_counted():
    bomb = "import os\nfor _ in range(9):\n    try:\n        if os.fork() == 0: os._exit(0)\n" \
           "    except OSError: pass"  # fmt: skip
    with Sandbox(pids=1, mem="64M") as box:
        done = box.run([sys.executable, "-c", bomb])
        assert box.stats().pids.refused == done.usage.pids_refused == 9
        done = box.run([sys.executable, "-c", "bytearray(b'x') * (200 << 20)"])
        assert box.stats().memory.oom_kills == done.usage.oom_kills == 1
        assert box.stats().memory.peak == box.stats().memory.limit == 64 << 20


def test_a_box_that_has_ended_says_so():
    with Sandbox() as box:
        pass
    with pytest.raises(IsolateError, match="ended"):
        box.stats()
    assert list(box.watch(1)) == []


def test_a_watch_ends_with_its_box_and_leaves_no_thread():
    threads = threading.active_count()
    seen = []
    with Sandbox() as box:
        timer = threading.Timer(0.5, box.close)
        timer.start()
        seen.extend(box.watch(0.05))
        timer.join()
    assert 2 <= len(seen) <= 11
    assert [s.monotonic for s in seen] == sorted(s.monotonic for s in seen)
    assert threading.active_count() == threads


def test_a_watch_ends_at_once_when_the_box_is_killed():
    with Sandbox() as box:
        watch = box.watch(50)
        next(watch)
        threading.Timer(0.1, box.kill).start()
        began = time.monotonic()
        assert list(watch) == []
        assert time.monotonic() - began < 30


def test_a_watch_can_be_awaited():
    async def main(box):
        seen = []
        async for stats in box.watch(0.02):
            seen.append(stats)
            if len(seen) == 5:
                box.kill()
        return seen

    with Sandbox() as box:
        assert 5 <= len(asyncio.run(main(box))) < 100  # dying may take longer than the interval


def test_a_run_has_a_timeline_when_asked():
    code = "import time\nkept = b'x' * (30 << 20)\nend = time.monotonic() + .6\n" \
           "while time.monotonic() < end: pass"  # fmt: skip
    argv = [sys.executable, "-c", code]
    done = Sandbox().run(argv, timeline=0.02)
    line = done.timeline
    assert len(line) > 4
    assert line[0].at < 0.5
    assert [s.at for s in line] == sorted(s.at for s in line)
    assert [s.cpu for s in line] == sorted(s.cpu for s in line)
    assert max(s.memory for s in line) > 30 << 20
    assert done.usage.cpu is None or line[-1].cpu == pytest.approx(done.usage.cpu, abs=0.1)
    assert Sandbox().run(["/bin/true"]).timeline == ()


def test_a_sandbox_may_ask_for_all_its_runs():
    with Sandbox(timeline=True) as box:
        assert len(box.run(["/bin/sleep", "0.3"]).timeline) >= 2
        with box.popen(["/bin/sleep", "0.3"]) as program:
            program.wait(20)
            assert len(program.timeline) >= 2
        assert box.run(["/bin/true"], timeline=False).timeline == ()
    with pytest.raises(PolicyError):
        Sandbox().run(["/bin/true"], timeline=0.0001)


@pytest.mark.needs("unprivileged")
def test_an_ordinary_user_without_a_cgroup_has_the_sum_of_processes():
    with Sandbox() as box, held(box, 20):
        stats = box.stats()
        assert stats.source == "proc"
        assert stats.memory.current > 20 << 20
        assert stats.memory.limit is None
