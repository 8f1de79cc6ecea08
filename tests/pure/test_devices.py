# SPDX-License-Identifier: Apache-2.0
"""Lists of devices: one form for one meaning, and what two of them allow together."""

import itertools
import os

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import CgroupLimit, HostLacks, Policy, PolicyError, Sandbox
from isolate.abi.cgroup import PRIVATE_DEVICES
from isolate.plan.compile import compile_box
from isolate.plan.lower.mount import DEVICES
from isolate.plan.model import Verdict
from isolate.policy.devices import canonical, device_rules, narrow_devices, parse
from isolate.supervise import cgroup_v1, cgroup_v2
from tests import hosts
from tests.pure.test_cgroup_limit import DEVICE_RULES

LISTS = st.lists(DEVICE_RULES, max_size=5)
# More numbers than rules can name one by one, so that a "*" is told from what is named.
MACHINE = list(itertools.product("bc", ("1", "8", "10", "77"), ("0", "3", "229", "555"), "rwm"))


def allows(rules, device):
    """What a list of rules lets be done, said without the code that is tested."""
    kind, major, minor, right = device
    for rule in rules:
        head, numbers, rights = rule.split()
        there, number = numbers.split(":")
        if head == kind and there in (major, "*") and number in (minor, "*") and right in rights:
            return True
    return False


def meaning(rules):
    """Every device of a small machine, with what may be done to it."""
    return {device for device in MACHINE if allows(rules, device)}


@settings(deadline=None, max_examples=300)
@given(LISTS)
def test_the_one_form_means_what_was_written(rules):
    found = device_rules(rules)
    assert meaning(found) == meaning([*PRIVATE_DEVICES, *rules])
    assert device_rules(found) == found
    assert device_rules(reversed(found)) == found


@settings(deadline=None, max_examples=300)
@given(LISTS, LISTS)
def test_two_lists_that_mean_the_same_are_equal(a, b):
    assert (device_rules(a) == device_rules(b)) == (
        meaning(device_rules(a)) == meaning(device_rules(b))
    )


@settings(deadline=None, max_examples=300)
@given(LISTS, LISTS)
def test_two_lists_allow_together_what_both_allow(a, b):
    one, other = device_rules(a), device_rules(b)
    found = narrow_devices(one, other)
    assert meaning(found) == meaning(one) & meaning(other)
    assert found == narrow_devices(other, one)
    assert narrow_devices(found, one) == found


def test_no_list_allows_everything():
    rules = device_rules(["c 10:229 rw"])
    assert narrow_devices(None, rules) == narrow_devices(rules, None) == rules
    assert narrow_devices(None, None) is None


def test_what_a_private_dev_holds_is_always_in_the_list():
    assert CgroupLimit(devices=()).devices == tuple(sorted(PRIVATE_DEVICES))
    assert CgroupLimit().devices is None


def test_the_private_devices_are_those_that_are_mounted():
    """By the kernel's own numbers for the names (Documentation/admin-guide/devices.txt)."""
    numbers = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
    named = [f"c 1:{numbers[name]} rw" for name in DEVICES if name != "tty"]
    assert sorted(PRIVATE_DEVICES) == sorted([*named, "c 5:0 rw", "c 5:2 rw", "c 136:* rw"])


@pytest.mark.parametrize("name", DEVICES)
def test_this_machine_numbers_them_so(name):
    seen = os.stat(f"/dev/{name}").st_rdev
    assert f"c {os.major(seen)}:{os.minor(seen)} rw" in PRIVATE_DEVICES


def test_no_node_of_a_private_dev_may_be_made():
    assert not any("m" in rule.split()[2] for rule in PRIVATE_DEVICES)


@pytest.mark.parametrize(
    ("rules", "form"),
    [
        (["c 10:229 wr"], "c 10:229 rw"),
        (["c 010:0229 r"], "c 10:229 r"),
        (["c 10:229 r", "c 10:229 w"], "c 10:229 rw"),
        (["b *:* m"], "b *:* m"),
    ],
)
def test_a_rule_is_written_as_the_kernel_writes_it(rules, form):
    assert form in device_rules(rules)


def test_what_a_wider_rule_gives_is_not_said_again():
    found = device_rules(["c 1:* rwm"])
    assert found == ("c 136:* rw", "c 1:* rwm", "c 5:0 rw", "c 5:2 rw")


