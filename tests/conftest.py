# SPDX-License-Identifier: Apache-2.0
"""Features that a test needs, and the proof that nothing is left behind."""

from __future__ import annotations

import ctypes.util
import faulthandler
import glob
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest

from isolate.host.probe import probe

os.environ.setdefault("ISOLATE_CGROUP_PARENT", f"isolate-test-{os.getpid()}")


def has_controller(name: str) -> bool:
    return any(
        line.split()[2] == "cgroup"
        and name in line.split()[3].split(",")
        and os.access(line.split()[1], os.W_OK)
        for line in Path("/proc/mounts").read_text().splitlines()
    )


def text_of(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def cgroup2_is_ours() -> bool:
    """Alone, with the controllers, and with a place of ours: root's, or one that was delegated."""
    own = text_of("/proc/self/cgroup").removeprefix("0::/")
    return (
        "memory" in text_of("/sys/fs/cgroup/cgroup.controllers").split()
        and os.access(f"/sys/fs/cgroup/{own}", os.W_OK)
        and not own.startswith("..")
    )


def installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def may_make_devices() -> bool:
    """CAP_MKNOD in the machine's own user namespace, and no list that forbids it."""
    with tempfile.TemporaryDirectory() as place:
        try:
            os.mknod(f"{place}/log", 0o020600, os.makedev(1, 11))
            os.close(os.open(f"{place}/log", os.O_RDONLY | os.O_NONBLOCK))
        except OSError:
            return False
    return True


SBIN = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"


def landlock_level() -> int:
    from isolate.host.lsm import landlock

    return landlock()[0]


TEST_DATA = Path(
    os.environ.get("ISOLATE_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared/data"
)
UNIFIED = "/sys/fs/cgroup/unified/cgroup.controllers"
NESTED = ("docker", "podman", "unfiltered", "unmasked", "bwrap", "bwrap-root")
FEATURES = {
    "nested": lambda: os.environ.get("ISOLATE_NESTED") in NESTED,
    # write= and read= of a root that may idmap: a container's may not
    "idmap": lambda: os.geteuid() != 0 or probe().idmap and probe().sys_admin,
    "root": lambda: os.geteuid() == 0,
    "unprivileged": lambda: os.geteuid() != 0,
    "userns": lambda: os.path.exists("/proc/self/ns/user"),
    "pidns": lambda: os.path.exists("/proc/self/ns/pid"),
    "cgroup1": lambda: os.geteuid() == 0 and has_controller("memory"),
    "mknod": may_make_devices,
    "devices1": lambda: has_controller("devices"),
    "hybrid": lambda: has_controller("memory") and "pids" in text_of(UNIFIED).split(),
    "systemd": lambda: os.path.isdir("/run/systemd/system") and "ISOLATE_VM" in os.environ,
    "cgroup2": cgroup2_is_ours,
    "cgroup": lambda: FEATURES["cgroup1"]() or cgroup2_is_ours(),
    "apparmor": lambda: text_of("/sys/module/apparmor/parameters/enabled") == "Y",
    "gcc": lambda: shutil.which("gcc") is not None,
    "strace": lambda: shutil.which("strace") is not None,
    "git": lambda: shutil.which("git") is not None,
    "sqlite3": lambda: shutil.which("sqlite3") is not None,
    "testdata": lambda: (TEST_DATA / "moby-seccomp").is_dir(),
    "podman": lambda: os.path.exists("/usr/share/containers/seccomp.json"),
    "x86_64": lambda: os.uname().machine == "x86_64",
    "libseccomp": lambda: ctypes.util.find_library("seccomp") is not None,
    "cross-headers": lambda: os.path.isdir("/usr/aarch64-linux-gnu/include"),
    "loop": lambda: os.path.exists("/dev/loop-control"),
    "mksquashfs": lambda: shutil.which("mksquashfs") is not None,
    "numpy": lambda: installed("numpy"),
    "vm": lambda: "ISOLATE_VM" in os.environ,
    "landlock": lambda: landlock_level() >= 1,
    "landlock4": lambda: landlock_level() >= 4,
    "landlock6": lambda: landlock_level() >= 6,
    "landlock7": lambda: landlock_level() >= 7,
    "apparmor_parser": lambda: shutil.which("apparmor_parser", path=SBIN) is not None,
}
LONG = "600" if os.environ.get("ISOLATE_VM") else "120"
SECONDS = float(os.environ.get("ISOLATE_TEST_SECONDS", LONG))  # more for ISOLATE_MANY and _KILLS
MUST = set(filter(None, os.environ.get("ISOLATE_MUST_WORK", "").split(",")))


def pytest_runtest_setup(item):
    for mark in item.iter_markers("needs"):
        for feature in mark.args:
            if FEATURES[feature]():
                continue
            # Opposites exclude each other: a leg names the one that it is.
            if feature in MUST:
                pytest.fail(f"{feature} is missing, and ISOLATE_MUST_WORK names it")
            pytest.skip(f"needs {feature}")


@pytest.fixture(autouse=True)
def in_time():
    """A test that hangs shows where, and ends the run."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def processes() -> set[str]:
    """Children of this process, and every isolate-init."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(errors="replace")
        except OSError:
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        parent = int(text[text.rindex(")") + 2 :].split()[1])
        if parent == os.getpid() or (name == "isolate-init" and parent == os.getpid()):
            found.add(f"{stat.parent.name} {name}")
    return found


def leaves() -> set[str]:
    """cgroups of this test run."""
    parent = os.environ["ISOLATE_CGROUP_PARENT"]
    patterns = (f"{parent}*", f"*/{parent}*", f"*/*/{parent}*")
    # Unlike pathlib's, this one goes on where somebody else's directory vanishes under it.
    return {path for each in patterns for path in glob.glob(f"/sys/fs/cgroup/{each}")}


def descriptors() -> dict[str, str]:
    """Our open files, but for those that the library keeps for the life of the process."""
    from isolate.supervise.template import TEMPLATES

    kept = {str(template.fd) for template in TEMPLATES.kept.values()}
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        if fd in kept:
            continue
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if "pidfd" in target or target.endswith("isolate-init") or target == "/dev/null":
            continue
        if target.startswith(("/proc", "/dev/pts", "/tmp/tmp", "mnt:")):  # mnt: templates
            continue
        found[fd] = target
    return found


def state() -> dict[str, object]:
    mounts = Path("/proc/self/mountinfo").read_text()
    return {
        "processes": processes(),
        "cgroups": leaves(),
        "mounts": mounts,
        "fds": descriptors(),
        "threads": {thread.name for thread in threading.enumerate()},
        "tmp": {name for name in os.listdir("/tmp") if name.startswith("isolate")},
    }


@pytest.fixture(autouse=True)
def nothing_left(request):
    """Law 8, after every live test."""
    if request.node.path.parent.name not in ("live", "vm", "legacy"):
        yield
        return
    before = state()
    yield
    end = time.monotonic() + 2
    while (after := state()) != before and time.monotonic() < end:
        time.sleep(0.01)
    assert after == before
