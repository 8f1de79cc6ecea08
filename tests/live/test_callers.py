# SPDX-License-Identifier: Apache-2.0
"""Odd callers: each starts a box and a call from a process that is not as processes usually are."""

import os
import subprocess
import sys
import textwrap

import pytest

RUN = """
done = Sandbox().run(["echo", "hi"], capture_output=True)
value = Sandbox().call(sum, [1, 2])
with Sandbox().popen(["cat"], stdin=-1, stdout=-1) as program:
    out, _ = program.communicate(b"through")
open(result, "w").write(repr((done.stdout, value, out)))
"""
FINE = repr((b"hi\n", 3, b"through"))


@pytest.fixture
def caller(tmp_path):
    """A program of its own that imports the library: what it wrote to its result."""

    def start(code=RUN, before="", shell="", env=(), **options):
        result = tmp_path / "result"
        text = f"from isolate import *\nimport os, sys, time\nresult = {str(result)!r}\n"
        text += textwrap.dedent(before) + textwrap.dedent(code)
        argv = [sys.executable, "-c", text]
        if shell:
            argv = ["/bin/sh", "-c", f'{shell}\nexec "$0" "$@"', *argv]
        merged = {**os.environ, **dict(env)}
        merged = {name: value for name, value in merged.items() if value is not None}
        done = subprocess.run(
            argv, env=merged, capture_output=True, timeout=110, check=False, **options
        )
        if not result.exists():
            return done.stderr.decode()
        result.chmod(0o600)  # the caller's umask may have left us nothing
        return result.read_text()

    return start


SHELLS = {
    "stdin and stdout are closed": "exec 0<&- 1>&-",
    "stderr is closed": "exec 2>&-",
    "all three are closed": "exec 0<&- 1>&- 2>&-",
    "few descriptors and a tight umask": "ulimit -n 64 -c 0 -s 1024; umask 0777",
    "the directory is gone": "d=$(mktemp -d); cd $d; rmdir $d",
    "signals are ignored": "trap '' CHLD TERM HUP USR1 PIPE; exec nice -n 19 \"$0\" \"$@\"",
}


@pytest.mark.parametrize("how", SHELLS)
def test_a_box_starts_when(how, caller):
    if "gone" in how and sys.version_info[:3] == (3, 13, 0):
        pytest.skip("3.13.0 can't import its own socket in such a directory")
    assert caller(shell=SHELLS[how]) == FINE


BEFORE = {
    "somebody reaps every child": """
        import threading
        def reap():
            while True:
                try: os.waitpid(-1, 0)
                except ChildProcessError: time.sleep(0.001)
        threading.Thread(target=reap, daemon=True).start()
        """,
    "thousands of descriptors are open, and low ones free": """
        import resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 12000), hard))
        kept = [os.open("/dev/null", 0) for _ in range(min(hard, 12000) - 500)]
        os.closerange(3, 10)
        """,
    "all signals are blocked, SIGCHLD is ignored, warnings are errors": """
        import signal, warnings, gc
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        warnings.simplefilter("error")
        gc.disable()
        """,
    "the recursion limit is near": "sys.setrecursionlimit(150)",
    "stdout is a string, and sys.path and argv are odd": """
        import io
        sys.stdout = io.StringIO()
        sys.path += ["", "/nosuch", "rel", "/tmp/x.zip", "/\\udcff"]
        sys.argv[:] = []
        os.environ["HOME"] = "/nosuch/home"
        """,
    "stdout is gone": "sys.stdout = sys.stderr = None",
    "it is a fork of one that has used the library": """
        kept = Sandbox().open()
        kept.run(["true"]), kept.call(len, "")
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            assert kept.run(["true"]).returncode == 0
            sys.exit(0)
        """,
    "a profiler and a tracer watch": """
        import locale
        locale.setlocale(locale.LC_ALL, "C")
        sys.setprofile(lambda *_: None)
        sys.settrace(lambda *_: None)
        """,
    "a switch comes all the time": "sys.setswitchinterval(1e-6)",
}


@pytest.mark.parametrize("how", BEFORE)
def test_a_box_starts_where(how, caller):
    assert caller(before=BEFORE[how]) == FINE


