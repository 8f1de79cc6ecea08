"""Several layers as one program: proved equal, for every argument, to what the layers say in turn.

The reading that the compiler is held to is the plain one: the layers' own programs, one behind the
other, each going on to the next where it allows. It is longer and slower, and easy to believe.
"""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import Arg, Errno, PolicyError, Rule, SeccompFilter
from isolate.abi.syscalls import AUDIT_ARCH, X32_BIT, numbers
from isolate.plan.bpf.assemble import JA, RET, RETURNS, assemble, chained, join, may_pass
from isolate.plan.bpf.compare import known_calls
from isolate.plan.bpf.diagram import Diagrams
from isolate.plan.bpf.evaluate import run
from isolate.plan.bpf.symbolic import answers, call_of, together
from isolate.plan.lower.seccomp_notify import DOOR, DOORS, GUARD, doorways, listening, seal, told
from isolate.policy.handlers import NOTIFY
from isolate.policy.rules import ALLOW, KILL_PROCESS, STRICTNESS, Action, Compare, Condition, Layer

ARCHES = ["x86_64", "i386", "aarch64", "riscv64"]
X86 = AUDIT_ARCH["x86_64"]
TABLE = numbers("x86_64")
EPERM, ENOSYS, EBUSY = Errno("EPERM"), Errno("ENOSYS"), Errno("EBUSY")
ALLOWED = struct.pack("=HBBI", RET, 0, 0, RETURNS["allow"])


def in_turn(programs):
    """One program: where one allows, the next is asked; any other answer is the answer."""
    joined = b""
    for program in programs[:-1]:
        parts = [program[at : at + 8] for at in range(0, len(program), 8)]
        for at, part in enumerate(parts):
            on = struct.pack("=HBBI", JA, 0, 0, len(parts) - at - 1)
            joined += on if part == ALLOWED else part
    return joined + programs[-1]


def same(one, other):
    """Nothing, or a call that two programs answer differently."""
    space = Diagrams()
    mine, yours = answers(space, one), answers(space, other)
    if mine == yours:
        return None
    return call_of(space, space.mapped((mine, yours), lambda a, b: int(a != b)))


def mean(programs, arch="x86_64"):
    """Steps of a call that all of them let through, on average, over all of them."""
    taken = []
    for number in numbers(arch).values():
        found = [run(each, AUDIT_ARCH[arch], number) for each in programs]
        if all(each.action.name in ("allow", "log") for each in found):
            taken.append(sum(each.steps for each in found))
    return sum(taken) / len(taken)


# -- made-up layers

NAMES = ["read", "mount", "socket", "clone3", "mbind", "kill", "openat", "seccomp", "sendmsg"]
VALUES = st.sampled_from([0, 1, 5, 0xFFFFFFFF, 1 << 32, (1 << 64) - 1])
CONDITIONS = st.builds(
    lambda at, how, value, width: Condition(at, how, value, value | 7, width),
    st.integers(0, 2), st.sampled_from(list(Compare)), VALUES, st.sampled_from([32, 64]),
)  # fmt: skip
ANSWERS = st.sampled_from([ALLOW, ALLOW, EPERM, ENOSYS, NOTIFY, KILL_PROCESS, Action("trap")])
RULES = st.builds(
    Rule, st.sampled_from(NAMES), ANSWERS, st.lists(CONDITIONS, max_size=2).map(tuple)
)
LAYERS = st.builds(
    Layer,
    st.lists(RULES, max_size=8).map(tuple),
    st.sampled_from([ALLOW, EPERM, NOTIFY]),
    st.none() | st.just(ENOSYS),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=4), st.sampled_from(["x86_64", "aarch64"]))
def test_joined_layers_answer_as_they_do_one_after_the_other(layers, arch):
    plain = in_turn([assemble(each, arch) for each in layers])
    assert same(join(tuple(layers), arch), plain) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=3), st.lists(RULES, max_size=4))
def test_what_is_asked_first_is_final_where_it_holds(layers, first):
    """Also where it allows: then no layer is asked."""
    joined = join(tuple(layers), "x86_64", tuple(first))
    without = join(tuple(layers), "x86_64")
    for name in NAMES:
        for args in [(0, 0, 0), (1, 5, 7), (0xFFFFFFFF, 1 << 32, 1)]:
            held = [
                rule.action
                for rule in first
                if rule.syscall == name and all(t.holds(args[t.index]) for t in rule.conditions)
            ]
            expected = held[0] if held else run(without, X86, TABLE[name], args).action
            assert run(joined, X86, TABLE[name], args).action == expected


