# SPDX-License-Identifier: Apache-2.0
"""`Sandbox().popen` in the place of `subprocess.Popen`: each use gives the same with either."""

import gc
import os
import select
import signal
import subprocess
import tempfile
import warnings

import pytest

from isolate import PolicyError, Sandbox

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL
SLOW_LINES = ["sh", "-c", "echo a; sleep 0.02; echo b; echo c"]


def in_a_box(*args, **options):
    return Sandbox().popen(*args, **options)


def reaped(use):
    """With subprocess itself, which reaps what nobody holds when it is used next."""
    try:
        return use(subprocess.Popen)
    finally:
        subprocess.run(["true"], check=True)
        while subprocess._active:
            subprocess._cleanup()


def lines(popen):
    with popen(SLOW_LINES, stdout=PIPE, text=True) as program:
        return list(program.stdout)


def lines_of_one_that_nobody_holds(popen):
    return [line for line in popen(SLOW_LINES, stdout=PIPE, text=True).stdout]  # noqa: C416


def bytes_of_one_that_nobody_holds(popen):
    return popen(SLOW_LINES, stdout=PIPE).stdout.read()


def unbuffered_of_one_that_nobody_holds(popen):
    return popen(SLOW_LINES, stdout=PIPE, bufsize=0).stdout.readall()


def errors_of_one_that_nobody_holds(popen):
    return popen(["sh", "-c", "sleep 0.02; echo e >&2"], stderr=PIPE).stderr.read()


def communicate_twice(popen):
    program = popen(["sh", "-c", "echo a; sleep 0.3; echo b"], stdout=PIPE)
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        program.communicate(timeout=0.05)
    assert caught.value.timeout == 0.05
    return program.communicate(), program.returncode


def text_both_ways(popen):
    with popen(["cat"], stdin=PIPE, stdout=PIPE, text=True, encoding="utf-8") as program:
        return program.communicate("größer\n")


def line_by_line(popen):
    found = []
    with popen(["cat"], stdin=PIPE, stdout=PIPE, text=True, bufsize=1) as program:
        for word in ("one\n", "two\n"):
            program.stdin.write(word)
            found.append(program.stdout.readline())
        program.stdin.close()
        return found, program.wait(10)


