"""What `doctor` says of recorded hosts: for everything that is missing, a reason and a cure."""

import pytest
from attrs import evolve

from isolate.checkup import examine
from isolate.host.facts import CgroupFacts
from tests import hosts


def by_name(host):
    return {each.name: each for each in examine(host)}


@pytest.mark.parametrize("host", hosts.ALL.values(), ids=hosts.ALL)
def test_all_that_is_missing_has_a_reason_and_a_cure(host):
    for each in examine(host):
        assert each.found
        assert each.ok or (each.why and each.cure), each


def test_root_on_v1_has_everything_but_the_freezer():
    missing = [each.name for each in examine(hosts.ROOT_V1) if not each.ok]
    assert missing == ["freeze"]


def test_an_ordinary_user_is_told_how_to_delegate():
    found = by_name(hosts.ORDINARY)
    for name in ("memory", "cpu", "pids", "cpu_time", "freeze"):
        assert not found[name].ok
        assert "Delegate=yes" in found[name].cure
    assert found["user"].ok


def test_no_user_namespaces_is_a_fault_with_the_sysctl_to_write():
    found = by_name(hosts.NO_USERNS)["user"]
    assert not found.ok
    assert found.required
    assert "max_user_namespaces=15000" in found.cure
    sysctl = "sysctl kernel.unprivileged_userns_clone is 0"
    other = by_name(evolve(hosts.NO_USERNS, user_why=sysctl))["user"]
    assert "unprivileged_userns_clone=1" in other.cure


def test_an_old_kernel_is_a_fault():
    found = by_name(evolve(hosts.ROOT_V1, kernel=(4, 19)))["kernel"]
    assert not found.ok
    assert found.required


def test_v2_counts_time_and_freezes_without_controllers_of_their_own():
    v2 = evolve(hosts.ROOT_V1, cgroup=CgroupFacts(version=2, controllers=("memory",)))
    found = by_name(v2)
    assert found["cpu_time"].ok
    assert found["freeze"].ok
    assert not found["pids"].ok
    assert "RLIMIT_NPROC" in found["pids"].found