@settings(max_examples=60, deadline=None)
@given(LAYERS, st.sampled_from(ARCHES))
def test_one_layer_alone_is_what_assemble_makes(layer, arch):
    assert join((layer,), arch) == assemble(layer, arch)


@settings(max_examples=60, deadline=None)
@given(st.lists(LAYERS, min_size=2, max_size=4))
def test_a_layer_twice_says_nothing_new(layers):
    assert same(join((*layers, *layers), "x86_64"), join(tuple(layers), "x86_64")) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=3))
def test_a_layer_that_allows_all_says_nothing(layers):
    idle = Layer((), ALLOW)
    assert same(join((*layers, idle), "x86_64"), join(tuple(layers), "x86_64")) is None
    assert same(join((idle, *layers), "x86_64"), join(tuple(layers), "x86_64")) is None


# -- chains


def test_a_chain_has_no_more_than_what_decides():
    some = ((Rule("read", EPERM, (Arg(0) == 1,)),), ALLOW)
    always = ((), EPERM)
    idle = ((), ALLOW)
    assert chained([idle, idle]) == ()
    assert chained([idle, some, idle]) == (some,)
    assert chained([some, always, some]) == (some, always)
    assert chained([((), None), always]) == (always,)


def test_a_chain_that_may_pass_is_worth_finding():
    some = ((Rule("read", EPERM, (Arg(0) == 1,)),), ALLOW)
    assert may_pass(())
    assert may_pass((some,))
    assert may_pass((((), Action("log")),))
    assert not may_pass((((), EPERM),))
    assert not may_pass((((), NOTIFY),))


# -- architectures


def test_an_abi_that_one_layer_does_not_let_in_is_let_in_by_none():
    wide = Layer((), ALLOW, arches=("i386",))
    narrow = Layer((), ALLOW)
    i386 = AUDIT_ARCH["i386"]
    assert run(join((wide, wide), "x86_64"), i386, 20).action == ALLOW
    for layers in ((wide, narrow), (narrow, wide)):
        assert run(join(layers, "x86_64"), i386, 20).action == KILL_PROCESS
        assert run(join(layers, "x86_64", (), NOTIFY), i386, 20).action == NOTIFY


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("foreign", [KILL_PROCESS, NOTIFY, EPERM])
def test_every_other_abi_gets_what_foreign_calls_get(arch, foreign):
    program = join((Layer((), ALLOW), Layer((), ALLOW)), arch, (), foreign)
    for other, audit in {**AUDIT_ARCH, "none": 0, "all": 0xFFFFFFFF}.items():
        expected = ALLOW if other == arch else foreign
        assert run(program, audit, 3).action == expected
    x32 = run(program, AUDIT_ARCH[arch], X32_BIT | 1).action
    assert x32 == (foreign if arch == "x86_64" else ALLOW)


def test_the_tables_that_lack_are_named():
    with pytest.raises(PolicyError, match="no table of system calls for s390x"):
        join((Layer((), ALLOW), Layer((), ALLOW, arches=("s390x",))), "x86_64")
    with pytest.raises(PolicyError, match="mips"):
        join((Layer((), ALLOW),), "mips")


def test_joined_layers_are_as_long_as_the_kernel_takes_at_most():
    def rules(first):
        return (Rule("read", Errno(1 + v % 90), (Arg(0) == first + v,)) for v in range(1800))

    many = tuple(Layer(tuple(rules(2000 * n)), ALLOW) for n in range(3))
    with pytest.raises(PolicyError, match="instructions and the kernel takes 4096"):
        join(many, "x86_64")
    assert 1800 < len(join(many[:1], "x86_64")) // 8 <= 4096


def test_far_jumps_between_layers_reach():
    """The next layer's tests are more than 255 instructions away from the first's."""
    long = Layer(
        tuple(Rule("read", Errno(9), (Arg(0) == v, Arg(1) == v)) for v in range(150)), ALLOW
    )
    last = Layer((Rule("read", Errno(7), (Arg(2) == 7,)),), ALLOW)
    program = join((long, last), "x86_64")
    for v in (0, 1, 77, 149):
        assert run(program, X86, 0, [v, v, 7]).action == Errno(9)
        assert run(program, X86, 0, [v, v + 1, 7]).action == Errno(7)
        assert run(program, X86, 0, [v, v + 1, 8]).action == ALLOW


