"""`isolate.Popen`: what `subprocess.Popen` does, in a box."""

import io
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import isolate
from isolate import Exited, Killed, LaunchError, LimitHit, Namespace, PolicyError, Sandbox, TimedOut

MANY = 3_000_000


def test_it_is_a_subprocess_popen_with_its_pipes():
    with Sandbox().popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert isinstance(program, subprocess.Popen)
        assert program.poll() is None
        assert program.outcome is None
        out, err = program.communicate(b"through")
    assert (out, err, program.returncode) == (b"through", None, 0)
    assert program.outcome == Exited(0)
    assert program.usage.wall > 0


def test_lines_go_to_and_fro_as_text():
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    script = "while read line; do echo got $line; done"
    with Sandbox().popen(["/bin/sh", "-c", script], **options) as program:
        for word in ("one", "two"):
            program.stdin.write(word + "\n")
            assert program.stdout.readline() == f"got {word}\n"
        program.stdin.close()
        assert program.wait(10) == 0


def test_stderr_joins_stdout():
    argv = ["/bin/sh", "-c", "echo out; echo err >&2"]
    with Sandbox().popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
        assert sorted(program.communicate()[0].split()) == [b"err", b"out"]


def test_the_pid_is_the_callers_and_signals_arrive():
    with Sandbox().popen(["/bin/sleep", "60"]) as program:
        with open(f"/proc/{program.pid}/cmdline", "rb") as file:
            assert file.read() == b"/bin/sleep\x0060\x00"
        program.terminate()
        assert program.wait(10) == -signal.SIGTERM
        assert program.outcome == Killed(signal.SIGTERM)
        program.send_signal(signal.SIGKILL)  # after the end: nothing, as subprocess has it


def test_wait_times_out_without_harm():
    with Sandbox().popen(["/bin/sleep", "60"]) as program:
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.05)
        assert program.poll() is None
        program.kill()
        assert program.wait(10) == -9


def test_its_own_timeout_is_an_outcome():
    with Sandbox().popen(["/bin/sleep", "60"], timeout=0.2) as program:
        assert program.wait(10) == -9
        assert program.outcome == TimedOut(0.2)


def test_output_is_counted_through_a_pipe_too():
    flood = "while :; do echo 0123456789012345678901234567890123456789; done"
    with Sandbox(output="64K").popen(["/bin/sh", "-c", flood], stdout=subprocess.PIPE) as program:
        out = program.stdout.read()
        program.wait(10)
    assert isinstance(program.outcome, LimitHit)
    assert program.outcome.limit == "output"
    assert len(out) <= 65536


