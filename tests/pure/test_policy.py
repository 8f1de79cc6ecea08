# SPDX-License-Identifier: Apache-2.0
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isolate import (
    CapabilitySet,
    CgroupLimit,
    Chroot,
    IdMap,
    Mount,
    Namespace,
    Network,
    Policy,
    PolicyConflict,
    PolicyError,
    Rlimit,
)
from isolate.abi.caps import CAPABILITIES, DOCKER, mask, names_of
from isolate.policy.command import Command
from isolate.policy.deadline import Deadline
from isolate.policy.fields import parse_bytes, parse_seconds, tighter_path_sets
from isolate.policy.policy import Policy as PolicyClass

NAMES = st.sets(st.sampled_from(sorted(CAPABILITIES)))
SIZE = st.none() | st.integers(4096, 1 << 40)
LIMITS = st.builds(
    CgroupLimit,
    memory=SIZE,
    pids=st.none() | st.integers(1, 10_000),
    cpu=st.none() | st.floats(0.01, 64),
)
PATHS = st.lists(
    st.lists(st.sampled_from("abc"), max_size=3).map(lambda parts: "/" + "/".join(parts)),
    max_size=4,
).map(lambda paths: tuple(sorted(set(paths))))


@pytest.mark.parametrize(
    ("text", "size"),
    [("64M", 64 << 20), ("1.5G", 3 << 29), ("4k", 4096), (17, 17), ("2TiB", 2 << 40)],
)
def test_sizes_are_powers_of_1024(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["64X", "", "-1", -1, True, 1.5, None, "M"])
def test_a_wrong_size_is_refused(text):
    with pytest.raises(PolicyError):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), (2, 2.0), ("1.5m", 90.0), ("3us", 3e-6)]
)
def test_durations_have_units(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5 parsecs", float("nan"), float("inf"), -1, True, None])
def test_a_wrong_duration_is_refused(text):
    with pytest.raises(PolicyError):
        parse_seconds(text)


def least(a, b):
    return a if b is None else b if a is None else min(a, b)


@given(LIMITS, LIMITS)
def test_the_smaller_limit_wins_in_either_order(a, b):
    both = a.narrow(b)
    assert both == b.narrow(a)
    for name in ("memory", "pids", "cpu"):
        assert getattr(both, name) == least(getattr(a, name), getattr(b, name))


@given(NAMES, NAMES)
def test_capabilities_intersect(a, b):
    both = CapabilitySet(*a).narrow(CapabilitySet(*b))
    assert both.effective == both.bounding == a & b


@given(NAMES)
def test_capability_masks_go_both_ways(names):
    assert names_of(mask(frozenset(names))) == names


@given(PATHS, PATHS)
def test_narrowed_path_sets_grant_what_both_grant(a, b):
    both = tighter_path_sets(a, b)

    def grants(paths, path):
        return any(q == "/" or path == q or path.startswith(q + "/") for q in paths)

    for path in (*a, *b, "/a", "/a/b", "/b/c/a", "/c/c/c"):
        assert grants(both, path) == (grants(a, path) and grants(b, path))


@given(LIMITS, NAMES, PATHS)
def test_policies_pickle_hash_and_compare(limit, names, paths):
    policy = Policy(limit, CapabilitySet(*names), Chroot.host_view(read=paths), weaken={"memory"})
    again = pickle.loads(pickle.dumps(policy))
    assert again == policy
    assert hash(again) == hash(policy)


def test_joining_weakens_only_what_both_weaken():
    a = PolicyClass(CgroupLimit(pids=5), weaken={"pids", "memory"})
    b = PolicyClass(CgroupLimit(pids=9), weaken={"memory"})
    assert (a | b).weaken == {"memory"}
    assert (a | b).get(CgroupLimit).pids == 5


def test_two_roots_are_a_conflict():
    with pytest.raises(PolicyConflict, match="two roots"):
        Policy(Chroot("/a"), Chroot("/b"))


def test_two_things_at_one_place_are_a_conflict():
    with pytest.raises(PolicyConflict, match="/x"):
        Policy(Mount.tmpfs("/x"), Mount.dir("/x"))


def test_disjoint_cpusets_are_a_conflict():
    with pytest.raises(PolicyConflict, match="cpuset"):
        CgroupLimit(cpuset="0-1").narrow(CgroupLimit(cpuset="2"))


def test_cpusets_intersect():
    assert CgroupLimit(cpuset="0-3").narrow(CgroupLimit(cpuset="2-5")).cpuset == "2,3"


def test_networks_narrow_to_what_reaches_less():
    assert Network.host().narrow(Network.none()) == Network.none()
    assert Network.loopback().narrow(Network.host()) == Network.loopback()


def test_rlimits_narrow_pairwise():
    both = Rlimit(nofile=(10, 100), core=0).narrow(Rlimit(nofile=(20, 50)))
    assert both.nofile == (10, 50)
    assert both.core == (0, 0)


def test_namespaces_unite():
    both = Namespace(pid=True).narrow(Namespace(net=True, uts=True, hostname="x"))
    assert both.kinds == ("pid", "net", "uts")
    assert both.hostname == "x"


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Namespace(hostname="x"), "uts=True"),
        (lambda: Namespace(uid_map=[IdMap(0, 1)]), "user=True"),
        (lambda: CapabilitySet("FLY"), "FLY"),
        (lambda: CapabilitySet(effective=["CHOWN"]), "permitted"),
        (lambda: Rlimit(nofile=(2, 1)), "soft"),
        (lambda: CgroupLimit(pids=0), "CgroupLimit.pids"),
        (lambda: CgroupLimit(cpuset="x"), "numbers"),
        (lambda: Mount.bind("/a", "b"), "absolute"),
        (lambda: Mount.bind("/a", "/b/../c"), r"\.\."),
        (lambda: Deadline(wall="soon"), "duration"),
        (lambda: Command([]), "empty"),
        (lambda: Command("ls"), "list"),
        (lambda: Command(["a", "b\0"]), r"argv\[1\]"),
        (lambda: Command(["a"], env={"A=B": "c"}), "'='"),
        (lambda: Policy("x"), "primitives"),
    ],
)
def test_a_mistake_is_named(make, names):
    with pytest.raises(PolicyError, match=names):
        make()


def test_docker_gives_fourteen_capabilities():
    assert len(DOCKER) == 14
    assert CapabilitySet.docker().effective == set(DOCKER)
    assert CapabilitySet.none().bounding == frozenset()