# -- what is really installed

POLICIES = {
    "default": SeccompFilter.default(),
    "docker": SeccompFilter.docker(),
    "docker in a Sandbox": SeccompFilter.default().narrow(SeccompFilter.docker()),
    "as admin": SeccompFilter.docker(["SYS_ADMIN"]).narrow(SeccompFilter.default()),
    "deny": SeccompFilter.default().narrow(SeccompFilter.deny("@network", "chmod")),
    "silent": SeccompFilter.default(silent=["mount", "@debug"]),
    "allow": SeccompFilter.default().narrow(
        SeccompFilter.allow("read", "close", "@process", "mmap", "brk")
    ),
    "handler": SeccompFilter.default().narrow(SeccompFilter.on("connect", len)),
    "lethal": SeccompFilter.default(lethal=True),
    "kill": SeccompFilter.deny(Rule("acct", KILL_PROCESS), Rule("sync", EPERM)),
    "trap": SeccompFilter.default().narrow(SeccompFilter.deny(Rule("acct", Action("trap")))),
}


def ranks(space, programs):
    """How strict all of them are together."""
    return together(space, programs)


def with_key(space):
    """Where a call carries the key of set-up, by whatever ABI."""
    program = seal(7, "x86_64")
    return space.mapped((answers(space, program),), lambda value: int(value != RETURNS["allow"]))


def second_listener(space):
    """Where a call asks for one."""
    program = join((Layer((), ALLOW, arches=("i386",)),), "x86_64", (GUARD,))
    return space.mapped((answers(space, program),), lambda v: int(v == RETURNS["errno"] | 16))


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_installed_lets_pass_what_the_policy_lets_pass_and_no_more(name):
    """For every architecture, number and argument, by proof: allowed if, and only if, it is.

    But for a second listener's flag, and for the launch's key, which the seal refuses again.
    """
    wanted = POLICIES[name]
    found = listening(wanted, "x86_64")
    space = Diagrams()
    installed = [found.main, *(program for _, program in found.further)]
    mine, policy = ranks(space, installed), ranks(space, found.policy)
    passing = [STRICTNESS.index("allow"), STRICTNESS.index("log")]
    let_in = space.mapped((mine,), lambda rank: int(rank in passing))
    meant = space.mapped((policy,), lambda rank: int(rank in passing))
    assert space.without(let_in, meant) == space.no  # nothing more passes
    more = space.without(meant, let_in)
    more = space.without(more, second_listener(space))
    if found.doors:
        more = space.without(more, with_key(space))
    assert more == space.no, call_of(space, more)


@pytest.mark.parametrize("name", POLICIES)
def test_what_the_policy_kills_is_killed_or_told_to_the_supervisor(name):
    found = listening(POLICIES[name], "x86_64")
    space = Diagrams()
    installed = [found.main, *(program for _, program in found.further)]
    both = ranks(space, installed), ranks(space, found.policy)
    seen = {STRICTNESS.index(each) for each in ("kill_process", "notify")}
    kills = STRICTNESS.index("kill_process")
    mild = space.mapped(both, lambda ours, meant: int(meant == kills and ours not in seen))
    mild = space.without(mild, space.either([second_listener(space), with_key(space)]))
    assert mild == space.no, call_of(space, mild)


@pytest.mark.parametrize("name", POLICIES)
def test_the_program_with_the_listener_is_the_layers_in_turn(name):
    """As it was before they were joined: guard, then layer after layer; the key before all."""
    wanted = POLICIES[name]
    found = listening(wanted, "x86_64")
    layers = [layer for layer in wanted.layers if layer.rules or layer.default != ALLOW]
    kills = any(r.action.name in ("trap", "kill_thread") for each in layers for r in each.rules)
    layers.reverse()
    order = sorted(layers, key=lambda each: all(r.action != KILL_PROCESS for r in each.rules))
    parts = [told(each, wanted.silent, kills) for each in order]
    foreign = KILL_PROCESS if kills else NOTIFY
    arches = parts[0].arches if all(each.arches == parts[0].arches for each in parts) else ()
    guard = Layer((GUARD,), ALLOW, arches=arches)
    programs = [join((each,), "x86_64", (), foreign) for each in (guard, *parts)]
    plain = in_turn(programs)
    ways = join((Layer((), NOTIFY),), "x86_64", doorways(found.doors), NOTIFY)
    space = Diagrams()
    key = space.mapped((answers(space, ways),), lambda value: int(value == RETURNS["allow"]))
    expected = space.choose(key, space.terminal(RETURNS["allow"]), answers(space, plain))
    ours = answers(space, found.main)
    wrong = space.mapped((ours, expected), lambda a, b: int(a != b))
    wrong = space.both(wrong, known_calls(space))
    if arches != tuple({each: None for part in parts for each in part.arches}):
        wrong = space.both(wrong, space.mapped((ours,), lambda v: int(v != RETURNS["notify"])))
    assert wrong == space.no, call_of(space, wrong)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
