# SPDX-License-Identifier: Apache-2.0
"""A real systemd, pid 1 of a container in the VM: scopes that it makes for root and for users."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("systemd", "root")
HOME = {"root": "/root", "ordinary": "/home/ordinary"}
# A unit of systemd's that is not delegated, as a login's session or a service is.
AS = {
    "root": ["systemd-run", "-q", "--wait", "--pipe"],
    "ordinary": [
        "systemd-run", "-q", "--wait", "--pipe", "--slice=user-1000.slice", "--uid=1000",
        "--gid=1000", "-E", "XDG_RUNTIME_DIR=/run/user/1000",
    ],
}  # fmt: skip
SHOW = {"root": ["systemctl", "show"], "ordinary": ["systemctl", "--user", "show"]}
START = """
import json, os, subprocess, sys
from isolate import HostLacks, LimitHit, Sandbox

def own():
    return open("/proc/self/cgroup").read().strip().removeprefix("0::")

told = {"before": own()}
"""
LIMITS = """
show = sys.argv[1:]
eat = [sys.executable, "-I", "-S", "-c", "b = bytearray(96 << 20)\\nb[::4096] = b[::4096]"]
fork = [sys.executable, "-I", "-S", "-c",
        "import os, time\\nn = 1\\ntry:\\n    while n < 40:\\n        if os.fork() == 0:\\n"
        "            time.sleep(60); os._exit(0)\\n        n += 1\\n"
        "except OSError:\\n    pass\\nprint(n)"]
over = Sandbox(mem="32M", timeout=90).run(eat).outcome
told["memory"] = [over.limit, over.ceiling, over.whose] if isinstance(over, LimitHit) else str(over)
told["below"] = Sandbox(mem="128M", timeout=90).run(eat).returncode
told["pids"] = Sandbox(pids=9, timeout=90).run(fork, capture_output=True).stdout.decode().strip()
spin = [sys.executable, "-I", "-S", "-c",
        "import time\\nend = time.time() + 3\\nwhile time.time() < end: pass"]
usage = Sandbox(cpu=0.5, timeout=90).run(spin).usage
told["cpu"] = usage.cpu / usage.wall
told["after"] = own()
unit = next(part for part in told["after"].split("/") if part.startswith("isolate-"))
told["unit"] = unit
told["show"] = subprocess.run([*show, unit], capture_output=True, text=True).stdout
print(json.dumps(told))
"""


def ask(user, code, *arguments, before=()):
    """What a Python program prints as JSON, started by systemd for a user."""
    argv = [*AS[user], "--working-directory=/srv/isolate", "-E", f"HOME={HOME[user]}", *before]
    done = subprocess.run(
        [*argv, sys.executable, "-B", "-c", START + code, *arguments],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("user", ["root", "ordinary"])
def test_systemd_gives_us_a_delegated_scope_in_which_limits_hold(user):
    told = ask(user, LIMITS, *SHOW[user])
    assert "isolate-" not in told["before"]
    assert told["after"].endswith(f"/{told['unit']}/isolate.self")
    assert re.fullmatch(r"isolate-\d+-[0-9a-f]{8}\.scope", told["unit"])
    if user == "ordinary":
        assert "/user@1000.service/" in told["after"]
    properties = dict(line.split("=", 1) for line in told["show"].splitlines() if "=" in line)
    assert properties["Delegate"] == "yes"
    assert properties["Transient"] == "yes"
    assert properties["ActiveState"] == "active"
    assert told["memory"] == ["memory", 32 << 20, "box"]
    assert (told["below"], told["pids"]) == (0, "9")
    assert 0.3 < told["cpu"] < 0.7  # emulated processors
    assert not list(Path("/sys/fs/cgroup").rglob("isolate-*"))  # it went with its process


DELEGATED = """
done = Sandbox(mem="64M", timeout=90).run(["cat", "/proc/self/cgroup"], capture_output=True)
told.update(inside=done.stdout.decode(), after=own())
print(json.dumps(told))
"""


def test_a_unit_that_is_delegated_already_needs_no_scope():
    told = ask("root", DELEGATED, before=["-p", "Delegate=yes"])
    assert told["after"] == f"{told['before']}/isolate.self"
    assert told["inside"] == "0::/\n"


LACKS = """
sys.modules["jeepney"] = None
import importlib.util
importlib.util.find_spec = lambda name: None
try:
    Sandbox(mem="64M").run(["true"])
    told["lacks"] = ""
except HostLacks as error:
    told["lacks"] = str(error)
from isolate import doctor
told["rungs"] = {each.name: [each.ok, each.why, each.cure] for each in doctor()}
told["after"] = own()
print(json.dumps(told))
"""


def test_without_the_extra_the_command_is_told_and_it_works():
    told = ask("ordinary", LACKS)
    assert told["after"] == told["before"]  # nothing was moved
    command = re.search(r"(systemd-run --user --scope -p Delegate=yes) -- PROGRAM", told["lacks"])
    assert command, told["lacks"]
    ok, why, cure = told["rungs"]["cgroup: systemd scope"]
    assert not ok
    assert "jeepney is not installed" in why
    assert cure == "pip install 'isolate-linux[systemd]'"
    ok, why, cure = told["rungs"]["cgroup: v2 cgroup of ours"]
    assert (ok, cure) == (False, f"{command[1]} -- PROGRAM")
    assert "not writable" in why
    scope = ask("ordinary", DELEGATED, before=command[1].split())
    assert scope["before"] != scope["after"].removesuffix("/isolate.self") or scope["inside"]
    assert scope["after"] == f"{scope['before']}/isolate.self"
    assert scope["inside"] == "0::/\n"


CPUSET = """
try:
    done = Sandbox(cpus="1", timeout=90).run(
        [sys.executable, "-I", "-S", "-c", "import os; print(os.sched_getaffinity(0))"],
        capture_output=True)
    told["inside"] = done.stdout.decode().strip()
except HostLacks as error:
    told["lacks"] = str(error)
print(json.dumps(told))
"""


def test_a_controller_that_users_are_not_given_is_told_with_the_command_that_gives_it():
    told = ask("ordinary", CPUSET)
    command = re.search(r"sudo (sh -c '.*?'); or weaken", told["lacks"])
    assert command, told["lacks"]
    try:
        subprocess.run(command[1], shell=True, check=True, timeout=120)
        assert ask("ordinary", CPUSET).get("inside") == "{1}"
    finally:
        Path("/etc/systemd/system/user@.service.d/delegate.conf").unlink()