def test_a_narrower_rule_stays_where_it_gives_more():
    found = device_rules(["c 1:* r"])
    assert "c 1:3 rw" in found
    assert "c 1:* r" in found
    assert canonical(map(parse, ["c 1:* r", "c *:3 w", "c 1:3 rw"])) == ("c *:3 w", "c 1:* r")


@pytest.mark.parametrize(
    "rules",
    [
        "c 10:229 rw",
        b"c 10:229 rw",
        5,
        ["/dev/fuse"],
        ["a *:* rwm"],
        ["c 10 rw"],
        ["c 10:229"],
        ["c 10:229 x"],
        ["c 10:229 rwmr"],
        ["c -1:0 r"],
        ["c 10:229 rw\nb *:* rwm"],
        ["c  10:229 rw"],
        [None],
        [("c", 10, 229)],
    ],
)
def test_what_is_no_rule_is_told(rules):
    with pytest.raises(PolicyError, match="device rule|list of rules"):
        CgroupLimit(devices=rules)


V1 = evolve(
    hosts.ROOT_V1,
    cgroup=evolve(
        hosts.ROOT_V1.cgroup, controllers=tuple({*hosts.ROOT_V1.cgroup.controllers, "devices"})
    ),
)


def guarantee(plan, name):
    (found,) = [each for each in plan.guarantees if each.name == name]
    return found


def test_on_v1_the_leaf_has_the_devices_controller():
    plan = compile_box(Sandbox(CgroupLimit(devices=())).policy, V1)
    (step,) = [each for each in plan.steps if each.kind == "cgroup"]
    assert "devices" in step.args[1]
    assert guarantee(plan, "devices").by == "cgroup v1"


def test_without_the_controller_the_mounts_of_a_box_hold_it():
    for host in (hosts.ROOT_V2, hosts.ORDINARY, hosts.DELEGATED):
        plan = compile_box(Sandbox(CgroupLimit(devices=()), weaken={"pids"}).policy, host)
        assert "nodev" in guarantee(plan, "devices").by


def test_a_bare_list_is_refused_where_nothing_holds_it():
    for host in (hosts.ROOT_V2, hosts.ORDINARY):
        with pytest.raises(HostLacks, match="devices"):
            compile_box(Policy(CgroupLimit(devices=())), host)
    weak = Policy(CgroupLimit(devices=()), weaken={"devices"})
    assert guarantee(compile_box(weak, hosts.ROOT_V2), "devices").verdict == Verdict.WEAKENED


def test_a_box_without_a_list_asks_for_none():
    plan = compile_box(Sandbox().policy, V1)
    assert not [each for each in plan.guarantees if each.name == "devices"]


class Kernel:
    """A devices controller that takes rules down; what it holds in the end is `listed`."""

    def __init__(self, monkeypatch, directory, listed):
        self.wrote = []
        monkeypatch.setattr(cgroup_v1, "put", lambda *args: self.wrote.append(args))
        (directory / "devices.list").write_text("".join(f"{each}\n" for each in listed))


def test_everything_is_denied_before_anything_is_allowed(tmp_path, monkeypatch):
    limit = CgroupLimit(devices=["c 10:229 rw"])
    kernel = Kernel(monkeypatch, tmp_path, reversed(limit.devices))  # in its own order
    cgroup_v1.set_limits("devices", str(tmp_path), limit)
    place = str(tmp_path)
    assert kernel.wrote[0] == (place, "devices.deny", "a")
    assert kernel.wrote[1:] == [(place, "devices.allow", rule) for rule in limit.devices]


@pytest.mark.parametrize("listed", [[], ["a *:* rwm"], [*sorted(PRIVATE_DEVICES), "c 1:1 rw"]])
def test_a_list_that_the_kernel_holds_otherwise_is_an_error(tmp_path, monkeypatch, listed):
    Kernel(monkeypatch, tmp_path, listed)
    with pytest.raises(HostLacks, match=r"devices\.list holds"):
        cgroup_v1.set_limits("devices", str(tmp_path), CgroupLimit(devices=()))


def test_without_a_list_nothing_is_written(tmp_path, monkeypatch):
    kernel = Kernel(monkeypatch, tmp_path, [])
    cgroup_v1.set_limits("devices", str(tmp_path), CgroupLimit(pids=5))
    cgroup_v2.set_limits("devices", str(tmp_path), CgroupLimit(pids=5))
    assert kernel.wrote == []


def test_v2_has_no_files_for_it(tmp_path):
    with pytest.raises(HostLacks, match="v2"):
        cgroup_v2.set_limits("devices", str(tmp_path), CgroupLimit(devices=()))
