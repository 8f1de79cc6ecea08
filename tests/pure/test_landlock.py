# SPDX-License-Identifier: Apache-2.0
"""Landlock as a value, and what it is lowered to."""

import pickle
import re
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import HostLacks, Landlock, Network, Policy, PolicyError, Sandbox, allow
from isolate.abi import landlock as abi
from isolate.abi.ops import OpCode
from isolate.plan.compile import compile_box, compile_plan
from isolate.plan.lower.landlock import missing, ruleset
from isolate.policy.command import Command
from tests import hosts

TRUE = Command(["true"])
PARTS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3)
PATHS = PARTS.map(lambda parts: "/" + "/".join(parts))
GRANTS = st.none() | st.lists(PATHS, max_size=3)
PORTS = st.none() | st.lists(st.integers(0, 5), max_size=3)
LANDLOCKS = st.builds(
    Landlock,
    read=GRANTS,
    write=GRANTS,
    execute=GRANTS,
    tcp_bind=PORTS,
    tcp_connect=PORTS,
    scope=st.lists(st.sampled_from(sorted(abi.SCOPE)), max_size=2),
    log=st.lists(st.sampled_from(sorted(abi.LOG)), max_size=2),
    level=st.none() | st.just(7),
    view=st.booleans(),
)


def test_the_rights_are_the_kernel_headers():
    header = Path("/usr/include/linux/landlock.h")
    if not header.exists():
        pytest.skip("needs the kernel's headers")
    text = header.read_text()
    found = dict(re.findall(r"LANDLOCK_ACCESS_FS_(\w+)\s+\(1ULL << (\d+)\)", text))
    assert found
    for name, bit in found.items():
        assert abi.FS[name.lower()][0] == 1 << int(bit)


def test_levels_name_what_they_brought():
    assert abi.names_at(abi.FS, 1) == tuple(n for n in abi.FS if abi.FS[n][1] == 1)
    assert len(abi.names_at(abi.FS, 1)) == 13
    assert set(abi.names_at(abi.FS, 3)) - set(abi.names_at(abi.FS, 2)) == {"truncate"}
    assert len(abi.names_at(abi.FS, 7)) == 16
    assert {*abi.READ, *abi.WRITE, *abi.EXECUTE} == set(abi.FS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"read": ["relative"]},
        {"read": ["/a\0b"]},
        {"read": [7]},
        {"tcp_bind": [70000]},
        {"tcp_bind": [-1]},
        {"tcp_connect": [True]},
        {"scope": ["everything"]},
        {"log": ["loud"]},
        {"level": 0},
        {"level": 8},
        {"level": True},
        {"level": 2, "tcp_bind": [80]},
        {"level": 5, "scope": ["signal"]},
        {"level": 6, "log": ["new_exec_on"]},
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(PolicyError):
        Landlock(**wrong)


def test_the_level_is_what_the_fields_need():
    assert Landlock(read=["/"]).needs == 1
    assert Landlock(write=["/"]).needs == 5
    assert Landlock(tcp_bind=[80]).needs == 4
    assert Landlock(scope="signal", write=()).needs == 6
    assert Landlock(write=["/"], level=2).needs == 2
    assert missing(Landlock(write=["/"]), 2) == ("truncate", "ioctl_dev")
    assert missing(Landlock(write=["/"], level=2), 2) == ()
    assert missing(Landlock(read=["/"], tcp_connect=()), 1) == ("connect_tcp",)
    assert missing(Landlock(log="same_exec_off", scope="signal"), 6) == ("log same_exec_off",)


@settings(max_examples=100, deadline=None)
@given(LANDLOCKS, LANDLOCKS, PATHS, st.sampled_from(sorted(abi.FS)), st.integers(0, 5))
def test_both_are_never_wider_than_either(a, b, path, right, port):
    both = a.narrow(b)
    assert both == b.narrow(a)
    assert a.narrow(a) == a
    rules = [ruleset(each, 7) for each in (a, b, both)]
    if rules[2].allows(right, path) and right != "refer":
        assert rules[0].allows(right, path)
        assert rules[1].allows(right, path)
    for kind in ("bind_tcp", "connect_tcp"):
        granted = [kind not in each.net or (kind, port) in each.ports for each in rules]
        assert granted[2] == (granted[0] and granted[1])
    assert set(both.scope) == {*a.scope, *b.scope}
    assert {*missing(both, 0)} >= {*missing(a, 0), *missing(b, 0)}


@settings(max_examples=50, deadline=None)
@given(LANDLOCKS, st.sampled_from(["toml", "json"]))
def test_it_goes_through_a_file_and_pickle(value, format):
    policy = Policy(value)
    assert Policy.loads(policy.dumps(format), format) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_a_file_s_mistakes_are_told_with_their_key():
    text = "version = 1\n[landlock]\nread = ['x']\nscope = ['all']\nlevle = 3\n"
    with pytest.raises(PolicyError) as caught:
        Policy.loads(text)
    told = str(caught.value)
    assert "landlock.read" in told
    assert "landlock.scope" in told
    assert "did you mean level?" in told


def codes(plan):
    return [op.code for op in (*plan.setup, *plan.program)]


