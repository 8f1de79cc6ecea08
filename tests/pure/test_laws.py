"""The laws of narrowing, for every primitive and for policies, against a model of its own."""

import importlib
import pickle
import pkgutil

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from isolate import CgroupLimit, Chroot, Mount, Namespace, Network, Policy, PolicyConflict
from isolate import policy as package
from isolate.policy.base import Primitive
from tests.pure.strategies import POLICIES, STRATEGIES, wider

KINDS = sorted(STRATEGIES, key=lambda kind: kind.__name__)
BOTH = st.one_of(*(st.tuples(each, each) for each in STRATEGIES.values()))
THREE = st.one_of(*(st.tuples(each, each, each) for each in STRATEGIES.values()))
ONE = st.one_of(*STRATEGIES.values())
many = settings(max_examples=60, deadline=None)


def narrowed(a, b):
    try:
        return a.narrow(b)
    except PolicyConflict:
        return None


def test_every_primitive_is_held_to_the_laws():
    found = set()
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        found |= {
            each
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, Primitive) and each is not Primitive
        }
    assert found == set(STRATEGIES)


@many
@given(BOTH)
def test_both_together_are_never_wider_than_either(pair):
    a, b = pair
    both = narrowed(a, b)
    if both is not None:
        assert wider(both, a) == []
        assert wider(both, b) == []


@many
@given(ONE)
def test_narrowing_by_itself_changes_nothing(one):
    assert one.narrow(one) == one


@many
@given(BOTH)
def test_a_narrowing_twice_is_one(pair):
    both = narrowed(*pair)
    if both is not None:
        assert both.narrow(pair[1]) == both


@many
@given(BOTH)
def test_the_order_changes_nothing_that_is_permitted(pair):
    a, b = pair
    one, other = narrowed(a, b), narrowed(b, a)
    assert (one is None) == (other is None)
    if one is not None:
        assert wider(one, other) == wider(other, one) == []
        if not isinstance(a, Chroot):  # whose mounts have an order
            assert type(a).__name__ == "SeccompFilter" or one == other


@many
@given(THREE)
def test_grouping_changes_nothing_that_is_permitted(three):
    a, b, c = three
    left, right = narrowed(a, b), narrowed(b, c)
    one = narrowed(left, c) if left is not None else None
    other = narrowed(a, right) if right is not None else None
    if one is not None and other is not None:
        assert wider(one, other) == wider(other, one) == []


@many
@given(ONE)
def test_values_pickle_hash_and_compare(one):
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert hash(again) == hash(one)
    assert type(again) is type(one)


@many
@given(ONE, st.sampled_from(["toml", "json"]))
def test_values_go_through_policy_files(one, format):
    policy = Policy(one)
    again = Policy.loads(policy.dumps(format), format)
    assert again == policy
    assert hash(again) == hash(policy)


def joined(a, b):
    try:
        return a | b
    except PolicyConflict:
        return None


@many
@given(POLICIES, POLICIES)
def test_a_policy_and_another_are_never_wider(a, b):
    both = joined(a, b)
    assume(both is not None)
    for each in (a, b):
        assert both.weaken <= each.weaken
        for item in each:
            found = next(one for one in both if type(one) is type(item))
            assert wider(found, item) == [], item


@many
@given(POLICIES)
def test_a_policy_with_itself_is_itself(a):
    assert a | a == a


@many
@given(POLICIES, POLICIES)
def test_the_order_of_policies_changes_nothing_that_is_permitted(a, b):
    one, other = joined(a, b), joined(b, a)
    assert (one is None) == (other is None)
    if one is not None:
        assert one.weaken == other.weaken
        kinds = {type(item) for item in one}
        assert kinds == {type(item) for item in other}
        for kind in kinds:
            first, second = one.get(kind), other.get(kind)
            assert wider(first, second) == wider(second, first) == []


@settings(max_examples=60, deadline=None)
@given(POLICIES, st.sampled_from(["toml", "json"]))
def test_policies_pickle_and_go_through_files(policy, format):
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert Policy.loads(policy.dumps(format), format) == policy


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Chroot("/a"), Chroot("/b")),
        (Chroot("/a"), Chroot.host_view()),
        (Mount.tmpfs("/m"), Mount.proc("/m")),
        (
            Chroot.host_view(mounts=[Mount.tmpfs("/m")]),
            Chroot.host_view(mounts=[Mount.proc("/m")]),
        ),
        (CgroupLimit(cpuset="0"), CgroupLimit(cpuset="1")),
        (Namespace(uts=True, hostname="a"), Namespace(uts=True, hostname="b")),
        (Namespace(time=True, boottime_offset=1), Namespace(time=True, boottime_offset=2)),
        (Namespace(net=True), Namespace(joins=(("net", "path:/x"),))),
        (Namespace(joins=(("net", "path:/y"),)), Namespace(joins=(("net", "path:/x"),))),
    ],
    ids=str,
)
def test_what_has_no_narrowing_is_a_conflict_in_either_order(a, b):
    for one, other in ((a, b), (b, a)):
        with pytest.raises(PolicyConflict):
            one.narrow(other)
        with pytest.raises(PolicyConflict):
            Policy(one) | other


def test_the_model_tells_wider_from_narrower():
    """Otherwise the laws above would hold for anything."""
    assert wider(Network.host(), Network.none()) == ["kind"]
    assert wider(Namespace(), Namespace(net=True)) == ["shared"]
    assert "swap" in wider(CgroupLimit(memory="1M", swap="1M"), CgroupLimit(memory="1M"))
    assert wider(Chroot.host_view(write=["/a"]), Chroot.host_view(read=["/a"])) == ["write"]
    assert wider(Chroot.host_view(read=["/a"]), Chroot.host_view(read=["/a/b"])) == ["read"]
