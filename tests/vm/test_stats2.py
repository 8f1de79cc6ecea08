"""Statistics, freezing and the limit of processor time on cgroup v2."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

import isolate
from isolate import Exited, IsolateError, LimitHit, Sandbox, TimedOut

pytestmark = pytest.mark.needs("cgroup2")
SLACK = 90  # seconds: emulated processors
BURN = "import time\ndef burn(s):\n    end = time.process_time() + s\n" \
       "    while time.process_time() < end: pass\n"  # fmt: skip
HOLD = """
import sys
kept = bytearray(b"x" * ({} << 20))
print("ready", flush=True)
sys.stdin.read()
"""
TICK = "import sys, time\nwhile True:\n    sys.stdout.write('.'); sys.stdout.flush()\n" \
       "    time.sleep(.01)"  # fmt: skip


def held(box, megabytes):
    argv = [sys.executable, "-c", HOLD.format(megabytes)]
    program = box.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout.readline() == b"ready\n"
    return program


def ticking(box, **options):
    program = box.popen([sys.executable, "-c", TICK], stdout=subprocess.PIPE, **options)
    assert program.stdout.read(1) == b"."
    return program


def silent(stream):
    os.set_blocking(stream.fileno(), False)
    while stream.read():
        pass
    time.sleep(1)
    return not stream.read()


def test_every_number_is_the_kernels():
    with Sandbox(mem="128M", cpu=1.5, pids=33) as box, held(box, 20):
        leaf = Path(box.session.made.leaf.directories["unified"])
        stats = box.stats()
        assert stats.source == "cgroup v2"
        assert stats.memory.limit == int((leaf / "memory.max").read_text()) == 128 << 20
        assert stats.pids.current == int((leaf / "pids.current").read_text()) == 1
        assert stats.pids.limit == 33
        assert stats.cpu.limit == 1.5
        kinds = dict(line.split() for line in (leaf / "memory.stat").read_text().splitlines())
        assert stats.memory.anon == pytest.approx(int(kinds["anon"]), abs=1 << 20)
        assert stats.memory.file == pytest.approx(int(kinds["file"]), abs=1 << 20)
        assert stats.memory.kernel == pytest.approx(int(kinds["kernel"]), abs=1 << 20)
        assert stats.memory.current == pytest.approx(
            stats.memory.anon + stats.memory.file + stats.memory.kernel, abs=2 << 20
        )
        account = dict(line.split() for line in (leaf / "cpu.stat").read_text().splitlines())
        assert stats.cpu.usage == pytest.approx(int(account["usage_usec"]) / 1e6, abs=0.2)
        assert stats.cpu.user + stats.cpu.system == pytest.approx(stats.cpu.usage, abs=1e-5)
        assert stats.memory.swap is not None or not psutil.swap_memory().total
        if os.path.exists("/proc/pressure/cpu"):
            assert stats.pressure.cpu.some.total >= 0


def test_an_independent_reader_says_the_same():
    with Sandbox(mem="256M") as box, held(box, 50) as program:
        other = psutil.Process(program.pid)
        stats = box.stats()
        times = other.cpu_times()
        assert stats.cpu.usage == pytest.approx(times.user + times.system, rel=0.1, abs=0.1)
        assert stats.pids.current == other.num_threads() == 1
        if os.geteuid() == 0:  # /proc/PID/smaps of another uid
            uss = other.memory_full_info().uss
            assert stats.memory.anon == pytest.approx(uss, rel=0.05, abs=3 << 20)


def test_hits_kills_and_refusals_are_counted():
    bomb = "import os\nfor _ in range(9):\n    try:\n        if os.fork() == 0: os._exit(0)\n" \
           "    except OSError: pass"  # fmt: skip
    with Sandbox(pids=1, mem="64M", timeout=SLACK) as box:
        done = box.run([sys.executable, "-c", bomb])
        assert box.stats().pids.refused == done.usage.pids_refused == 9
        done = box.run([sys.executable, "-c", "bytearray(b'x') * (200 << 20)"])
        assert isinstance(done.outcome, LimitHit)
        stats = box.stats()
        assert stats.memory.oom_kills == done.usage.oom_kills >= 1
        assert stats.memory.limit_hits > 0


def test_a_stopped_processor_share_is_counted():
    with Sandbox(cpu=0.2, timeout=SLACK) as box:
        done = box.run([sys.executable, "-c", BURN + "burn(.6)"])
        stats = box.stats()
    assert stats.cpu.throttled_periods > 0
    assert done.usage.throttled == pytest.approx(stats.cpu.throttled, abs=0.5)
    assert done.usage.throttled > 0.2


@pytest.fixture
def disk():
    """A directory on a disk that can be shown under other ids: /tmp is none."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).resolve().parents[2]) as path:
        os.chmod(path, 0o777)
        yield path


