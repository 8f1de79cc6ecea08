"""A rule as a person writes it: a name, conditions, perhaps an action, in any order."""

import pickle

import pytest
from attrs import evolve

from isolate import Arg, Errno, PolicyError, Rule, SeccompFilter
from isolate.policy.rules import ALLOW, Action

ONE = Arg(0) == 1
TWO = Arg(1, width=32) == 2


@pytest.mark.parametrize(
    "rule",
    [
        Rule("write", ONE, TWO),
        Rule("write", (ONE, TWO)),
        Rule("write", ONE, (TWO,)),
        Rule("write", conditions=(ONE, TWO)),
        Rule("write", ALLOW, (ONE, TWO)),
        Rule("write", ALLOW, (ONE, TWO), "why"),
        Rule("write", ONE, ALLOW, TWO),
        Rule("write", ONE, TWO, action=ALLOW),
        Rule(syscall="write", action=ALLOW, conditions=[ONE, TWO]),
    ],
)
def test_every_way_to_write_it_is_the_same_rule(rule):
    assert rule == Rule("write", ALLOW, (ONE, TWO)) and hash(rule) == hash(Rule("write", ONE, TWO))
    assert (rule.action, rule.conditions) == (ALLOW, (ONE, TWO))
    assert pickle.loads(pickle.dumps(rule)) == rule


@pytest.mark.parametrize("junk", [1, "Arg(0) == 1", None, Arg, object(), (1,), ("x",)])
def test_what_is_neither_is_told(junk):
    with pytest.raises(PolicyError, match="write is made of conditions"):
        Rule("write", junk)


def test_two_actions_are_told():
    with pytest.raises(PolicyError, match="one action"):
        Rule("write", Errno(1), Errno(2))


def test_an_allow_list_lets_in_what_the_condition_selects():
    kept = SeccompFilter.allow("read", Rule("write", ONE))
    assert kept.evaluate("write", 1).action == ALLOW
    assert kept.evaluate("write", 2).action == Errno("EPERM")
    assert kept.evaluate("read", 5).action == ALLOW


def test_a_deny_list_refuses_what_the_condition_selects():
    kept = SeccompFilter.deny(Rule("write", ONE))
    assert kept.evaluate("write", 1).action == Errno("EPERM")
    assert kept.evaluate("write", 2).action == ALLOW


def test_the_lists_own_action_goes_to_rules_without_one():
    kept = SeccompFilter.deny(
        Rule("write", ONE), Rule("read", Errno("EIO"), ONE), action=Errno("EROFS")
    )
    assert kept.evaluate("write", 1).action == Errno("EROFS")
    assert kept.evaluate("read", 1).action == Errno("EIO")


def test_an_exception_in_a_deny_list_is_what_it_says():
    """The strictest of several rules wins, so an allowing one takes nothing back."""
    kept = SeccompFilter.deny("write", Rule("write", ALLOW, ONE))
    assert kept.evaluate("write", 1).action == Errno("EPERM")


@pytest.mark.parametrize("action", [ALLOW, Errno("EIO"), Action("kill_process")])
def test_evolve_keeps_what_it_does_not_change(action):
    rule = Rule("write", ONE, action=action, reason="why")
    other = evolve(rule, syscall="read")
    assert (other.action, other.conditions, other.reason) == (action, (ONE,), "why")
    assert evolve(Rule("write", ONE), action=action).action == action


def test_a_whole_filter_of_them_stacks_and_travels():
    first = SeccompFilter.allow("read", Rule("write", ONE), Rule("ioctl", TWO))
    both = first | SeccompFilter.deny(Rule("ioctl", Arg(0) > 2))
    assert pickle.loads(pickle.dumps(both)) == both
    assert both.evaluate("ioctl", 1, 2).action == ALLOW
    assert both.evaluate("ioctl", 3, 2).action == Errno("EPERM")
    assert both.evaluate("ioctl", 1, 3).action == Errno("EPERM")
