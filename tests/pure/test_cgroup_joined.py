# SPDX-License-Identifier: Apache-2.0
"""Joining somebody's cgroup namespace: where the kernel would not let it hold, it is refused."""

import os
from types import SimpleNamespace

import pytest

from isolate import CgroupLimit, Namespace, Policy, PolicyConflict, PolicyError
from isolate.abi.ops import OpCode
from isolate.plan.compile import compile_box
from isolate.policy import namespace as module
from tests import hosts

OTHER = Namespace(joins=(("cgroup", "pid:1:1"),))


def box(elsewhere, monkeypatch):
    """A box whose init is in other namespaces than we are, of these kinds."""
    monkeypatch.setattr(module, "different", lambda pid: elsewhere)
    return SimpleNamespace(pid=os.getpid(), cgroup={"unified": "/sys/fs/cgroup/x"})


def test_a_box_whose_init_is_in_our_cgroup_namespace_has_none_to_join(monkeypatch):
    made = box(("net", "pid"), monkeypatch)
    with pytest.raises(PolicyError, match="each of its programs makes its own"):
        Namespace.of(made, "cgroup")
    with pytest.raises(PolicyError, match=r"program\.pid"):
        Namespace.of(made, "net", "cgroup")


def test_its_other_kinds_are_joined(monkeypatch):
    made = box(("net", "pid"), monkeypatch)
    assert [kind for kind, _ in Namespace.of(made, "net").joins] == ["net"]
    assert [kind for kind, _ in Namespace.of(made).joins] == ["pid", "net"]


def test_a_box_with_a_cgroup_namespace_of_its_own_is_joined(monkeypatch):
    made = box(("cgroup", "net"), monkeypatch)
    assert [kind for kind, _ in Namespace.of(made, "cgroup").joins] == ["cgroup"]


def test_a_program_is_joined_whatever_it_is_in(monkeypatch):
    monkeypatch.setattr(module, "different", lambda pid: ())
    program = SimpleNamespace(pid=os.getpid())
    assert [kind for kind, _ in Namespace.of(program, "cgroup").joins] == ["cgroup"]
    assert [kind for kind, _ in Namespace.of(os.getpid(), "cgroup").joins] == ["cgroup"]


@pytest.mark.parametrize("host", [hosts.ROOT_V2, hosts.DELEGATED], ids=["root", "delegated"])
def test_a_box_with_a_v2_leaf_can_not_be_in_anothers_namespace(host):
    with pytest.raises(PolicyConflict, match="pid:1:1"):
        compile_box(Policy(OTHER, CgroupLimit(pids=5)), host)
    plan = compile_box(Policy(OTHER), host)  # without limits there is no leaf to be seen
    assert OpCode.SETNS in [op.code for op in plan.joining]


def test_a_box_with_v1_leaves_can():
    plan = compile_box(Policy(OTHER, CgroupLimit(pids=5)), hosts.ROOT_V1)
    assert OpCode.SETNS in [op.code for op in plan.joining]


def test_other_kinds_go_with_a_v2_leaf():
    spaces = Namespace(joins=(("net", "pid:1:1"),))
    assert compile_box(Policy(spaces, CgroupLimit(pids=5)), hosts.ROOT_V2).joining