def test_the_view_s_layer_is_init_s_and_costs_a_program_nothing():
    plan = compile_plan(Sandbox().policy, TRUE, hosts.ROOT_V1)
    setup = [op.code for op in plan.setup]
    assert setup[-1] is OpCode.LANDLOCK_RESTRICT
    assert setup.index(OpCode.ROOT_LEAVE) < setup.index(OpCode.LANDLOCK_CREATE)
    assert not any(op.code.name.startswith("LANDLOCK") for op in plan.program)


def test_its_own_layer_is_each_program_s_after_no_new_privs():
    plan = compile_plan(Policy(Landlock(read=["/usr"])), TRUE, hosts.ROOT_V1)
    names = [op.code for op in plan.program]
    assert names.index(OpCode.NO_NEW_PRIVS) < names.index(OpCode.LANDLOCK_CREATE)
    assert names.index(OpCode.LANDLOCK_RESTRICT) < names.index(OpCode.READY)
    assert not any(op.code.name.startswith("LANDLOCK") for op in plan.setup)


def test_scopes_are_not_ruled_where_the_box_shares_what_they_go_through():
    def scoped(sandbox):
        plan = compile_box(sandbox.policy, hosts.ROOT_V1)
        [create] = [op for op in plan.setup if op.code is OpCode.LANDLOCK_CREATE]
        return create.nums

    assert scoped(Sandbox()) == (0xFFFF, 0, 3)
    assert scoped(Sandbox(network=Network.none()))[1] == 3
    assert scoped(Sandbox(net=False, allow=[allow.HostNetwork()]))[2] == 2
    assert scoped(Sandbox(pid=False, allow=[allow.HostPid()]))[2] == 1


@pytest.mark.parametrize("level", range(2, 9))
def test_only_rights_of_the_level_are_named(level):
    plan = compile_box(Sandbox().policy, evolve(hosts.ROOT_V1, landlock=level))
    known = abi.bits(abi.FS, abi.names_at(abi.FS, min(level, 7)))
    for op in plan.setup:
        if op.code is OpCode.LANDLOCK_CREATE:
            assert op.nums[0] == known
            assert op.nums[2] == (3 if level >= 6 else 0)
        if op.code is OpCode.LANDLOCK_PATH:
            assert op.nums[0]
            assert not op.nums[0] & ~known


@pytest.mark.parametrize(("level", "why"), [(0, "built without"), (1, "level 1")])
def test_without_it_the_view_says_that_mounts_hold_it_alone(level, why):
    host = evolve(hosts.ROOT_V1, landlock=level, landlock_why="" if level else "built without")
    plan = compile_box(Sandbox().policy, host)
    [held] = [g for g in plan.guarantees if g.name == "landlock"]
    assert (held.verdict, why in held.by) == ("weakened", True)
    assert not any(code.name.startswith("LANDLOCK") for code in codes(plan))


def test_a_landlock_of_one_s_own_is_refused_without_it():
    none = evolve(hosts.ROOT_V1, landlock=0, landlock_why="built without")
    with pytest.raises(HostLacks, match="built without; not enforced: read_file, read_dir"):
        compile_box(Sandbox(landlock=Landlock(read=["/usr"])).policy, none)
    weak = Sandbox(landlock=Landlock(read=["/usr"]), weaken="landlock")
    plan = compile_plan(weak.policy, TRUE, none)
    assert [g.verdict for g in plan.guarantees if g.name == "landlock"] == ["weakened"] * 2
    assert not any(code.name.startswith("LANDLOCK") for code in codes(plan))


def test_a_writable_mount_is_ruled_writable_and_a_hidden_one_is_not():
    box = Sandbox(write=["/data/out"], read=["/data"])
    plan = compile_box(box.policy, hosts.ROOT_V1)
    rules = {
        op.strs[0].decode(): op.nums[0] for op in plan.setup if op.code is OpCode.LANDLOCK_PATH
    }
    writing = abi.bits(abi.FS, (*abi.EXECUTE, *abi.WRITE))
    assert rules["/data/out"] == writing
    assert rules["/data"] == abi.FS["execute"][0]
    assert rules["/proc"] == abi.FS["write_file"][0]
    assert rules["/"] == abi.bits(abi.FS, abi.READ)
    assert rules["/usr"] == abi.FS["execute"][0]


def test_moves_stay_free_where_only_reading_is_ruled():
    rules = ruleset(Landlock(read=["/a"]), 7)
    assert set(rules.fs) == {"read_file", "read_dir", "refer"}
    assert rules.allows("refer", "/b")
    assert ruleset(Landlock(read=["/a"]), 1).fs == ("read_file", "read_dir")


def test_a_sandbox_gives_it_up_only_by_a_token():
    with pytest.raises(PolicyError, match=r"allow\.Unlocked"):
        Sandbox(landlock=False)
    assert Sandbox(landlock=False, allow=[allow.Unlocked()]).policy.get(Landlock) is None
    with pytest.raises(PolicyError, match="takes a Landlock"):
        Sandbox(landlock=["/usr"])
    with pytest.raises(PolicyError, match="no_new_privs"):
        Sandbox(
            landlock=Landlock(read=["/"]),
            seccomp=False,
            allow=[allow.NewPrivileges(), allow.SystemCalls()],
        )
    assert Sandbox(landlock=Landlock(read=["/usr"])).policy.get(Landlock).view
