"""Joins as a plan: user first, before the box's own namespaces, never in the caller."""

import errno
import os

import pytest
from attrs import evolve

from isolate import HostLacks, Namespace, Policy, PolicyError, Sandbox, allow
from isolate import native as native_module
from isolate.abi.flags import CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWTIME, CLONE_NEWUSER, NAMESPACES
from isolate.abi.ops import OpCode
from isolate.plan.compile import compile_box
from isolate.plan.encode import encode
from isolate.plan.explain import explain
from isolate.plan.hints import hint
from isolate.plan.model import Step
from isolate.policy.namespace import started
from tests import hosts

PATHS = {kind: f"path:/pins/{kind}" for kind in NAMESPACES}
ALL = Namespace(joins=tuple(PATHS.items()))


def joined(*kinds):
    return Namespace(joins=tuple((kind, PATHS[kind]) for kind in kinds))


def codes(ops):
    return [op.code for op in ops]


def test_the_user_namespace_is_first_and_the_mount_namespace_last():
    plan = compile_box(Policy(ALL), hosts.ROOT_V1)
    order = [op.nums[0] for op in plan.joining if op.code is OpCode.SETNS]
    assert order[0] == CLONE_NEWUSER
    assert order[-1] == NAMESPACES["mount"]
    assert sorted(order) == sorted(NAMESPACES.values())
    assert [step.args[1] for step in plan.steps if step.kind == "open_ns"][0] == "user"


def test_nothing_is_joined_by_a_process_that_shares_the_callers_memory():
    """Law 9: the clone child's plan has five ops; joins are isolate-init's, which was exec'd."""
    plan = compile_box(Policy(ALL), hosts.ROOT_V1)
    assert OpCode.SETNS not in codes(plan.setup)
    assert codes(plan.joining)[0] is OpCode.DUMPABLE
    assert codes(plan.joining)[-1] is OpCode.REBORN
    assert native_module.check(encode(plan.joining).blob) is None


def test_a_sandbox_gets_its_own_user_namespace_after_the_join():
    plan = compile_box(
        Sandbox(joined("net"), allow=[allow.OtherNamespaces()]).policy, hosts.ROOT_V1
    )
    reborn = plan.joining[-1]
    assert reborn.nums[0] & CLONE_NEWUSER
    assert reborn.nums[0] & CLONE_NEWPID
    assert not reborn.nums[0] & CLONE_NEWNET
    assert OpCode.LOOPBACK_UP not in codes(plan.setup)
    assert plan.template == ()
    assert "a first isolate-init, that joins" in explain(plan)
    assert plan.clone_flags == reborn.nums[0]


def test_groups_are_dropped_before_a_user_namespace_that_may_deny_it():
    plan = compile_box(Policy(joined("user", "net")), hosts.ROOT_V1)
    assert codes(plan.joining).index(OpCode.SETGROUPS) < codes(plan.joining).index(OpCode.SETNS)
    assert OpCode.SETGROUPS not in codes(plan.setup)
    assert OpCode.SETRESUID in codes(plan.setup)
    ordinary = compile_box(Policy(joined("user", "net")), hosts.ORDINARY)
    assert OpCode.SETGROUPS not in codes(ordinary.joining)
    assert OpCode.SETRESUID not in codes(ordinary.setup)


def test_a_time_namespace_is_never_in_the_clone():
    plan = compile_box(Policy(joined("net") | Namespace(time=True)), hosts.ROOT_V1)
    assert not plan.joining[-1].nums[0] & CLONE_NEWTIME
    assert OpCode.UNSHARE in codes(plan.setup)


def test_offsets_are_written_before_init_takes_its_ids():
    spaces = Namespace(user=True, time=True, boottime_offset=5.0)
    found = codes(compile_box(Policy(spaces), hosts.ROOT_V1).setup)
    assert found.index(OpCode.TIMENS) < found.index(OpCode.SETRESUID)
    assert found.index(OpCode.TIMENS) < found.index(OpCode.DUMPABLE)


def test_a_filter_that_refuses_setns_is_told_with_the_option():
    host = evolve(hosts.NESTED, filtered=True, refused=("setns",))
    with pytest.raises(HostLacks, match="seccomp=unconfined") as caught:
        compile_box(Policy(joined("net")), host)
    assert caught.value.what == "join"


def test_a_pid_is_named_with_its_start():
    spaces = Namespace.of(os.getpid(), "net")
    assert spaces.joins == (("net", f"pid:{os.getpid()}:{started(os.getpid())}"),)
    with pytest.raises(PolicyError, match="no process"):
        started(2**22 + 7)


def test_a_path_of_proc_says_its_kind():
    assert Namespace.of("/proc/1/ns/mnt").joins == (("mount", "path:/proc/1/ns/mnt"),)
    assert Namespace.of("/proc/1/ns/pid_for_children").joins[0][0] == "pid"


def test_a_join_goes_through_a_policy_file():
    policy = Policy(joined("net", "user"))
    assert Policy.loads(policy.dumps()) == policy


@pytest.mark.parametrize("code", "ESRCH ENOENT EACCES EPERM EBADF EINVAL EEXIST".split())
def test_every_failure_to_open_a_namespace_has_a_hint(code):
    step = Step(kind="open_ns", about="join")
    assert hint(step, getattr(errno, code), None)
