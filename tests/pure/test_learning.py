"""What is made of the calls that were seen: the fewest rules that let them, and only them, pass."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import (
    Errno,
    IsolateError,
    Policy,
    PolicyError,
    Rule,
    Sandbox,
    SeccompFilter,
    Violation,
)
from isolate.abi.signatures import ENUMS, params
from isolate.abi.syscalls import numbers
from isolate.learning import CHANCE, FEW, LAUNCH, arguments, learnt, watching
from isolate.policy.handlers import NOTIFY
from isolate.policy.rules import ALLOW

EPERM, ENOSYS = Errno("EPERM"), Errno("ENOSYS")
TABLE = numbers("x86_64")


def seen(syscall, *args, action=ALLOW, count=1):
    return Violation(syscall=syscall, args=args, action=action, count=count)


def answer(wanted, syscall, *args):
    return wanted.evaluate(syscall, *args, arch="x86_64").action


def test_a_call_that_was_seen_passes_and_others_do_not():
    wanted = learnt([seen("getcwd", 1, 2), seen("read", 0, 1, 2)])
    assert answer(wanted, "getcwd", 7, 7) == ALLOW
    assert answer(wanted, "read", 9, 9, 9) == ALLOW
    assert answer(wanted, "write", 1, 1, 1) == EPERM
    assert answer(wanted, "mount") == EPERM


def test_what_was_refused_is_not_learnt():
    wanted = learnt([seen("mount", action=EPERM), seen("chroot", action=ENOSYS)])
    assert answer(wanted, "mount") == EPERM
    assert answer(wanted, "chroot") == EPERM


def test_a_call_seen_both_ways_is_learnt_as_it_passed():
    calls = [seen("socket", 1, 1, 0), seen("socket", 40, 1, 0, action=EPERM)]
    wanted = learnt(calls)
    assert answer(wanted, "socket", 1, 1, 0) == ALLOW
    assert answer(wanted, "socket", 40, 1, 0) == EPERM


@pytest.mark.parametrize("name", [*LAUNCH, *CHANCE])
def test_what_the_launch_and_chance_need_is_always_there(name):
    wanted = learnt([])
    if name in TABLE:
        assert answer(wanted, name) == ALLOW
        assert answer(wanted, name, *[(1 << 64) - 1] * 6) == ALLOW


def test_clone3_is_absent_unless_it_passed():
    assert answer(learnt([]), "clone3") == ENOSYS
    assert answer(learnt([seen("clone3", 1, 88, action=ENOSYS)]), "clone3") == ENOSYS
    assert answer(learnt([seen("clone3", 1, 88)]), "clone3") == ALLOW


def test_unknown_numbers_are_absent():
    wanted = learnt([seen("syscall_999"), seen("read", 0, 1, 2)])
    assert {rule.syscall for rule in wanted.layers[0].rules} & {"syscall_999"} == set()
    assert wanted.layers[0].unknown == ENOSYS


def test_what_was_too_much_to_count_is_an_error_and_no_guess():
    with pytest.raises(IsolateError, match="17 calls"):
        learnt([seen("read", 0, 1, 2), Violation(syscall="others", count=17)])


def test_few_arguments_are_conditions_and_many_are_none():
    few = [seen("ioctl", 3, 0x5400 + n, 0) for n in range(FEW)]
    wanted = learnt(few)
    assert answer(wanted, "ioctl", 99, 0x5400, 0) == ALLOW
    assert answer(wanted, "ioctl", 3, 0x54FF, 0) == EPERM
    many = [*few, seen("ioctl", 3, 0x5500, 0)]
    assert answer(learnt(many), "ioctl", 3, 0x54FF, 0) == ALLOW


def test_only_arguments_of_few_values_are_looked_at():
    """A descriptor, a size or an address is of no program's making, a family or a flag is."""
    assert arguments(seen("socket", 1, 2, 3)) == ((0, 1), (1, 2)) or arguments(
        seen("socket", 1, 2, 3)
    ) == ((0, 1), (1, 2), (2, 3))
    assert arguments(seen("read", 3, 4096, 100)) == ()
    assert arguments(seen("getpid")) == ()
    assert arguments(seen("nothing_known", 1, 2)) == ()


