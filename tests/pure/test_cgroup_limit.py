# SPDX-License-Identifier: Apache-2.0
"""`CgroupLimit` as a value, as a file, and as a plan on v1, v2 and hybrid machines."""

import pickle

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import CgroupLimit, HostLacks, Policy, PolicyConflict, PolicyError, Sandbox
from isolate.abi.cgroup import (
    blkio_of_weight,
    page_name,
    shares_of_weight,
    weight_of_blkio,
    weight_of_shares,
)
from isolate.abi.ops import OpCode
from isolate.host.facts import CgroupFacts, Host
from isolate.plan.compile import compile_box, compile_plan
from isolate.plan.encode import encode_body
from isolate.policy.cgroup import HugetlbLimit, IoLimit
from isolate.policy.command import Command
from tests import hosts

TRUE = Command(["true"])
SIZES = st.none() | st.integers(4096, 1 << 50)
WEIGHTS = st.none() | st.integers(1, 10000)
RATES = st.none() | st.integers(1, 1 << 40)
DEVICES = st.sampled_from(["8:0", "259:3", "/dev/vda", "/srv/file"])
IO = st.builds(IoLimit, device=DEVICES, read_bps=st.integers(1, 1 << 40), write_bps=RATES,
               read_iops=RATES, write_iops=RATES)  # fmt: skip
HUGE = st.builds(
    HugetlbLimit, page=st.sampled_from([1 << 21, 1 << 30]), limit=st.integers(0, 1 << 40)
)
DEVICE_RULES = st.builds(
    "{} {}:{} {}".format,
    st.sampled_from("bc"),
    st.sampled_from(["1", "8", "10", "*"]),
    st.sampled_from(["0", "3", "229", "*"]),
    st.sampled_from(["r", "w", "rw", "m", "rwm"]),
)
LIMITS = st.builds(
    CgroupLimit,
    memory=SIZES,
    memory_high=SIZES,
    memory_low=SIZES,
    memory_min=SIZES,
    swap=st.none() | st.integers(0, 1 << 40),
    pids=st.none() | st.integers(1, 9999),
    cpu=st.floats(0.01, 64),
    cpu_burst=st.none() | st.floats(0, 0.001),
    cpu_weight=WEIGHTS,
    cpuset=st.none() | st.just("0-3,5"),
    io=st.lists(IO, max_size=3),
    io_weight=WEIGHTS,
    hugetlb=st.lists(HUGE, max_size=2),
    devices=st.none() | st.lists(DEVICE_RULES, max_size=4),
    account=st.booleans(),
)


@settings(deadline=None, max_examples=60)
@given(LIMITS, st.sampled_from(["toml", "json"]))
def test_a_file_brings_back_the_same_limit(limit, form):
    policy = Policy(limit)
    assert Policy.loads(policy.dumps(form), form) == policy
    assert pickle.loads(pickle.dumps(limit)) == limit


def swap_of(limit):
    """What is in force: none at all beside a memory ceiling that says nothing of it."""
    return 0 if limit.memory is not None and limit.swap is None else limit.swap


@settings(deadline=None, max_examples=60)
@given(LIMITS, LIMITS)
def test_narrowing_is_never_wider_and_has_no_order(a, b):
    both = a.narrow(b)
    assert both == b.narrow(a)
    assert both.narrow(a) == both
    swaps = [value for value in map(swap_of, (a, b)) if value is not None]
    assert swap_of(both) == min(swaps, default=None)
    for name in ("memory", "memory_high", "memory_low", "memory_min", "pids", "cpu_weight"):
        given_ones = [value for value in (getattr(a, name), getattr(b, name)) if value is not None]
        assert getattr(both, name) == min(given_ones, default=None)
    for limits, one in ((both.io, a), (both.io, b)):
        found = {each.device: each for each in limits}
        for each in one.io:
            assert found[each.device].read_bps <= each.read_bps


def test_devices_and_pages_may_be_given_as_tables():
    limit = CgroupLimit(io={"/dev/vda": {"write_bps": "1M"}}, hugetlb={"2M": "64M"})
    assert limit.io == (IoLimit(device="/dev/vda", write_bps=1 << 20),)
    assert Sandbox(io=dict.fromkeys(["8:0"], {"read_bps": 1})).policy.get(CgroupLimit).io
    assert limit.hugetlb == (HugetlbLimit(page=2 << 20, limit=64 << 20),)