def large(popen):
    script = "head -c 3000000 /dev/zero | tr '\\0' x; head -c 2000000 /dev/zero >&2; cat >/dev/null"
    with popen(["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=PIPE) as program:
        out, err = program.communicate(b"y" * 1_000_000)
        return len(out), len(err), program.returncode


def both_in_one(popen):
    argv = ["sh", "-c", "echo e >&2; echo o"]
    return popen(argv, stdout=PIPE, stderr=STDOUT).communicate()


def thrown_away(popen):
    argv = ["sh", "-c", "echo e >&2; echo o"]
    return popen(argv, stdout=DEVNULL, stderr=DEVNULL).communicate()


def to_a_file(popen):
    with tempfile.TemporaryFile() as file:
        code = popen(["echo", "word"], stdout=file).wait(10)
        file.seek(0)
        return code, file.read()


def from_a_file(popen):
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        file.seek(0)
        return popen(["cat"], stdin=file, stdout=PIPE).communicate()


def one_into_the_other(popen):
    first = popen(["echo", "through"], stdout=PIPE)
    second = popen(["tr", "a-z", "A-Z"], stdin=first.stdout, stdout=PIPE)
    first.stdout.close()
    return second.communicate(), first.wait(10)


def a_descriptor_by_number(popen):
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        file.seek(0)
        fd = file.fileno()
        argv = ["sh", "-c", f"cat <&{fd}"]
        return popen(argv, stdout=PIPE, pass_fds=[fd]).communicate()


def environment_and_directory(popen):
    argv = ["sh", "-c", "pwd; echo $A"]
    return popen(argv, env={"A": "1"}, cwd="/usr", stdout=PIPE).communicate()


def signals(popen):
    found = []
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR2):
        program = popen(["sleep", "60"])
        program.send_signal(number)
        found.append((program.wait(10), program.poll(), program.returncode))
    return found


def a_signal_that_is_caught(popen):
    script = "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    with popen(["sh", "-c", script], stdout=PIPE, text=True) as program:
        first = program.stdout.readline()
        program.terminate()
        return first, program.stdout.read(), program.wait(10)


def after_the_end(popen):
    program = popen(["true"])
    program.wait(10)
    return program.send_signal(9), program.kill(), program.terminate(), program.poll()


def signal_nought(popen):
    program = popen(["sleep", "60"])
    program.send_signal(0)
    program.kill()
    return program.wait(10)


def a_signal_that_is_none(popen):
    program = popen(["sleep", "60"])
    try:
        program.send_signal(1000)
    except OSError as error:
        return error.errno
    finally:
        program.kill()
        program.wait(10)


def wait_that_times_out(popen):
    program = popen(["sleep", "60"])
    with pytest.raises(subprocess.TimeoutExpired, match="timed out after 0.05 seconds"):
        program.wait(0.05)
    program.kill()
    return program.wait(10)


def codes(popen):
    return [popen(["sh", "-c", f"exit {code}"]).wait(10) for code in (0, 1, 127, 255)]


def told_about(popen):
    program = popen(["sleep", "60"])
    before = repr(program)
    program.kill()
    program.wait(10)
    return before, repr(program), program.args


def defaults_that_are_written_out(popen):
    options = {
        "close_fds": True,
        "restore_signals": True,
        "start_new_session": True,
        "shell": False,
        "executable": None,
        "preexec_fn": None,
        "startupinfo": None,
        "creationflags": 0,
        "user": None,
        "group": None,
        "extra_groups": None,
        "umask": -1,
        "universal_newlines": True,
    }
    return popen(["echo", "a"], stdout=PIPE, **options).communicate()


def a_pipe_of_another_size(popen):
    return popen(["echo", "a"], stdout=PIPE, pipesize=1 << 17).communicate()


USES = [value for value in list(globals().values()) if getattr(value, "__code__", None)]
USES = [use for use in USES if use.__code__.co_varnames[:1] == ("popen",)]


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_each_use_gives_what_subprocess_gives(use):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert use(in_a_box) == reaped(use)


def test_the_uses_are_there():
    assert len(USES) == 26


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("preexec_fn", print),
        ("shell", True),
        ("executable", "/bin/sh"),
        ("user", 0),
        ("group", 0),
        ("extra_groups", [0]),
        ("umask", 0),
        ("close_fds", False),
        ("restore_signals", False),
        ("process_group", 0),
    ],
)
def test_what_a_box_has_not_is_refused_with_what_to_do(field, value):
    with pytest.raises(PolicyError, match=f"takes no {field}: .+"):
        Sandbox().popen(["true"], **{field: value})
    with pytest.raises(PolicyError, match=f"takes no {field}: .+"):
        Sandbox().run(["true"], **{field: value})


def test_run_names_the_keywords_that_it_has():
    with pytest.raises(PolicyError, match=r"no tiemout=; it has input, .*timeout"):
        Sandbox().run(["true"], tiemout=5)


def test_run_takes_defaults_that_are_written_out():
    done = Sandbox().run(["echo", "a"], shell=False, close_fds=True, capture_output=True)
    assert done.stdout == b"a\n"


@pytest.mark.parametrize("wrong", [5, 1.5, [1], object(), {"a": 1}])
def test_input_that_is_no_bytes_is_refused(wrong):
    with pytest.raises(PolicyError, match="input must be bytes"):
        Sandbox().run(["cat"], input=wrong)


@pytest.mark.parametrize("given", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_input_is_any_bytes(given):
    assert Sandbox().run(["cat"], input=given, capture_output=True).stdout == b"x"


def test_one_that_nobody_holds_ends_with_its_stream():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        program = Sandbox().popen(["sleep", "60"], stdout=PIPE)
        pidfd = os.dup(program.pidfd)
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            stream = program.stdout
            del program
            gc.collect()
            assert not poller.poll(50)  # its reader is there
            del stream
            gc.collect()
            assert poller.poll(10_000)
        finally:
            os.close(pidfd)


def test_one_that_nobody_holds_at_all_ends_and_says_so():
    program = Sandbox().popen(["sleep", "60"])
    pidfd = os.dup(program.pidfd)
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            del program
            gc.collect()
        assert poller.poll(10_000)
        assert any("still running: ['sleep', '60']" in str(each.message) for each in told)
    finally:
        os.close(pidfd)
