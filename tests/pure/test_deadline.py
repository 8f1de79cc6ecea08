"""Processor time of all processes is held by a cgroup's account, or it is refused by name."""

import pytest
from attrs import evolve

from isolate import CgroupLimit, HostLacks, Policy
from isolate.host.facts import CgroupFacts
from isolate.plan.compile import compile_box
from isolate.policy.deadline import Deadline
from tests import hosts

TREE = Policy(CgroupLimit(pids=5), Deadline(cpu_time=1))


def promise(policy, host):
    found = [each for each in compile_box(policy, host).guarantees if each.name == "cpu_time"]
    assert len(found) == 1
    return found[0]


def test_a_v1_account_holds_it():
    assert promise(TREE, hosts.ROOT_V1).verdict == "enforced"
    assert "v1" in promise(TREE, hosts.ROOT_V1).by


@pytest.mark.parametrize(
    ("policy", "host"),
    [
        (TREE, hosts.ORDINARY),
        (TREE, hosts.NESTED),
        (Policy(Deadline(cpu_time=1)), hosts.ROOT_V1),  # no leaf without a CgroupLimit
        (
            TREE,
            evolve(hosts.ROOT_V1, cgroup=CgroupFacts(version=1, controllers=("pids",))),
        ),
    ],
)
def test_without_one_it_is_refused_and_can_be_weakened(policy, host):
    weak = {"cpu_time", "pids"}
    with pytest.raises(HostLacks, match="RLIMIT_CPU") as caught:
        compile_box(Policy(policy, weaken={"pids"}), host)
    assert caught.value.what == "cpu_time"
    assert promise(Policy(policy, weaken=weak), host).verdict == "weakened"


def test_other_limits_of_a_run_need_nothing():
    policy = Policy(Deadline(wall=1, output=10, files_size=10))
    names = {each.name for each in compile_box(policy, hosts.ORDINARY).guarantees}
    assert "cpu_time" not in names
