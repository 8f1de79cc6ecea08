"""What the tests of single primitives share: bare ones, as root and as an ordinary user."""

import os
import subprocess
import sys
import time

import isolate
from isolate import Namespace
from isolate.host.probe import probe

# A container's root has no rights over its namespaces: it is like an ordinary user in that.
ROOT = os.geteuid() == 0 and probe().sys_admin


def bare(**kinds):
    """New namespaces; an ordinary user's need a user namespace."""
    return Namespace(**kinds) if ROOT else Namespace(user=True, **kinds)


def out(run, script, code=0):
    """What a shell inside prints."""
    done = run(["sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout


def status(run):
    """/proc/self/status inside, by name."""
    return dict(
        line.split(":\t", 1) for line in out(run, "cat /proc/self/status").splitlines()
    )


def reclaimed():
    """A new process starts a box, by which it takes away what a killed caller left."""
    where = os.path.dirname(os.path.dirname(isolate.__file__))
    script = f"import sys; sys.path.insert(0, {where!r})\nfrom isolate import Sandbox"
    argv = [sys.executable, "-c", f"{script}\nSandbox().run(['/bin/true'])"]
    subprocess.run(argv, check=True, timeout=60)
    parent, root = os.environ["ISOLATE_CGROUP_PARENT"], "/sys/fs/cgroup"
    places = os.listdir(root) if os.path.isdir(root) else []
    end = time.monotonic() + 10
    while any(os.path.exists(f"{root}/{each}/{parent}") for each in places):
        assert time.monotonic() < end
        time.sleep(0.02)