def test_two_limits_of_one_device_are_narrowed():
    one, other = IoLimit(device="8:0", read_bps=5), IoLimit(device="8:0", read_bps=3, read_iops=1)
    assert CgroupLimit(io=(one, other)).io == (IoLimit(device="8:0", read_bps=3, read_iops=1),)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CgroupLimit(cpu_weight=0), "at least 1"),
        (lambda: CgroupLimit(cpu_weight=10001), "1 to 10000"),
        (lambda: CgroupLimit(io_weight=1.5), "whole number"),
        (lambda: CgroupLimit(cpu_burst="10ms"), "cpu="),
        (lambda: CgroupLimit(cpu=0.5, cpu_burst="60ms"), r"allows 0\.05 s"),
        (lambda: CgroupLimit(io={"sda": {"read_bps": 1}}), "MAJOR:MINOR"),
        (lambda: CgroupLimit(io={"8:0": {}}), "limits nothing"),
        (lambda: CgroupLimit(io=("8:0",)), "is no IoLimit"),
        (lambda: CgroupLimit(io={"8:0": {"read_bps": 0}}), "at least 1"),
        (lambda: CgroupLimit(hugetlb={"1K": 0}), "at least 4096"),
        (lambda: CgroupLimit(memory_min=-1), "negative"),
        (lambda: CgroupLimit(memory=True), "not a size"),
    ],
)
def test_mistakes_are_told(make, text):
    with pytest.raises(PolicyError, match=text):
        make()


def test_a_burst_shrinks_with_the_quota_that_it_is_saved_from():
    wide, tight = CgroupLimit(cpu=2, cpu_burst=0.2), CgroupLimit(cpu=0.5)
    assert wide.narrow(tight).cpu_burst == 0.05
    with pytest.raises(PolicyConflict):
        CgroupLimit(mems="0").narrow(CgroupLimit(mems="1"))


def test_weights_meet_where_the_runtimes_say():
    assert [weight_of_shares(each) for each in (2, 1024, 262144)] == [1, 100, 10000]
    assert [shares_of_weight(each) for each in (1, 100, 10000)] == [2, 1024, 262144]
    assert [weight_of_blkio(each) for each in (10, 1000)] == [1, 10000]
    assert [blkio_of_weight(each) for each in (1, 10000)] == [10, 1000]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10000), st.integers(1, 10000))
def test_a_greater_weight_never_becomes_a_smaller_one(a, b):
    low, high = sorted((a, b))
    assert shares_of_weight(low) <= shares_of_weight(high)
    assert blkio_of_weight(low) <= blkio_of_weight(high)
    assert abs(weight_of_shares(shares_of_weight(a)) - a) <= max(3, a * 0.25)


def test_page_sizes_are_named_as_the_kernel_does():
    sizes = {1 << 21: "2MB", 1 << 30: "1GB", 64 << 10: "64KB", 32 << 20: "32MB", 4097: "4097B"}
    assert {size: page_name(size) for size in sizes} == sizes


HYBRID = evolve(
    hosts.ROOT_V1,
    cgroup=CgroupFacts(version=1, controllers=("cpuacct", "hugetlb", "pids"), unified=("hugetlb",)),
)


def codes(plan):
    return [op.code for op in plan.program]


def test_on_v2_a_program_is_born_in_its_leaf_and_joins_nothing():
    for host in (hosts.ROOT_V2, hosts.DELEGATED):
        plan = compile_plan(Sandbox(mem="64M").policy, TRUE, host)
        assert codes(plan)[:2] == [OpCode.LEAF, OpCode.UNSHARE]
        assert OpCode.JOIN_CGROUP not in codes(plan)
        assert encode_body(plan.program).slots[0] == "leaf"  # init takes slot 0 for the leaf
        assert not plan.clone_flags & 0x02000000  # init stays in our cgroup namespace


def test_roots_leaf_is_made_before_init_which_has_a_place_beside_it():
    (step,) = [each for each in compile_box(Sandbox().policy, hosts.ROOT_V2).steps
               if each.kind.startswith("cgroup")]  # fmt: skip
    assert (step.kind, step.args[1:]) == ("cgroup_first", (("pids",), True))
    (step,) = [each for each in compile_box(Sandbox().policy, hosts.DELEGATED).steps
               if each.kind.startswith("cgroup")]  # fmt: skip
    assert (step.kind, step.args[1:]) == ("cgroup", (("pids",), False))