@pytest.mark.parametrize("name", ["default", "deny", "handler"])
def test_a_listener_costs_an_allowed_call_next_to_nothing(name, arch):
    """One search decides for all layers: as many steps as one of them takes, and a little."""
    found = listening(POLICIES[name], arch)
    assert found.further == () or found.doors
    alone = [mean([assemble(each, arch)], arch) for each in POLICIES[name].layers]
    assert mean([found.main], arch) < max(alone) + 1
    assert mean([found.main], arch) < sum(alone) or len(alone) == 1


def test_two_layers_cost_less_than_each_by_itself():
    both = POLICIES["docker in a Sandbox"]
    apart = [assemble(each, "x86_64") for each in both.layers]
    assert mean([listening(both, "x86_64").main]) < 0.6 * mean(apart)


# -- the seal


@pytest.mark.parametrize("doors", range(1, 8))
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_the_seal_refuses_the_key_and_nothing_else(doors, arch):
    space = Diagrams()
    program = seal(doors, arch)
    for name, (bit, arg) in DOORS.items():
        number = numbers(arch)[name]
        for key, rest in [(DOOR, 0), (DOOR, 0xFFFFFFFF), (DOOR - 1, 0), (DOOR + 1, 0), (0, DOOR)]:
            args = [0] * 6
            args[arg] = key << 32 | rest
            shut = doors & bit and key == DOOR
            answer = run(program, AUDIT_ARCH[arch], number, args)
            assert answer.action == (EPERM if shut else ALLOW)
            assert answer.steps <= 7
    closed = space.mapped((answers(space, program),), lambda v: int(v != RETURNS["allow"]))
    others = [number for each, number in numbers(arch).items() if each not in DOORS]
    for number in others:
        assert run(program, AUDIT_ARCH[arch], number, [DOOR << 32] * 6).action == ALLOW
    assert closed != space.no


def test_the_seal_costs_other_calls_as_many_steps_as_there_are_doors_and_two():
    for doors in range(1, 8):
        taken = run(seal(doors, "x86_64"), X86, TABLE["getpid"]).steps
        assert taken == bin(doors).count("1") + 2


def test_the_key_opens_what_it_has_to_and_the_seal_shuts_it():
    shut = SeccompFilter.deny("sendmsg", "seccomp", "write")
    found = listening(shut, "x86_64")
    assert found.doors == 7
    for name, (_, arg) in DOORS.items():
        args = [0] * 6
        assert run(found.main, X86, TABLE[name], args).action == NOTIFY
        args[arg] = DOOR << 32
        assert run(found.main, X86, TABLE[name], args).action == ALLOW
        assert run(found.further[-1][1], X86, TABLE[name], args).action == EPERM


@pytest.mark.parametrize("flags", [8, 8 | 32, 0xF, 8 | 1 << 32, (1 << 64) - 1])
@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_lets_a_second_listener_in(name, flags):
    found = listening(POLICIES[name], "x86_64")
    programs = [found.main, *(program for _, program in found.further)]
    for op in (0, 1, 2, DOOR << 32 | 1):
        got = [run(each, X86, TABLE["seccomp"], [op, flags, 0]).action for each in programs]
        strictest = min(got, key=lambda action: STRICTNESS.index(action.name))
        assert strictest.name in ("errno", "kill_process"), (op, got)
        if op >> 32 != DOOR:
            assert got[0] == EBUSY


def test_a_filter_without_a_rule_gets_a_guard_all_the_same():
    found = listening(SeccompFilter((Layer((), ALLOW),)), "x86_64")
    assert run(found.main, X86, TABLE["seccomp"], [1, 8, 0]).action == EBUSY
    assert run(found.main, X86, TABLE["seccomp"], [1, 0, 0]).action == ALLOW
