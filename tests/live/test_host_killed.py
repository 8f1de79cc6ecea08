"""SIGKILL of the host process at random moments: nothing of its boxes outlives it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from isolate import Sandbox

HOSTING = Path(__file__).with_name("hosting.py")
WITHIN = 1.0  # seconds: the promise of law 8 for a host that is killed
TIMES = int(os.environ.get("ISOLATE_KILLS", "20"))  # 200 for a release


def marked(mark):
    """Processes that carry the mark, but for the host process itself."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if mark.encode() in text and b"hosting.py" not in text:
            found.append(path.parent.name)
    return found


def inits_of(pid):
    """isolate-init processes whose parent it is, by pid and start time."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        rest = text[text.rindex(")") + 2 :].split()
        if name == "isolate-init" and int(rest[1]) == pid:
            found.append((path.parent.name, rest[19]))
    return found


def alive(known):
    """Which of those still run: zombies that nobody reaped yet don't count."""
    found = []
    for pid, start in known:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        rest = text[text.rindex(")") + 2 :].split()
        if rest[19] == start and rest[0] not in "ZX":
            found.append(pid)
    return found


def state_of(pid):
    """R, S, T, Z, … of proc(5)."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2]


def left_of(known, mark):
    return alive(known) or marked(mark)


def leaves():
    parent = os.environ["ISOLATE_CGROUP_PARENT"]
    return sorted(map(str, Path("/sys/fs/cgroup").glob(f"*/{parent}*/isolate-*")))


def ours(directory):
    """What the library could have left there; other programs of the machine come and go."""
    return sorted(name for name in os.listdir(directory) if "isolate" in name)


def outside():
    """Mounts, and names in the directories where temporary files go."""
    mounts = Path("/proc/self/mountinfo").read_text()
    return mounts, ours("/tmp"), ours("/dev/shm")


def test_nothing_outlives_its_host():
    rng = random.Random(os.environ.get("ISOLATE_SEED", "11"))
    who = "root" if os.geteuid() == 0 else "ordinary"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    slowest = 0.0
    before = outside()
    for number in range(TIMES):
        mark = f"isolate-mark-{os.getpid()}-{number}"
        argv = [sys.executable, str(HOSTING), mark, who]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env=env) as host:
            assert host.stdout.readline() == b"go\n"
            time.sleep(rng.uniform(0, 0.3))
            host.send_signal(signal.SIGSTOP)  # so that no init starts between look and kill
            while state_of(host.pid) != "T":
                time.sleep(0.001)
            known = inits_of(host.pid)
            host.kill()
            began = time.monotonic()
            while left_of(known, mark) and time.monotonic() - began < WITHIN:
                time.sleep(0.005)
            took = time.monotonic() - began
            slowest = max(slowest, took)
            assert not left_of(known, mark), f"kill {number}: still alive after {took:.1f} s"
    print(f"{TIMES} kills, the slowest end after {slowest * 1000:.0f} ms")
    # A new process of the library reclaims what was left in the cgroup tree.
    limits = "mem='64M'" if who == "root" else ""
    again = f"from isolate import Sandbox; Sandbox({limits}).run(['/bin/true'])"
    subprocess.run([sys.executable, "-c", again], check=True, timeout=60, env=env)
    assert leaves() == []
    assert outside() == before


def test_a_box_still_works_after_all_that():
    assert Sandbox().run(["/bin/true"]).returncode == 0