def test_a_hybrid_machine_joins_what_v1_has_and_is_born_in_what_v2_has():
    limit = CgroupLimit(hugetlb={"2M": "4M"}, pids=5)
    plan = compile_plan(Sandbox(limit).policy, TRUE, HYBRID)
    slots = [op.slots for op in plan.program if op.code in (OpCode.LEAF, OpCode.JOIN_CGROUP)]
    assert slots == [("leaf",), ("cgroup:pids",), ("cgroup:cpuacct",)]
    told = {each.name: each.by for each in plan.guarantees}
    assert (told["hugetlb"], told["pids"]) == ("cgroup v2", "cgroup v1")


def test_what_v1_has_not_is_refused_or_left_out_where_that_is_allowed():
    limit = CgroupLimit(memory="64M", memory_high="32M")
    with pytest.raises(HostLacks, match="memory_high"):
        compile_box(Policy(limit), hosts.ROOT_V1)
    plan = compile_box(Policy(limit, weaken={"memory_high"}), hosts.ROOT_V1)
    (step,) = [each for each in plan.steps if each.kind == "cgroup"]
    assert (step.args[0].memory, step.args[0].memory_high) == (64 << 20, None)
    assert compile_box(Policy(limit), hosts.ROOT_V2).steps[0].args[0] == limit


def test_a_refusal_says_what_was_looked_at_and_what_to_type():
    facts = CgroupFacts(why="v1: not mounted; v2: foreign", command="sudo do-this")
    host = evolve(hosts.ORDINARY, cgroup=facts)
    with pytest.raises(HostLacks) as caught:
        compile_box(Sandbox(mem="64M").policy, host)
    assert "v2: foreign" in str(caught.value)
    assert "sudo do-this" in str(caught.value)
    assert Host.from_json(host.to_json()) == host


def v1_and_v2(*old, unified=()):
    """A hybrid machine, root's: these controllers in v1 hierarchies, those in v2's."""
    facts = CgroupFacts(version=1, controllers=(*old, *unified), unified=tuple(unified))
    return evolve(hosts.ROOT_V1, cgroup=facts)


def joined_slots(plan):
    return [op.slots[0] for op in plan.program if op.code == OpCode.JOIN_CGROUP]


def test_a_box_that_v2_holds_alone_joins_no_v1_hierarchy():
    """Its leaf makes none: v2 counts time in every cgroup, cpuacct is not wanted."""
    host = v1_and_v2("memory", "cpuacct", unified=("pids", "hugetlb"))
    plan = compile_plan(Policy(CgroupLimit(pids=5)), TRUE, host)
    assert joined_slots(plan) == []
    assert OpCode.LEAF in codes(plan)
    plan = compile_plan(Policy(CgroupLimit(pids=5, memory="64M")), TRUE, host)
    assert joined_slots(plan) == ["cgroup:memory", "cgroup:cpuacct"]


@pytest.mark.parametrize("name", ["memory", "pids", "cpu", "cpuset", "io", "hugetlb", "devices"])
def test_wherever_a_controller_is_the_limit_is_lowered_to_it(name):
    limit = {
        "memory": CgroupLimit(memory="64M"),
        "pids": CgroupLimit(pids=5),
        "cpu": CgroupLimit(cpu=1.5),
        "cpuset": CgroupLimit(cpuset="0"),
        "io": CgroupLimit(io={"8:0": {"read_bps": 1}}),
        "hugetlb": CgroupLimit(hugetlb={"2M": 0}),
        "devices": CgroupLimit(devices=()),
    }[name]
    old = compile_plan(Policy(limit), TRUE, v1_and_v2(name, "cpuacct", unified=("misc",)))
    assert joined_slots(old) == [f"cgroup:{name}", "cgroup:cpuacct"]
    new = compile_plan(Policy(limit), TRUE, v1_and_v2("freezer", unified=(name,)))
    assert joined_slots(new) == []
    assert OpCode.LEAF in codes(new)
    with pytest.raises(HostLacks, match=name):
        compile_plan(Policy(limit), TRUE, v1_and_v2("freezer", unified=("misc",)))