def test_what_goes_to_a_disk_is_counted(disk):
    code = f"import os\nfd = os.open('{disk}/x', os.O_CREAT | os.O_WRONLY)\n" \
           "os.write(fd, bytes(8 << 20)); os.fsync(fd)"  # fmt: skip
    with Sandbox(write=[disk], timeout=SLACK) as box:
        done = box.run([sys.executable, "-c", code])
        assert done.outcome == Exited(0)
        stats = box.stats()
    if stats.io or done.usage.written is not None:  # the user's subtree may lack the controller
        assert stats.written >= 8 << 20
        assert done.usage.written >= 8 << 20
    else:
        assert os.geteuid() != 0


def test_a_frozen_box_does_nothing_and_goes_on_when_thawed():
    with Sandbox() as box, ticking(box) as program:
        box.freeze()
        stats = box.stats()
        assert stats.frozen
        assert silent(program.stdout)
        assert box.stats().cpu.usage == stats.cpu.usage
        with pytest.raises(IsolateError, match="thaw"):
            box.run(["true"])
        box.thaw()
        assert not box.stats().frozen
        assert not silent(program.stdout)
        program.kill()


def test_time_counts_on_while_frozen_and_the_box_ends_with_its_block():
    with Sandbox() as box:
        program = ticking(box, timeout=5)
        other = ticking(box)
        box.freeze()
        assert program.wait(SLACK) == -9
        assert program.outcome == TimedOut(5)
        assert box.stats().frozen
        program.stdout.close()
    assert other.wait(SLACK) == -9
    other.stdout.close()


def test_a_frozen_box_dies_with_its_host():
    code = (
        "import time; from isolate import Sandbox\n"
        "with Sandbox() as box:\n"
        "    p = box.popen(['/bin/sleep', '300'])\n    box.freeze()\n"
        "    print(p.pid, flush=True)\n    time.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    fd = os.pidfd_open(int(host.stdout.readline()))
    host.kill()
    host.wait()
    host.stdout.close()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(SLACK * 1000)
    os.close(fd)
    code = "from isolate import Sandbox; Sandbox().run(['/bin/true'])"  # collects the leaf
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SLACK)


def test_kill_is_by_the_cgroup_where_there_is_no_pid_namespace():
    with Sandbox(pid=False, allow=[isolate.allow.HostPid()]) as box:
        program = ticking(box)
        box.kill()
        assert program.wait(SLACK) == -9
        assert box.session.made.leaf.pids() == []
        program.stdout.close()


def test_children_that_burn_together_share_the_limit():
    code = BURN + "import os\nfor _ in range(10):\n    if os.fork() == 0: burn(.5); os._exit(0)\n" \
           "for _ in range(10): os.wait()"  # fmt: skip
    done = Sandbox(cpu_time=2, timeout=SLACK).run([sys.executable, "-c", code])
    assert isinstance(done.outcome, LimitHit)
    assert done.outcome.limit == "cpu_time"
    assert done.outcome.used >= 2
    assert {each.name: each.by for each in done.guarantees}["cpu_time"].startswith("the account")
    done = Sandbox(cpu_time=60, timeout=SLACK).run([sys.executable, "-c", BURN + "burn(.3)"])
    assert done.outcome == Exited(0)


def test_a_watch_and_a_timeline():
    async def main(box):
        seen = []
        async for stats in box.watch(0.1):
            seen.append(stats)
            if len(seen) == 3:
                box.kill()
        return seen

    with Sandbox() as box:
        assert 3 <= len(asyncio.run(main(box))) < 100  # dying takes a while here
    done = Sandbox(timeout=SLACK).run([sys.executable, "-c", BURN + "burn(1)"], timeline=0.1)
    assert len(done.timeline) > 3
    assert done.timeline[-1].memory is not None
    assert done.timeline[-1].cpu == pytest.approx(done.usage.cpu, rel=0.2, abs=0.2)


def test_the_command_lists_the_box():
    argv = [sys.executable, "-m", "isolate", "stats", "--no-stream", "--json"]
    with Sandbox(pids=17) as box, held(box, 5) as program:
        done = subprocess.run(argv, capture_output=True, timeout=SLACK)
        mine = [each for each in json.loads(done.stdout) if each["owner"] == os.getpid()]
        assert len(mine) == 1
        assert mine[0]["init"] == box.pid
        assert mine[0]["pids"] == [program.pid]
        assert mine[0]["stats"]["source"] == "cgroup v2"
        assert mine[0]["stats"]["pids"]["limit"] == 17
        box.freeze()
        done = subprocess.run(argv, capture_output=True, timeout=SLACK)
        mine = [each for each in json.loads(done.stdout) if each["owner"] == os.getpid()]
        assert mine[0]["stats"]["frozen"]
        box.thaw()
        program.send_signal(signal.SIGKILL)
