"""A caller for `test_faults.py`: one system call fails for it and all that it starts.

`python faulty.py CALL ERRNO ROUTE`; prints what came of it as JSON.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

from isolate import Errno, IsolateError, LaunchError, Rule, Sandbox
from isolate.abi.syscalls import numbers
from isolate.plan.bpf.assemble import assemble
from isolate.policy.rules import ALLOW, Layer
from isolate.supervise.template import TEMPLATES

HERE = os.getcwd()
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def break_call(name, number):
    """From now on the call fails, here and in every process that is started."""
    layer = Layer((Rule(name, Errno(number)),), ALLOW)
    code = assemble(layer, os.uname().machine)
    libc = ctypes.CDLL(None, use_errno=True)
    program = Program(len(code) // 8, code)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    done = libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
    assert done == 0, ctypes.get_errno()


def state():
    """What must be as before."""
    numbers = [fd for fd in os.listdir("/proc/self/fd") if alive(fd)]
    fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in numbers}
    return {
        "fds": sorted((fd, target) for fd, target in fds.items() if "/proc/" not in target),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        "leaves": sorted(map(str, Path("/sys/fs/cgroup").glob("*/" + parent() + "/*"))),
    }


def parent():
    return os.environ.get("ISOLATE_CGROUP_PARENT", "isolate-none")


def alive(fd):
    return os.path.lexists(f"/proc/self/fd/{fd}")


def attempt(route):
    """One start. Its end, as data."""
    limits = {"mem": "64M"} if os.geteuid() == 0 else {}
    try:
        box = Sandbox(write=[HERE], files={"x": b"1"}, **limits)
        if route == "call":
            return {"value": box.call(sum, [1, 2])}
        done = box.run(["/bin/true"], timeout=20)
        return {"returncode": done.returncode, "outcome": repr(done.outcome)}
    except LaunchError as error:
        found = {"error": "LaunchError", "step": error.step, "errno": error.errno}
        return {**found, "about": error.op.about, "origin": str(error.origin)[:60]}
    except IsolateError as error:
        return {"error": type(error).__name__, "text": str(error)}
    except BaseException as error:
        return {"error": type(error).__name__, "text": str(error), "bare": True}


def late(name, number):
    """A call that begins to fail while a program runs."""

    def break_it(*_):
        break_call(name, number)

    with Sandbox() as box:
        signal.signal(signal.SIGALRM, break_it)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            box.run(["/bin/sleep", "30"])
        except IsolateError as error:
            found = {"error": type(error).__name__, "errno": error.errno, "text": str(error)}
        except BaseException as error:
            found = {"error": type(error).__name__, "bare": True}
        end = time.monotonic() + 10
        while (ended := sleepers()) and time.monotonic() < end:
            time.sleep(0.01)
        found["alive"] = ended
    return found


def sleepers():
    """Descendants of ours that sleep."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"/bin/sleep\x0030\0":
                found += [path.parent.name] if below(path.parent) else []
        except OSError:
            continue
    return found


def below(path):
    """Whether we are among its ancestors."""
    pid = path.name
    while pid not in ("0", "1"):
        text = Path(f"/proc/{pid}/stat").read_text()
        pid = text[text.rindex(")") + 2 :].split()[1]
        if int(pid) == os.getpid():
            return True
    return False


def main():
    name, number, route = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    assert name in numbers(os.uname().machine)
    assert "error" not in attempt(route)  # everything is loaded, and works
    TEMPLATES.kept.clear()  # so that the mount tree is made again
    before = state()
    if route == "late":
        result = late(name, number)
    else:
        break_call(name, number)
        result = attempt(route)
    TEMPLATES.kept.clear()
    result["left"] = [key for key, value in state().items() if value != before[key]]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
