# SPDX-License-Identifier: Apache-2.0
"""Runs verbs and interrupts each at a random moment; prints what was left behind. A program of its
own, since it is its main thread that is interrupted: interrupted.py COUNT SEED."""

import collections
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from isolate import Sandbox

SANDBOX = Sandbox(mem="64M") if sys.argv[3] == "limits" else Sandbox()
PARENT = os.environ["ISOLATE_CGROUP_PARENT"]


def run():
    SANDBOX.run(["true"])


def captured():
    SANDBOX.run(["sh", "-c", "echo a; sleep 0.01"], capture_output=True, input=b"x")


def live():
    with SANDBOX as box:
        box.run(["true"])
        box.run(["true"])


def called():
    with SANDBOX as box:
        assert box.call(len, "abc") == 3


def popen():
    with SANDBOX.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        program.communicate(b"x")


def unwatched():
    SANDBOX.popen(["true"]).wait()


JOBS = (run, captured, live, called, popen, unwatched)


def open_files():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}").split(":")[0])
        except OSError:
            continue
    return collections.Counter(found)


def children():
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(errors="replace")
        except OSError:
            continue
        if text[text.rindex(")") + 2 :].split()[1] == str(os.getpid()):
            found.append(text[text.index("(") : text.rindex(")")])
    return found


def state():
    gc.collect()
    leaves = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{PARENT}/isolate-*")]
    return open_files(), threading.active_count(), leaves, children()


def interrupted(job, after):
    """Whether the interrupt came through."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        job()
        timer.join()
        time.sleep(0.001)
    except KeyboardInterrupt:
        return True
    finally:
        while timer.is_alive():
            try:
                timer.join()
            except KeyboardInterrupt:
                continue
    return False


def main():
    took = {}
    for job in JOBS:
        job()
        began = time.monotonic()
        job()
        took[job] = time.monotonic() - began
    before = state()
    random.seed(int(sys.argv[2]))
    came = 0
    for turn in range(int(sys.argv[1])):
        job = JOBS[turn % len(JOBS)]
        came += interrupted(job, random.random() * took[job])
        end = time.monotonic() + 3
        while state() != before and time.monotonic() < end:
            time.sleep(0.01)
        if state() != before:
            print("LEFT", job.__name__, state(), "BEFORE", before)
            return
    print("CAME", came)
    print("OWN", signal.getsignal(signal.SIGINT) is signal.default_int_handler)


main()
