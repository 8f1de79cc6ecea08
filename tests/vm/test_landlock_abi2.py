# SPDX-License-Identifier: Apache-2.0
"""Landlock of Linux 6.1: ABI 2, which has no truncate, no ioctl_dev, no ports and no scopes."""

import os

import pytest

from isolate import Guarantee, HostLacks, Landlock, Policy, Sandbox
from isolate.host.probe import probe
from tests.live.test_landlock import GROUND, TRIES, bare, furnished

pytestmark = pytest.mark.needs("landlock", "vm")


def test_the_guest_s_level_is_two():
    assert probe().landlock == 2


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Landlock(write=["/tmp"]), "truncate, ioctl_dev"),
        (Landlock(tcp_bind=[80]), "bind_tcp"),
        (Landlock(tcp_connect=()), "connect_tcp"),
        (Landlock(scope="signal"), "signal"),
        (Landlock(scope="abstract_unix_socket"), "abstract_unix_socket"),
        (Landlock(read=["/"], log="new_exec_on"), "log new_exec_on"),
    ],
)
def test_more_than_that_is_refused_by_its_exact_names(wanted, names):
    with pytest.raises(HostLacks) as caught:
        bare([wanted], ["true"])
    assert caught.value.what == "landlock"
    assert caught.value.why == f"the kernel's Landlock has level 2; not enforced: {names}"


def test_weakened_it_says_what_is_not_enforced_and_enforces_the_rest(disk_path):
    tmp_path = disk_path
    inner, outer = furnished(tmp_path / "in"), furnished(tmp_path / "out")
    rules = Landlock(read=[*GROUND["read"], inner], write=[inner, "/dev/null"], scope="signal")
    box = Sandbox(write=[inner, outer], landlock=rules, weaken={"landlock"})
    script = TRIES + f"print((tries({str(inner)!r}), tries({str(outer)!r})))"
    done = box.run(["python3", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    granted, refused = eval(done.stdout, {})
    assert set(granted.values()) == {"yes"}
    assert refused.pop("truncate") == "yes"  # what the guarantee says
    assert set(refused.values()) == {"EACCES"}
    why = "the kernel's Landlock has level 2; not enforced: truncate, ioctl_dev, signal"
    assert Guarantee("landlock", "weakened", why) in done.guarantees


def test_the_level_may_be_written():
    done = bare([Landlock(write=["/tmp"], level=2)], ["true"])
    assert done.returncode == 0
    assert Policy(Landlock(write=["/tmp"], level=2)).get(Landlock).needs == 2


def test_the_view_is_held_at_that_level_and_says_so():
    done = Sandbox().run(["true"])
    [held] = [g for g in done.guarantees if g.name == "landlock"]
    assert held.verdict == "enforced"
    assert "level 2; unknown to it: truncate, ioctl_dev, bind_tcp, connect_tcp" in held.by
    assert os.path.exists("/proc/self/ns/user")