def test_a_large_stream_is_whole():
    script = f"import sys; sys.stdout.buffer.write(bytes(range(256)) * ({MANY} // 256))"
    with Sandbox(output="1G").popen([sys.executable, "-c", script], stdout=-1) as program:
        out, _ = program.communicate()
    assert out == bytes(range(256)) * (MANY // 256)


def test_inherited_output_reaches_the_callers_file(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        program = Sandbox().popen(["/bin/echo", "hello"], stdout=file)
        assert program.wait(10) == 0
    assert (tmp_path / "out").read_bytes() == b"hello\n"


def test_the_program_never_holds_the_callers_file(tmp_path):
    """Only a pipe: it can neither seek in the file nor truncate what was there."""
    path = tmp_path / "log"
    path.write_bytes(b"earlier\n")
    with path.open("ab") as file:
        argv = ["/bin/sh", "-c", "readlink /proc/self/fd/1 >&2; (: >/proc/self/fd/1); echo more"]
        with Sandbox().popen(argv, stdout=file, stderr=subprocess.PIPE) as program:
            assert program.communicate()[1].startswith(b"pipe:")
    assert path.read_bytes() == b"earlier\nmore\n"


def test_a_reader_that_stopped_does_not_stop_the_limits():
    """Our end of the pipe is full and nobody reads: the timeout still fires."""
    read_fd, write_fd = os.pipe()
    try:
        with Sandbox().popen(["/usr/bin/yes"], stdout=write_fd, timeout=0.5) as program:
            end = time.monotonic() + 20
            while program.poll() is None and time.monotonic() < end:
                if program.supervision.outcome is not None:
                    program.supervision.abandoned.set()
                time.sleep(0.02)
            assert program.outcome == TimedOut(0.5)
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_run_too_is_timed_out_when_the_reader_stopped():
    read_fd, write_fd = os.pipe()
    timer = threading.Timer(3.0, drain, [read_fd])
    timer.start()
    began = time.monotonic()
    try:
        done = Sandbox(timeout=0.5).run(["/usr/bin/yes"], stdout=write_fd)
        assert done.outcome == TimedOut(0.5)
        assert done.usage.wall < 20
        assert time.monotonic() - began < 20
    finally:
        os.close(write_fd)
        timer.join()
        os.close(read_fd)


def drain(fd):
    with open(fd, "rb", closefd=False) as file:
        while file.read1(65536):
            pass


def test_a_live_box_ends_its_programs():
    with Sandbox() as box:
        program = box.popen(["/bin/sleep", "60"])
        inside = box.run(["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"],
                         capture_output=True).stdout  # fmt: skip
        assert b"sleep 60" in inside
    assert program.wait(10) == -9
    assert not program.thread.is_alive()


def test_a_dropped_one_shot_popen_ends():
    program = Sandbox().popen(["/bin/sleep", "60"])
    pid, thread = program.pid, program.thread
    with pytest.warns(ResourceWarning):
        del program
    thread.join(10)
    assert not thread.is_alive()
    assert not os.path.exists(f"/proc/{pid}")


def test_the_module_popen_takes_what_with_collected():
    options = {"stdout": subprocess.PIPE, "text": True}
    bare = Namespace(user=True, uts=True, hostname="inside")
    with bare, isolate.Popen(["/bin/hostname"], **options) as program:
        assert program.communicate()[0] == "inside\n"
    with isolate.Popen(["/bin/echo", "x"], stdout=subprocess.PIPE) as program:
        assert program.communicate()[0] == b"x\n"
    with Sandbox(hostname="boxed") as box:
        with isolate.Popen(["/bin/hostname"], **options) as program:
            assert program.communicate()[0] == "boxed\n"
        assert box.run(["/bin/true"]).returncode == 0


def test_a_named_descriptor_goes_along():
    read_fd, write_fd = os.pipe()
    try:
        argv = [sys.executable, "-c", f"import os; os.write({write_fd}, b'along\\n')"]
        with Sandbox().popen(argv, pass_fds=[write_fd]) as program:
            assert program.wait(10) == 0
        assert os.read(read_fd, 100) == b"along\n"
    finally:
        os.close(read_fd)
        os.close(write_fd)


@pytest.mark.parametrize(
    "options",
    [
        {"preexec_fn": print},
        {"shell": True},
        {"close_fds": False},
        {"user": 0},
        {"executable": "/bin/sh"},
    ],
)
def test_what_has_no_meaning_here_is_refused_by_name(options):
    with pytest.raises(PolicyError, match=next(iter(options))):
        Sandbox().popen(["/bin/true"], **options)


def test_a_missing_program_is_a_launch_error_and_leaves_nothing():
    with pytest.raises(LaunchError, match="no-such-program"):
        Sandbox().popen(["/no-such-program"], stdin=-1, stdout=-1)
    with pytest.raises(PolicyError):
        Sandbox().popen([])


def test_a_text_wrapper_has_the_asked_encoding():
    with Sandbox().popen(["/bin/echo", "ä"], stdout=-1, encoding="utf-8") as program:
        assert isinstance(program.stdout, io.TextIOWrapper)
        assert program.stdout.read() == "ä\n"
