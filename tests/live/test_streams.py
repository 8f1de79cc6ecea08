"""Descriptors of the caller that a run is given: checked before anything of ours could have their
numbers, or a program would hold a descriptor of the library's."""

import errno
import gc
import os
import subprocess
import sys
import threading

import pytest

from isolate import LaunchError, Namespace, PolicyError, Sandbox, SupervisorError
from isolate import Popen as AmbientPopen
from isolate import popen as popens
from isolate import run as ambient_run
from tests.conftest import descriptors


def closed_number():
    """The lowest number that is free: the next descriptor of anybody gets it."""
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    return fd


WHICH = ["stdin", "stdout", "stderr"]


@pytest.mark.parametrize("which", WHICH)
def test_a_closed_descriptor_is_refused_before_anything_starts(which):
    fd = closed_number()
    with pytest.raises(PolicyError, match=f"{fd} is not an open file"):
        Sandbox().run(["/bin/cat"], **{which: fd})


@pytest.mark.parametrize("which", WHICH)
def test_a_closed_descriptor_is_refused_in_a_live_box(which):
    with Sandbox() as box:
        fd = closed_number()
        with pytest.raises(PolicyError, match=f"{fd} is not an open file"):
            box.run(["/bin/cat"], **{which: fd})
        assert box.run(["/bin/true"]).returncode == 0


@pytest.mark.parametrize("which", WHICH)
def test_a_closed_descriptor_is_refused_under_what_with_has_collected(which):
    fd = closed_number()
    with Namespace(user=True, uts=True), pytest.raises(PolicyError, match="not an open file"):
        ambient_run(["/bin/cat"], **{which: fd})


@pytest.mark.parametrize("which", [*WHICH, "pass_fds"])
def test_popen_refuses_a_closed_descriptor(which):
    fd = closed_number()
    value = [fd] if which == "pass_fds" else fd
    with pytest.raises(PolicyError, match=f"{fd} is not an open file"):
        Sandbox().popen(["/bin/cat"], **{which: value})
    with pytest.raises(PolicyError):
        AmbientPopen(["/bin/cat"], **{which: value})


@pytest.mark.parametrize("value", ["a name", 1.5, object(), [1]])
def test_what_is_no_file_is_refused(value):
    with pytest.raises(PolicyError, match="not an open file"):
        Sandbox().run(["/bin/true"], stdout=value)


def test_a_closed_file_is_refused(tmp_path):
    with open(tmp_path / "x", "w") as file:
        pass
    for which in WHICH:
        with pytest.raises(PolicyError, match="closed file"):
            Sandbox().run(["/bin/true"], **{which: file})


def test_a_refused_run_opens_nothing():
    Sandbox().run(["/bin/true"])
    gc.collect()
    before = descriptors()
    for _ in range(3):
        with pytest.raises(PolicyError):
            Sandbox().run(["/bin/cat"], stdin=closed_number())
    assert descriptors() == before


def test_open_ones_are_taken_by_number_and_by_file(tmp_path):
    (tmp_path / "in").write_bytes(b"given")
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        done = Sandbox().run(["/bin/cat"], stdin=source, stdout=target.fileno())
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"given"


@pytest.mark.parametrize("special", [subprocess.DEVNULL, subprocess.PIPE, None])
def test_the_special_numbers_are_no_descriptors(special):
    done = Sandbox().run(["/bin/echo", "x"], stdout=special, stderr=subprocess.STDOUT)
    assert done.stdout == (b"x\n" if special == subprocess.PIPE else None)


# -- a program that nobody could watch


def no_thread(name, run):
    raise BlockingIOError(errno.EAGAIN, "can't start new thread")


def test_a_program_whose_watcher_can_not_start_ends_at_once(monkeypatch):
    """Its limits would hold it no more."""
    with Sandbox() as box:
        monkeypatch.setattr(popens, "start_thread", no_thread)
        with pytest.raises(SupervisorError, match="watch the program") as caught:
            box.popen(["/bin/sleep", "77"])
        assert caught.value.errno == errno.EAGAIN
        monkeypatch.undo()
        left = box.run(["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline"], capture_output=True)
        assert b"sleep" not in left.stdout


def test_a_one_shot_whose_watcher_can_not_start_leaves_no_box(monkeypatch):
    monkeypatch.setattr(popens, "start_thread", no_thread)
    with pytest.raises(SupervisorError, match="watch the program"):
        Sandbox().popen(["/bin/sleep", "77"])


def test_a_terminal_whose_watcher_can_not_start_is_closed(monkeypatch):
    with Sandbox() as box:
        before = descriptors()
        monkeypatch.setattr(popens, "start_thread", no_thread)
        with pytest.raises(SupervisorError):
            box.popen(["/bin/sleep", "77"], pty=True)
        monkeypatch.undo()
        gc.collect()
        assert descriptors() == before


def test_a_terminal_that_does_not_come_ends_the_program(monkeypatch):
    def nothing(sock):
        raise SupervisorError("take the program's terminal", errno.EIO)

    with Sandbox() as box:
        monkeypatch.setattr(popens, "received", nothing)
        with pytest.raises(SupervisorError, match="terminal"):
            box.popen(["/bin/sleep", "77"], pty=True)
        monkeypatch.undo()
        left = box.run(["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline"], capture_output=True)
        assert b"sleep" not in left.stdout


def test_a_caller_without_threads_to_spare_is_told(monkeypatch):
    """The supervisor of refused calls has one of its own."""

    def full(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        with pytest.raises(LaunchError, match="start the program") as caught:
            Sandbox().run(["/bin/true"])
    assert caught.value.errno == errno.EAGAIN
    assert Sandbox().run(["/bin/true"]).returncode == 0


def test_a_caller_without_descriptors_to_spare_is_told():
    """In a process of its own: at each number of free descriptors, an error of ours or success."""
    script = """
import os, resource, sys, time
from isolate import IsolateError, Sandbox
from isolate.supervise.template import TEMPLATES
def numbers():  # but for what is kept for good
    kept = {str(each.fd) for each in TEMPLATES.kept.values()}
    return sorted(set(os.listdir("/proc/self/fd")) - kept)
def settled():  # a thread of the box before may be on its way out
    while (found := numbers()) != (time.sleep(0.02) or numbers()):
        pass
    return found
Sandbox().run(["/bin/true"])
errors = set()
for spare in range(1, 60):
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, 4096))
    before = settled() if spare > 2 else None
    try:
        Sandbox().run(["/bin/true"])
        errors.add("none")
    except IsolateError as error:
        errors.add(type(error).__name__)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    assert before is None or settled() == before, (spare, before, numbers())
assert "none" in errors and "LaunchError" in errors, errors
print(sorted(errors))
"""
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_refusal_comes_before_the_box(monkeypatch):
    made = []
    monkeypatch.setattr("isolate.sandbox.Session", lambda plan: made.append(plan))
    with pytest.raises(PolicyError):
        Sandbox().run(["/bin/cat"], stdin=closed_number())
    assert made == []
