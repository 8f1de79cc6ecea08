# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PT012  what raises is the end of a block
"""KeyboardInterrupt and its like at any moment: nothing is left behind (law 8, docs/adr/0019)."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from isolate import IsolateError, Sandbox
from tests import conftest

PROGRAM = Path(__file__).with_name("interrupted.py")
COUNT = os.environ.get("ISOLATE_INTERRUPTS", "30")


class Stopped(Exception):
    pass


def stop(number, frame):
    raise Stopped


@pytest.fixture
def alarm():
    """SIGALRM raises, as timeouts of other libraries have it."""
    before = signal.signal(signal.SIGALRM, stop)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seed", [1, 2])
def test_interrupts_at_random_moments_leave_nothing(seed):
    limits = "limits" if conftest.FEATURES["cgroup"]() else "none"
    env = {**os.environ, "ISOLATE_CGROUP_PARENT": f"isolate-test-{os.getpid()}-{seed}"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), COUNT, str(seed), limits],
        env=env, capture_output=True, text=True, timeout=float(conftest.LONG), check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert not [line for line in lines if line.startswith("LEFT")], done.stdout
    assert lines[-1:] == ["OWN True"], done.stdout + done.stderr
    came = int(lines[-2].removeprefix("CAME "))
    assert came > int(COUNT) // 2  # else nothing was tried


def test_a_program_that_runs_is_interrupted_at_once(alarm):
    began = time.monotonic()
    alarm(0.1)
    with pytest.raises(Stopped):
        Sandbox().run(["sleep", "60"])
    assert time.monotonic() - began < 30


def test_a_call_that_runs_is_interrupted_and_the_box_lives(alarm):
    with Sandbox() as box:
        box.call(len, "")
        alarm(0.1)
        with pytest.raises(Stopped):
            box.call(time.sleep, 60)
        assert box.call(len, "abc") == 3
        assert box.run(["true"]).returncode == 0


def test_a_wait_for_a_popen_is_interrupted_and_it_lives(alarm):
    with Sandbox().popen(["sleep", "60"]) as program:
        alarm(0.1)
        with pytest.raises(Stopped):
            program.wait()
        assert program.poll() is None
        program.kill()


def test_a_reader_that_takes_nothing_is_interrupted(alarm):
    """The pipe of the caller's is full, and nobody reads it."""
    read_fd, write_fd = os.pipe()
    try:
        alarm(0.2)
        with os.fdopen(write_fd, "wb") as file, pytest.raises(Stopped):
            Sandbox().run(["head", "-c", "1000000", "/dev/zero"], stdout=file)
    finally:
        os.close(read_fd)


def test_the_block_of_a_popen_that_is_interrupted_ends_it():
    pidfd = -1
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Sandbox().popen(["sleep", "60"]) as program:
        pidfd = os.dup(program.pidfd)
        raise KeyboardInterrupt
    try:
        assert program.wait(20) == -signal.SIGKILL
        assert time.monotonic() - began < 30
    finally:
        os.close(pidfd)


def test_the_caller_s_handlers_are_its_own_inside_a_block_and_after():
    before = [signal.getsignal(number) for number in (2, 14, 15)]
    with Sandbox() as box:
        assert [signal.getsignal(number) for number in (2, 14, 15)] == before
        box.run(["true"])
        assert [signal.getsignal(number) for number in (2, 14, 15)] == before
    Sandbox().popen(["true"]).wait()
    assert [signal.getsignal(number) for number in (2, 14, 15)] == before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert Sandbox().run(["true"]).returncode == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_only_notes_is_called_once():
    seen = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert Sandbox().run(["sleep", "0.2"]).returncode == 0
        assert seen == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_other_threads_go_on_when_the_main_one_is_interrupted(alarm):
    results = []
    with Sandbox() as box:
        other = threading.Thread(
            target=lambda: results.append(box.run(["sh", "-c", "sleep 0.3; exit 7"]).returncode)
        )
        other.start()
        alarm(0.1)
        with pytest.raises(Stopped):
            box.run(["sleep", "60"])
        other.join(60)
    assert results == [7]


def test_a_box_that_ends_under_an_interrupt_has_ended(alarm):
    for wait in (0.0001, 0.0005, 0.001, 0.002, 0.004):
        box = Sandbox().open()
        try:
            alarm(wait)
            box.close()
            time.sleep(0.05)
        except Stopped:
            box.close()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        with pytest.raises(IsolateError, match="ended"):
            box.run(["true"])