ENVIRONMENTS = {
    "nothing": {"HOME": None, "PATH": None, "LANG": None, "TMPDIR": None},
    "bytes": {"ODD\udcff": "\udcfe", "HOME": "/tmp/\udcff", "LD_LIBRARY_PATH": "/nosuch"},
    "ascii": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "optimised": {"PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "1", "BASH_ENV": "/nosuch"},
}


@pytest.mark.parametrize("how", ENVIRONMENTS)
def test_an_environment_neither_hinders_a_box_nor_enters_it(how, caller):
    code = """
    done = Sandbox().run(["env"], capture_output=True)
    names = {line.split(b"=")[0] for line in done.stdout.splitlines()}
    found = sorted(Sandbox().call(lambda: list(os.environ)))
    open(result, "w").write(repr((sorted(names), found)))
    """
    names = ["HOME", "LANG", "PATH", "TMPDIR"]
    assert caller(code, env=ENVIRONMENTS[how]) == repr(([n.encode() for n in names], names))


def test_output_without_a_stream_of_ours_goes_nowhere_and_to_no_other_file(caller, tmp_path):
    """With 1 and 2 closed those numbers are files that the library has opened meanwhile."""
    code = """
    done = Sandbox().run(["sh", "-c", "echo out; echo err >&2"])
    value = Sandbox().call(print, "from a call")
    open(result, "w").write(repr((done.returncode, value)))
    """
    assert caller(code, shell="exec 1>&- 2>&-") == "(0, None)"


def test_too_few_descriptors_are_told_by_name(caller):
    code = """
    try:
        Sandbox().run(["true"])
    except LaunchError as error:
        open(result, "w").write(str(error))
    """
    assert "EMFILE" in caller(code, shell="ulimit -n 12")


def test_a_tight_umask_does_not_reach_inside(caller):
    code = """
    done = Sandbox(files={"a": "1"}).run(["sh", "-c", "umask; cat a"], capture_output=True)
    open(result, "w").write(repr(done.stdout))
    """
    assert caller(code, shell="umask 0777") == repr(b"0022\n1")


def test_odd_paths_are_read_and_written_as_they_are(tmp_path):
    from isolate import Sandbox

    for name in (b"sp ace", b"\xff\xfe", b"new\nline", b"a:b,c\\d", b"'q\"", b"%s{}$HOME"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        path = os.fsdecode(folder)
        script = 'echo hi > "$1/file"; cat "$1/file"; pwd'
        done = Sandbox(write=[path], cwd=path).run(
            ["sh", "-c", script, "sh", folder], capture_output=True
        )
        assert done.stdout == b"hi\n" + folder + b"\n", done
        assert Sandbox(read=[path]).call(os.listdir, path) == ["file"]


def test_a_name_that_is_no_utf8_comes_back_as_bytes(tmp_path):
    from isolate import Sandbox

    (tmp_path / os.fsdecode(b"\xff")).touch()
    box = Sandbox(read=[str(tmp_path)])
    assert box.call(os.listdir, os.fsencode(tmp_path)) == [b"\xff"]
    with pytest.raises(ValueError, match="fsencode"):
        box.call(os.listdir, str(tmp_path))


@pytest.mark.needs("root")
def test_without_proc_the_reason_is_told(caller):
    code = """
    try:
        Sandbox().run(["true"])
    except IsolateError as error:
        open(result, "w").write(f"{type(error).__name__}: {error}")
    """
    shell = 'umount -l /proc && exec "$0" "$@"'
    found = caller(code, shell=f"exec unshare -m sh -c '{shell}' \"$0\" \"$@\"")
    assert "/proc" in found
    assert found.startswith(("HostLacks", "LaunchError"))


@pytest.mark.needs("root")
def test_a_read_only_tmp_is_no_hindrance(caller, tmp_path):
    place = "/mnt" if sys.prefix.startswith("/var/tmp") else "/var/tmp"  # not over the interpreter
    shell = f'mount -t tmpfs -o ro none {place}; mount -o bind,ro /dev/shm /dev/shm; exec "$0" "$@"'
    assert caller(shell=f"exec unshare -m sh -c '{shell}' \"$0\" \"$@\"") == FINE
