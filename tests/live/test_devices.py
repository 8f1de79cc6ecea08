# SPDX-License-Identifier: Apache-2.0
"""`CgroupLimit.devices`: on v1 the kernel's own list, elsewhere nodev mounts; from inside."""

import os
import stat
import sys

import pytest

from isolate import CgroupLimit, HostLacks, Mount, Sandbox, run
from isolate.abi.cgroup import PRIVATE_DEVICES
from tests.live.cgroups import SECONDS, leaf_of

PYTHON = [sys.executable, "-I", "-S", "-c"]
OPEN = """
import os, sys
for path in sys.argv[1:]:
    for mode, flags in (("r", os.O_RDONLY), ("w", os.O_WRONLY), ("rw", os.O_RDWR)):
        try:
            os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
            print(path, mode)
        except OSError as error:
            print(path, mode, error.strerror)
"""
MAKE = """
import os, stat, sys
try:
    os.mknod(sys.argv[1], stat.S_IFCHR | 0o600, os.makedev(1, 5))
    print("made")
except OSError as error:
    print(error.strerror)
"""


def opened(done):
    """What could be opened, and how."""
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    return {tuple(words) for words in lines if len(words) == 2}


@pytest.fixture
def node(tmp_path):
    """A device that no private /dev holds (the kernel's log), which anybody may open."""
    path = tmp_path / "kmsg"
    os.mknod(path, stat.S_IFCHR, os.makedev(1, 11))
    os.chmod(path, 0o666)
    return str(path)


@pytest.mark.needs("cgroup1", "root", "devices1", "mknod")
class TestOnV1:
    def test_without_a_list_root_opens_what_it_likes(self, node):
        with CgroupLimit(pids=20):
            assert (node, "r") in opened(run([*PYTHON, OPEN, node], capture_output=True))

    def test_with_a_list_only_what_a_private_dev_holds_may_be_opened(self, node):
        names = [f"/dev/{each}" for each in ("null", "zero", "full", "random", "urandom")]
        with CgroupLimit(devices=()):
            found = opened(run([*PYTHON, OPEN, *names, node], capture_output=True))
        assert found == {(name, mode) for name in names for mode in ("r", "w", "rw")}

    def test_a_device_that_is_asked_for_is_opened_as_it_was_asked_for(self, node):
        with CgroupLimit(devices=["c 1:11 r"]):
            assert opened(run([*PYTHON, OPEN, node], capture_output=True)) == {(node, "r")}
        with CgroupLimit(devices=["c 1:* w"]):
            assert opened(run([*PYTHON, OPEN, node], capture_output=True)) == {(node, "w")}

    def test_no_node_can_be_made_but_with_the_right_to(self, tmp_path):
        path = str(tmp_path / "made")
        with CgroupLimit(devices=()):
            refused = run([*PYTHON, MAKE, path], capture_output=True)
        assert refused.stdout == b"Operation not permitted\n"
        assert not os.path.exists(path)
        with CgroupLimit(devices=["c 1:5 m"]):
            assert run([*PYTHON, MAKE, path], capture_output=True).stdout == b"made\n"

    def test_the_list_is_in_the_leaf_as_it_was_asked_for(self):
        limit = CgroupLimit(devices=["b 8:* r", "c 10:229 rwm"])
        with Sandbox(limit, timeout=SECONDS) as box:
            held = leaf_of(box).read("devices.list").splitlines()
            assert sorted(held) == sorted([*PRIVATE_DEVICES, "b 8:* r", "c 10:229 rwm"])

    def test_a_box_with_a_list_still_has_terminals_and_randomness(self):
        with Sandbox(CgroupLimit(devices=()), timeout=SECONDS) as box:
            code = (
                "import os, pty\nmaster, slave = pty.openpty()\nos.write(slave, b'x')\n"
                "print(os.read(master, 1), len(open('/dev/urandom', 'rb').read(9)))"
            )
            assert box.run([*PYTHON, code], capture_output=True).stdout == b"b'x' 9\n"

    def test_what_a_cgroup_above_forbids_is_refused_by_name(self):
        import isolate.supervise.cgroupfs as made

        mount = made.mounts()["devices"]
        place = f"{mount}/{os.environ['ISOLATE_CGROUP_PARENT']}"
        os.mkdir(place)
        try:
            with open(f"{place}/devices.deny", "w") as file:
                file.write("c 1:11 rwm")
            limit = CgroupLimit(devices=["c 1:11 r"])
            with pytest.raises(HostLacks, match=r"devices\.allow"), limit:
                run(["true"])
            with CgroupLimit(devices=()):
                assert run(["true"]).returncode == 0
        finally:
            if os.path.isdir(place):
                os.rmdir(place)


@pytest.mark.needs("root", "mknod")
def test_a_device_that_is_bound_into_a_box_can_not_be_opened(tmp_path):
    """What replaces the list where there is none: no mount but the private /dev has devices."""
    zero = tmp_path / "zero"
    os.mknod(zero, stat.S_IFCHR, os.makedev(1, 5))
    zero.chmod(0o666)
    box = Sandbox(Mount.bind(str(zero), "/zero"), timeout=SECONDS)
    found = box.run([*PYTHON, OPEN, "/dev/zero", "/zero"], capture_output=True)
    assert opened(found) == {("/dev/zero", mode) for mode in ("r", "w", "rw")}
    assert b"/zero r Permission denied" in found.stdout
    made = box.run([*PYTHON, MAKE, "/tmp/made"], capture_output=True)
    assert made.stdout == b"Operation not permitted\n"
