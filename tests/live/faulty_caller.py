"""Starts whose n-th call of one kind fails in the caller itself: strace(1) makes it fail.

`python faulty_caller.py ROUTE list` prints how often each call is made, as JSON;
`python faulty_caller.py ROUTE CALL:N:ERRNO...` prints what came of each, a line a case.
"""

import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from isolate import IsolateError, LaunchError, Sandbox
from isolate.supervise.template import TEMPLATES

PR_SET_PTRACER = 0x59616D61
HERE = os.getcwd()


def state():
    """What must be as before."""
    links = []  # not by number: a fork opens some of the library's descriptors anew
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # the listing's own
    parent = os.environ.get("ISOLATE_CGROUP_PARENT", "isolate-none")
    return {
        "fds": sorted(to for to in links if "/proc/" not in to),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        "leaves": sorted(map(str, Path("/sys/fs/cgroup").glob("*/" + parent + "/isolate-*"))),
    }


def policy():
    """As many kinds of steps as one start can have."""
    limits = {"mem": "64M"} if os.geteuid() == 0 else {}
    return Sandbox(write=[HERE], files={"x": b"1"}, **limits)


def start(route):
    """One start, or one program in a live box. Its end as text."""
    if route == "run":
        return repr(policy().run(["/bin/true"], timeout=20).outcome)
    with policy() as box:
        if route == "pty":
            with box.popen(["/bin/true"], pty=True) as program:
                return repr(program.wait(20))
        return repr(box.run(["/bin/echo", "x"], capture_output=True, timeout=20).outcome)


def attempt(route):
    """What came of it, as data."""
    try:
        return {"outcome": start(route)}
    except LaunchError as error:
        found = {"error": "LaunchError", "step": error.step, "errno": error.errno}
        return {**found, "about": error.op.about, "origin": str(error.origin)[:60]}
    except IsolateError as error:
        return {"error": type(error).__name__, "text": str(error)}
    except BaseException as error:
        where = traceback.format_tb(error.__traceback__)[-3:]
        return {"error": type(error).__name__, "text": repr(error), "bare": True, "where": where}


def told(fd, result):
    """Send the report; the fault may hit this write, but only once."""
    data = json.dumps(result).encode()
    for _ in range(2):
        try:
            os.write(fd, data)
            return
        except OSError:
            continue


def child(route, ready_fd, report_fd):
    """Wait for the tracer, and start. The wait is by a call that nothing else makes: it may be
    begun again when the tracer comes, and counts then."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    signal.alarm(40)  # a case that hangs gives no report
    before = state()
    os.write(ready_fd, b"r")
    signal.sigwait([signal.SIGUSR1])
    os.getppid()
    result = attempt(route)
    os.getppid()
    # The next one works, and takes away stale leaves. Only one call fails, but which start makes
    # the last of its kind is the scheduler's choice.
    again = attempt(route)
    if "error" in again and "error" not in result:
        again = attempt(route)
    if "error" in again:
        result["again"] = again
    TEMPLATES.kept.clear()
    gc.collect()
    result["left"] = [key for key, value in state().items() if value != before[key]]
    told(report_fd, result)


def traced(route, options, log=None):
    """Fork a caller, trace it, and have it start. Its report."""
    ready, report = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(route, ready[1], report[1])
        finally:
            os._exit(0)
    os.close(report[1])
    os.read(ready[0], 1)
    argv = ["strace", "-qq", "-o", log or "/dev/null", *options, "-p", str(pid)]
    tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0\n" in status.read_text() and tracer.poll() is None:
        pass
    while "\nState:\tt" in status.read_text():  # until it is let go on
        pass
    os.kill(pid, signal.SIGUSR1)
    with os.fdopen(report[0], "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    tracer.wait()
    for fd in ready:
        os.close(fd)
    return json.loads(data) if data else {"error": "no report", "bare": True}


def counted(route):
    """How often the caller's own thread makes each call."""
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        found = traced(route, [], log)
        assert "error" not in found, found
        lines = Path(log).read_text().splitlines()
    marks = [n for n, line in enumerate(lines) if line.startswith("getppid(")]
    names = [line.partition("(")[0] for line in lines[marks[0] + 1 : marks[1]] if "(" in line]
    return Counter(names)


def main():
    route, *cases = sys.argv[1:]
    assert "error" not in attempt(route)  # everything is loaded, and works
    TEMPLATES.kept.clear()  # so that the mount tree is made again
    gc.collect()
    gc.disable()
    if cases == ["list"]:
        print(json.dumps(counted(route)))
        return
    for case in cases:
        name, nth, word = case.split(":")
        options = ["-e", f"trace={name}", "-e", f"inject={name}:error={word}:when={nth}"]
        print(json.dumps({"case": case, **traced(route, options)}), flush=True)


if __name__ == "__main__":
    main()
