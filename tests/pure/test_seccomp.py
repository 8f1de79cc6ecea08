"""The filter compiler: rules, their BPF, and two ways to evaluate them that must agree."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import Arg, Errno, PolicyError, Rule, SeccompFilter
from isolate.abi import syscalls
from isolate.abi.syscalls import ARCHES, AUDIT_ARCH, X32_BIT, name_of, numbers
from isolate.plan.bpf.assemble import MAX_INSTRUCTIONS, assemble, join
from isolate.plan.bpf.evaluate import run
from isolate.plan.compile import compile_plan
from isolate.policy.command import Command
from isolate.policy.policy import Policy
from isolate.policy.rules import ALLOW, KILL_PROCESS, Action, Compare, Condition, Layer
from isolate.policy.seccomp_default import REFUSED
from tests import hosts

ROOT = Path(__file__).resolve().parents[2]
X86 = AUDIT_ARCH["x86_64"]
WORD = (1 << 64) - 1
EDGES = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 63, WORD]


def action(layer, call, *args, arch="x86_64"):
    program = assemble(layer, arch)
    return run(program, AUDIT_ARCH[arch], numbers(arch)[call], args).action


# -- tables


def test_known_numbers_are_the_kernels():
    """A few from the manual pages, of each architecture."""
    assert numbers("x86_64")["read"] == 0
    assert numbers("x86_64")["execve"] == 59
    assert numbers("i386")["execve"] == 11
    assert numbers("aarch64")["openat"] == numbers("riscv64")["openat"] == 56
    for arch in ARCHES:
        table = numbers(arch)
        assert len(set(table.values())) == len(table)
        assert table["clone3"] == 435
        assert name_of(arch, table["write"]) == "write"
    assert "open" not in numbers("aarch64")
    assert name_of("x86_64", 100_000) is None


@pytest.mark.needs("cross-headers")
def test_the_tables_are_what_the_generator_writes():
    argv = [sys.executable, str(ROOT / "_native/gen_syscalls.py"), "--check", syscalls.__file__]
    assert subprocess.run(argv, timeout=60).returncode == 0


# -- rules


def test_an_argument_compares_into_a_condition():
    assert (Arg(0) == 1) == Condition(0, Compare.EQ, 1)
    assert (Arg(1) & 7 == 2) == Condition(1, Compare.MASKED_EQ, 2, 7)
    assert (Arg(2) >= 3).compare is Compare.GE
    assert (Arg(0) == -1).value == WORD


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Arg(6) == 1,
        lambda: Arg(0) == "x",
        lambda: (Arg(0) & 1) > 1,
        lambda: Arg(0, width=16) == 1,
        lambda: Action("maybe"),
        lambda: Action("allow", 5),
        lambda: Errno("ENOTHING"),
        lambda: SeccompFilter.allow("raed"),
        lambda: SeccompFilter.deny(5),
        lambda: SeccompFilter(("x",)),
    ],
)
def test_what_is_no_rule_is_refused(wrong):
    with pytest.raises(PolicyError):
        wrong()


def test_filters_hash_compare_and_pickle():
    for each in (
        SeccompFilter.default(),
        SeccompFilter.deny("@network"),
        SeccompFilter.allow("read"),
    ):
        again = pickle.loads(pickle.dumps(each))
        assert again == each
        assert hash(again) == hash(each)


def test_joining_adds_up_and_the_strictest_wins():
    both = SeccompFilter.deny("mkdir") | SeccompFilter.deny("mkdir", action=KILL_PROCESS)
    wanted = both.get(SeccompFilter)
    assert wanted.evaluate("mkdir", arch="x86_64").action in (KILL_PROCESS, Errno("EPERM"))
    narrow = SeccompFilter.default().narrow(SeccompFilter.default())
    assert narrow == SeccompFilter.default()


# -- the compiler against the rules


@pytest.mark.parametrize("compare", list(Compare))
@pytest.mark.parametrize("width", [32, 64])
def test_every_comparator_is_exact_at_its_edges(compare, width):
    for value in EDGES:
        test = Condition(3, compare, value, 0xFF00FF00FF00FF, width)
        layer = Layer((Rule("read", Errno(7), (test,)),), ALLOW)
        for arg in {(value + step) & WORD for step in (-1, 0, 1)} | set(EDGES):
            expected = Errno(7) if test.holds(arg) else ALLOW
            assert action(layer, "read", 9, 9, 9, arg) == expected, (compare, value, arg)


def test_conditions_must_all_hold_and_the_strictest_rule_decides():
    layer = Layer(
        (
            Rule("socket", ALLOW, (Arg(0) == 1, Arg(1) == 2)),
            Rule("socket", Errno(5), (Arg(2) > 3,)),
        ),
        Errno(1),
    )
    assert action(layer, "socket", 1, 2, 0) == ALLOW
    assert action(layer, "socket", 1, 2, 4) == Errno(5)
    assert action(layer, "socket", 1, 3, 0) == Errno(1)


def test_foreign_architectures_and_x32_are_killed():
    program = assemble(SeccompFilter.default().layers[0], "x86_64")
    for arch in (AUDIT_ARCH["i386"], AUDIT_ARCH["aarch64"], 0, 0xFFFFFFFF):
        assert run(program, arch, 0).action == KILL_PROCESS
    for number in (X32_BIT, X32_BIT | 1, 0x7FFFFFFF, 0xFFFFFFFF):
        assert run(program, X86, number).action == KILL_PROCESS


def test_a_further_architecture_is_let_in_by_its_own_numbers():
    layer = Layer((Rule("getpid"),), Errno(1), arches=("i386",))
    program = assemble(layer, "x86_64")
    assert run(program, AUDIT_ARCH["i386"], numbers("i386")["getpid"]).action == ALLOW
    assert run(program, AUDIT_ARCH["i386"], numbers("x86_64")["getpid"]).action == Errno(1)
    assert run(program, AUDIT_ARCH["aarch64"], 172).action == KILL_PROCESS


def test_numbers_that_no_table_knows_get_their_own_answer():
    program = assemble(SeccompFilter.default().layers[0], "x86_64")
    for number in (387, 423, 470, 1000, X32_BIT - 1):
        assert run(program, X86, number).action == Errno("ENOSYS")


CONDITIONS = st.builds(
    Condition,
    st.integers(0, 5),
    st.sampled_from(list(Compare)),
    st.sampled_from(EDGES) | st.integers(0, WORD),
    st.sampled_from([WORD, 0xFF, 0xF0F0F0F000000000, 0]),
    st.sampled_from([32, 64]),
)
ACTIONS = st.sampled_from([ALLOW, Errno(1), Errno(38), KILL_PROCESS, Action("log"), Action("trap")])
CALLS = st.sampled_from(sorted(numbers("x86_64")))
RULES = st.builds(Rule, CALLS, ACTIONS, st.lists(CONDITIONS, max_size=4).map(tuple))
LAYERS = st.builds(Layer, st.lists(RULES, max_size=60).map(tuple), ACTIONS, st.none() | ACTIONS)


@settings(max_examples=60, deadline=None)
@given(
    LAYERS, st.lists(st.tuples(CALLS, st.lists(st.sampled_from(EDGES), max_size=6)), max_size=30)
)
def test_the_program_does_what_the_rules_say(layer, calls):
    program = assemble(layer, "x86_64")
    wanted = SeccompFilter((layer,))
    named = [(rule.syscall, [t.value for t in rule.conditions]) for rule in layer.rules]
    for call, args in [*calls, *named]:
        verdict = wanted.evaluate(call, *args[:6], arch="x86_64")
        if verdict.layer == layer.name and verdict.action != KILL_PROCESS:
            answer = run(program, X86, numbers("x86_64")[call], args[:6])
            assert answer.action == verdict.action
    assert join.__wrapped__((layer,), "x86_64") == program


def test_a_rule_of_many_conditions_jumps_far():
    tests = tuple(Arg(0) != value for value in range(150))
    layer = Layer((Rule("read", Errno(9), tests), Rule("write", Errno(8), tests)), ALLOW)
    assert action(layer, "read", 150) == Errno(9)
    assert action(layer, "read", 0) == ALLOW
    assert action(layer, "write", 149) == ALLOW
    assert action(layer, "write", 1 << 40) == Errno(8)


def test_a_program_that_is_too_long_is_refused():
    rules = tuple(
        Rule("read", Errno(1 + value % 90), (Arg(0) == value, Arg(1) == value))
        for value in range(900)
    )
    with pytest.raises(PolicyError, match=str(MAX_INSTRUCTIONS)):
        assemble(Layer(rules, ALLOW), "x86_64")


def test_a_call_without_argument_rules_costs_few_instructions():
    program = assemble(SeccompFilter.default().layers[0], "x86_64")
    costs = [
        run(program, X86, numbers("x86_64")[name]).steps for name in ("read", "getppid", "futex")
    ]
    assert max(costs) <= 14


# -- in plans


def test_the_filter_is_the_last_thing_before_exec():
    policy = Policy(SeccompFilter.default())
    plan = compile_plan(policy, Command(["true"]), hosts.ROOT_V1)
    names = [op.code.name for op in plan.program]
    assert names[-3:] == ["READY", "SECCOMP", "EXEC"]
    assert names.index("NO_NEW_PRIVS") < names.index("SECCOMP")


@pytest.mark.parametrize("call", ["execve", "exit_group"])
def test_a_filter_that_would_stop_the_launch_is_refused_by_name(call):
    policy = Policy(SeccompFilter.deny(call, action=KILL_PROCESS))
    with pytest.raises(PolicyError, match=call):
        compile_plan(policy, Command(["true"]), hosts.ROOT_V1)


def test_a_filter_that_closes_the_door_is_installed_last():
    closed = SeccompFilter.deny("seccomp", "mkdir")
    policy = Policy(closed.narrow(SeccompFilter.default()))
    plan = compile_plan(policy, Command(["true"]), hosts.ROOT_V1)
    about = [op.about for op in plan.program if op.code.name == "SECCOMP"]
    assert "default" in about[0]
    assert "deny" in about[1]
    both = SeccompFilter.deny("seccomp").narrow(SeccompFilter.deny("seccomp", "mkdir"))
    with pytest.raises(PolicyError, match="seccomp"):
        compile_plan(Policy(both), Command(["true"]), hosts.ROOT_V1)


# -- the default


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_every_refusal_of_the_default_holds_and_has_a_reason(arch):
    layer = SeccompFilter.default().layers[0]
    for group, (calls, reason) in REFUSED.items():
        assert len(reason) > 10, group
        for call in calls.split():
            if call in numbers(arch):
                assert action(layer, call, arch=arch) == Errno("EPERM"), call


def test_the_default_looks_at_arguments():
    layer = SeccompFilter.default().layers[0]
    new_user, thread = 0x10000000, 0x3D0F00
    assert action(layer, "clone", thread) == ALLOW
    assert action(layer, "clone", new_user | 17) == Errno("EPERM")
    assert action(layer, "clone3") == Errno("ENOSYS")
    assert action(layer, "ioctl", 0, 0x5401) == ALLOW
    assert action(layer, "ioctl", 0, 0x5412) == Errno("EPERM")
    assert action(layer, "ioctl", 0, 0x5412 | 7 << 32) == Errno("EPERM")  # the kernel takes an int
    assert action(layer, "socket", 1, 1, 0) == ALLOW
    assert action(layer, "socket", 2, 1 | 0o2000000, 6) == ALLOW
    assert action(layer, "socket", 16, 3, 0) == ALLOW
    for family, kind, protocol in [
        (16, 3, 9),
        (17, 3, 0),
        (38, 5, 0),
        (40, 1, 0),
        (2, 5, 132),
        (2, 1, 262),
    ]:
        assert action(layer, "socket", family, kind, protocol) == Errno("EPERM"), family
    assert action(layer, "personality", 0xFFFFFFFF) == ALLOW
    assert action(layer, "personality", 0x40000) == Errno("EPERM")
    assert action(layer, "prlimit64", 0, 7, 1) == ALLOW
    assert action(layer, "prlimit64", 5, 7, 0) == ALLOW
    assert action(layer, "prlimit64", 5, 7, 1) == Errno("EPERM")