def test_a_learnt_filter_narrows_like_any_other():
    wanted = learnt([seen("read", 0, 1, 2), seen("mount", 1, 2, 3, 0, 5)])
    both = SeccompFilter.default().narrow(wanted)
    assert answer(both, "read") == ALLOW
    assert answer(both, "mount") == EPERM  # the default refuses it all the same
    assert answer(both, "write") == EPERM


CALLS = st.sampled_from(sorted(TABLE))
ARGS = st.lists(st.integers(0, (1 << 64) - 1), min_size=6, max_size=6)


@st.composite
def violations(draw):
    name = draw(CALLS)
    known = params(name)
    args = draw(ARGS)[: 6 if known is None else len(known)]
    return seen(name, *args)


@settings(max_examples=80, deadline=None)
@given(st.lists(violations(), max_size=25))
def test_whatever_passed_passes_again(calls):
    wanted = learnt(calls)
    for each in calls:
        assert answer(wanted, each.syscall, *each.args) == ALLOW, each


@settings(max_examples=80, deadline=None)
@given(st.lists(violations(), max_size=25), CALLS, ARGS)
def test_what_did_not_pass_is_refused(calls, name, args):
    wanted = learnt(calls)
    told = {each.syscall for each in calls} | {*LAUNCH, *CHANCE, "clone3"}
    if name not in told:
        assert answer(wanted, name, *args) == EPERM


@settings(max_examples=40, deadline=None)
@given(st.lists(violations(), max_size=15))
def test_the_order_and_the_number_of_runs_change_nothing(calls):
    once = learnt(calls)
    assert learnt(calls[::-1]) == once
    assert learnt([*calls, *calls]) == once


@settings(max_examples=40, deadline=None)
@given(st.lists(violations(), max_size=15))
def test_more_runs_only_widen(calls):
    some, all_of_them = learnt(calls[: len(calls) // 2]), learnt(calls)
    for each in calls[: len(calls) // 2]:
        assert answer(all_of_them, each.syscall, *each.args) == ALLOW
    assert {rule.syscall for rule in some.layers[0].rules} <= {
        rule.syscall for rule in all_of_them.layers[0].rules
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(violations(), max_size=15))
def test_a_learnt_filter_can_be_written_read_and_shown(calls):
    wanted = learnt(calls)
    text = Policy(wanted).dumps()
    assert Policy.loads(text).get(SeccompFilter) == wanted
    for name in {each.syscall for each in calls}:
        assert any(f'syscall = "{name}"' in line for line in text.splitlines())
    assert all(line.count("syscall = ") <= 1 for line in text.splitlines())
    assert "execve" in wanted.disassemble("x86_64")


# -- the box that is watched


def test_the_watched_box_asks_about_every_call_but_the_launchs():
    wanted = watching(Sandbox()).policy.get(SeccompFilter)
    assert wanted.observed
    assert (wanted.silent, wanted.lethal) == (frozenset(), False)
    observer = wanted.layers[-1]
    assert observer.default == NOTIFY
    assert {rule.syscall for rule in observer.rules} == set(LAUNCH)


def test_the_watched_box_keeps_all_else_and_leaves_the_given_one_alone():
    given_one = Sandbox(mem="64M", seccomp=SeccompFilter.deny("chmod", silent=True, lethal=True))
    before = given_one.policy
    watched = watching(given_one)
    assert given_one.policy == before
    rest = [each for each in watched.policy if not isinstance(each, SeccompFilter)]
    assert rest == [each for each in before if not isinstance(each, SeccompFilter)]
    names = {layer.name for layer in watched.policy.get(SeccompFilter).layers}
    assert {"deny", "default", "observer"} <= names


def test_a_box_that_decides_by_handlers_is_not_learnt_from():
    with pytest.raises(PolicyError, match="handlers"):
        watching(Sandbox(seccomp=SeccompFilter.on("mkdir", len)))


@pytest.mark.parametrize("runs", [0, -1])
def test_learning_takes_a_run(runs):
    with pytest.raises(PolicyError, match="at least one run"):
        SeccompFilter.learn(["/bin/true"], runs=runs)


def test_a_function_takes_no_options_of_programs():
    with pytest.raises(PolicyError, match="arguments only"):
        SeccompFilter.learn(len, [], timeout=3)


def test_the_kinds_that_are_conditions_are_tables_of_words():
    rule = Rule("socket", ALLOW)
    assert rule.conditions == ()
    for name in TABLE:
        for param in params(name) or ():
            if param.kind in ENUMS:
                assert not param.is_pointer, (name, param)
