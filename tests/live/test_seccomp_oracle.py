"""libseccomp is the oracle: the same rules, two compilers, the same answers.

Three ways to look: a proof over every argument (both programs as decision diagrams), calls by the
hundred thousand through a machine in C (ISOLATE_ORACLE_TUPLES of them for each profile), and some
through the library's own evaluator, which has to agree with the C one.

libseccomp 2.5.4 weaves several rules with tests of one call into one chain, and some chains are
wrong: the plain reading of the rules is the judge there, and it must be on our side.
"""

import ctypes
import faulthandler
import os
import struct

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from isolate import CapabilitySet, Errno, Rule, SeccompFilter
from isolate.abi.syscalls import AUDIT_ARCH, X32_BIT, numbers
from isolate.plan.bpf.assemble import OFFSET_ARCH, OFFSET_NR, assemble
from isolate.plan.bpf.compare import calls_of, known_calls
from isolate.plan.bpf.diagram import Diagrams
from isolate.plan.bpf.evaluate import run
from isolate.plan.bpf.symbolic import UPPER, answers, call_of, word, word_bits
from isolate.policy.rules import ALLOW, KILL_PROCESS, Action, Compare, Condition, Layer
from tests.conftest import TEST_DATA
from tests.live.libseccomp import LINEAR, TREE, UNKNOWN, number_of, theirs
from tests.live.machine import Calls, run_in_c
from tests.pure.reading import differing

pytestmark = pytest.mark.needs("libseccomp", "gcc")

ARCH = os.uname().machine
AUDIT = AUDIT_ARCH[ARCH]
TABLE = numbers(ARCH)
WORD = (1 << 64) - 1
EDGES = [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (5 << 32) + 9, 1 << 63, WORD]
TUPLES = int(os.environ.get("ISOLATE_ORACLE_TUPLES", "200000"))
PROFILES = 200
MOBY = TEST_DATA / "moby-seccomp"
PODMAN = "/usr/share/containers/seccomp.json"
DOCUMENTS = [
    pytest.param(MOBY / "default.json", id="docker", marks=pytest.mark.needs("testdata")),
    pytest.param(
        MOBY / "default-old-format.json", id="docker-old", marks=pytest.mark.needs("testdata")
    ),
    pytest.param(PODMAN, id="podman", marks=pytest.mark.needs("podman")),
]
CAPS = {"none": (), "docker": tuple(CapabilitySet.docker().effective), "admin": ("SYS_ADMIN",)}


@pytest.fixture(autouse=True)
def in_time():
    """Longer than other tests have: the count of calls is the caller's to set."""
    faulthandler.dump_traceback_later(1800, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def values_of(layer):
    """Each value and mask, one less and one more, and edges."""
    found = set(EDGES)
    for rule in layer.rules:
        for test in rule.conditions:
            for value in (test.value, test.mask, test.value | ~test.mask & WORD):
                found |= {(value + step) & WORD for step in (-1, 0, 1)}
    return sorted(found)


def differences(ours, other, arches=(ARCH,)):
    """Calls, one of each number, for which two programs differ; over all arguments, by proof.

    The upper halves of i386's arguments are zero, and are taken as that. -1, which is no call,
    libseccomp gives its default, and we x32's answer.
    """
    space = Diagrams()
    one, two = answers(space, ours), answers(space, other)
    wrong = space.mapped((one, two), lambda a, b: int(a != b))
    if "i386" in arches:
        for offset in UPPER:
            narrow = space.zeroed(wrong, word_bits(offset))
            wrong = space.choose(on(space, "i386"), narrow, wrong)
    found = list(calls_of(space, wrong))
    rest = space.without(wrong, known_calls(space))
    rest = space.without(rest, space.both(on(space, ARCH), number(space, 0xFFFFFFFF)))
    return found if rest == space.no else [*found, call_of(space, rest)]


def on(space, arch):
    """Where a call is one of an architecture."""
    return cube(space, OFFSET_ARCH, AUDIT_ARCH[arch])


def number(space, value):
    """Where a call has a number."""
    return cube(space, OFFSET_NR, value)


def cube(space, offset, value):
    found = space.yes
    for bit, is_set in reversed(list(word(offset, value))):
        found = space.node(bit, *((space.no, found) if is_set else (found, space.no)))
    return found


def agree(layer, calls, optimize=TREE):
    """Both programs, through both machines, on every call; returns them."""
    ours, other = assemble(layer, ARCH), theirs(layer, optimize)
    for call, args in calls:
        mine = run(ours, AUDIT, TABLE[call], args)
        yours = run(other, AUDIT, TABLE[call], args)
        assert mine.value == yours.value, (call, args, layer)
    return ours, other


# -- every comparator


@pytest.mark.parametrize("optimize", [LINEAR, TREE])
@pytest.mark.parametrize("compare", list(Compare))
def test_every_comparator_agrees_at_its_edges_and_everywhere(compare, optimize):
    for value in EDGES:
        test = Condition(2, compare, value, value if compare is Compare.MASKED_EQ else WORD)
        layer = Layer((Rule("read", Errno(7), (test,)),), ALLOW)
        args = {(value + step) & WORD for step in (-1, 0, 1)} | set(EDGES)
        ours, other = agree(layer, [("read", (0, 0, arg)) for arg in args], optimize)
        assert differences(ours, other) == []


# -- real profiles


def plain(layer):
    """What libseccomp can be told: no rule that does what the default does, one default for all."""
    rules = tuple(rule for rule in layer.rules if rule.action != layer.default)
    return Layer(rules, layer.default, arches=layer.arches)


def contradicted(layer):
    """Calls that a profile both lets in and refuses, whatever the arguments: we take the refusal,
    libseccomp the one that it was told first. Podman's has setns so."""
    always = {rule.syscall for rule in layer.rules if not rule.conditions and rule.action == ALLOW}
    return {r.syscall for r in layer.rules if not r.conditions and r.action != ALLOW} & always


def unknown_there(arches):
    """Calls that this libseccomp has no name for: newer ones, of ABIs other than the native."""
    return {
        (arch, name)
        for arch in arches
        if arch != ARCH
        for name in numbers(arch)
        if number_of(name, arch) == UNKNOWN
    }


@pytest.mark.parametrize("optimize", [LINEAR, TREE])
@pytest.mark.parametrize("caps", CAPS)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_real_profiles_agree_for_every_argument(document, caps, optimize):
    layer = plain(SeccompFilter.load(document, CAPS[caps]).layers[0])
    arches = (ARCH, *layer.arches)
    found = differences(assemble(layer, ARCH), theirs(layer, optimize, arches), arches)
    beyond, mixed = unknown_there(arches), contradicted(layer)
    left = [c for c in found if (c.arch, c.name) not in beyond and c.name not in mixed]
    assert left == []
    assert len(mixed) <= 1
    assert all(name not in TABLE or TABLE[name] > 440 for _, name in beyond & named(found))


def named(calls):
    """(architecture, name) of each."""
    return {(call.arch, call.name) for call in calls}


def through_the_machine(ours, other, calls, count, passed_by):
    """The calls at which two programs differ, but for those of some numbers; and steps taken."""
    found, at, steps = [], 0, (ctypes.c_uint64 * 2)()
    while (at := calls.first_difference(ours, other, at, count, steps)) < count:
        call = calls[at]
        if call.nr not in passed_by:
            found.append((call.nr, list(call.args)))
            assert len(found) < 10, found
        at += 1
    return found, list(steps)


@pytest.mark.parametrize("caps", CAPS)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_real_profiles_agree_on_as_many_calls_as_wanted(document, caps, record_property):
    layer = plain(SeccompFilter.load(document, CAPS[caps]).layers[0])
    arches = (ARCH, *layer.arches)
    ours, other = assemble(layer, ARCH), theirs(layer, TREE, arches)
    beyond, mixed = unknown_there(arches), contradicted(layer)
    for arch in (*arches, "aarch64" if ARCH != "aarch64" else "riscv64"):
        table = numbers(arch)
        passed_by = {table[name] for name in table if name in mixed or (arch, name) in beyond}
        share = TUPLES if arch == ARCH else TUPLES // 4
        calls = Calls(AUDIT_ARCH[arch], list(table.values()), values_of(layer), 7, arch == "i386")
        found, steps = through_the_machine(ours, other, calls, share, passed_by)
        assert found == []
        record_property(f"{arch}", f"{share} calls, instructions ours {steps[0]}, tree {steps[1]}")
        if arch == ARCH:
            assert steps[0] < steps[1]


# -- made-up profiles


def conditions():
    """At most one of each argument, as libseccomp has it."""
    compare = st.sampled_from(list(Compare))
    value = st.sampled_from(EDGES) | st.integers(0, WORD)

    def one(index, compare, value):
        mask = value | 0xFF if compare is Compare.MASKED_EQ else WORD
        return Condition(index, compare, value, mask)

    made = st.builds(one, st.integers(0, 5), compare, value)
    return st.lists(made, max_size=3, unique_by=lambda test: test.index).map(tuple)


CALLS = sorted(TABLE)
REFUSALS = [Errno(1), Errno(5), Errno(38), Action("trap"), Action("kill_thread"), KILL_PROCESS]
RULES = st.lists(st.tuples(st.sampled_from(CALLS), conditions()), max_size=40)


@st.composite
def layers(draw):
    """An allow-list or a deny-list, of one action for each call: of several, each library takes
    another one first."""
    rules = draw(RULES)
    if draw(st.booleans()):
        default, actions = draw(st.sampled_from(REFUSALS)), [ALLOW, Action("log")]
    else:
        default, actions = ALLOW, [*REFUSALS, Action("log")]
    of = {call: draw(st.sampled_from(actions)) for call in sorted({call for call, _ in rules})}
    return Layer(tuple(Rule(call, of[call], tests) for call, tests in rules), default)


def woven(layer):
    """Calls of several rules with tests, which libseccomp makes one chain of."""
    many = [rule.syscall for rule in layer.rules if rule.conditions]
    return {call for call in many if many.count(call) > 1}


def judged(layer, optimize, count, seed):
    """Hold a layer against libseccomp; returns the calls at which the latter is wrong."""
    ours, other = assemble(layer, ARCH), theirs(layer, optimize)
    space = Diagrams()
    assert differing(space, answers(space, ours), layer, ARCH) == []  # the judge is with us
    wrong = {call.name for call in differences(ours, other)}
    assert wrong <= woven(layer), (wrong, layer)
    told = [TABLE[rule.syscall] for rule in layer.rules]
    calls = Calls(AUDIT, [*TABLE.values(), *told * 10], values_of(layer), seed)
    found, _ = through_the_machine(ours, other, calls, count, {TABLE[name] for name in wrong})
    assert found == []
    return wrong


@settings(
    max_examples=PROFILES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
@given(layers(), st.sampled_from([LINEAR, TREE]), st.integers(0, 1 << 32))
def test_made_up_profiles_agree(layer, optimize, seed):
    wrong = judged(layer, optimize, TUPLES // PROFILES, seed)
    event("libseccomp has a wrong chain" if wrong else "both are the same for every argument")


def test_the_known_fault_of_libseccomp_is_told_and_judged():
    """Several rules with tests of one call: where it differs, a plain reading is on our side."""
    tests = [
        (Condition(0, Compare.GT, 5), Condition(1, Compare.EQ, 0)),
        (Condition(0, Compare.GE, 3), Condition(2, Compare.NE, 7)),
        (Condition(1, Compare.LT, 9),),
        (Condition(0, Compare.MASKED_EQ, 1, 3), Condition(1, Compare.GT, 1 << 32)),
    ]
    layer = Layer(tuple(Rule("select", Errno(5), each) for each in tests), ALLOW)
    for optimize in (LINEAR, TREE):
        assert judged(layer, optimize, 1000, 1) <= {"select"}


# -- the machines themselves


def test_the_two_machines_agree():
    """Value and number of instructions, on our programs, on libseccomp's, and on what is none."""
    layer = plain(SeccompFilter.docker().layers[0])
    for program in (assemble(layer, ARCH), theirs(layer), theirs(layer, LINEAR)):
        calls = Calls(AUDIT, list(TABLE.values()), values_of(layer), 3)
        for index in range(3000):
            call = calls[index]
            mine = run(program, call.arch, call.nr, list(call.args), call.ip)
            assert (mine.value, mine.steps) == run_in_c(program, call)
    call = Calls(AUDIT, [0], [0], 1)[0]
    for broken in (b"", struct.pack("=HBBI", 0x20, 0, 0, 0), struct.pack("=HBBI", 5, 0, 0, 9)):
        assert run_in_c(broken, call)[1] == 0


def test_calls_of_the_machine_are_made_again_and_cover_what_they_should():
    values = [0x5412, 1 << 40]
    calls = Calls(AUDIT, [1, 2], values, 5)
    seen = [calls[index] for index in range(5000)]
    assert bytes(calls[17]) == bytes(seen[17])
    args = {arg for call in seen for arg in call.args}
    assert {value + step for value in values for step in (-1, 0, 1)} <= args
    assert any(call.nr not in (1, 2) for call in seen)
    assert all(call.nr < X32_BIT for call in seen)
    narrow = Calls(AUDIT_ARCH["i386"], [1], values, 5, words32=True)
    assert all(arg >> 32 == 0 for index in range(500) for arg in narrow[index].args)


def test_the_machine_finds_what_differs():
    one = assemble(Layer((Rule("read", Errno(1), (Condition(1, Compare.GT, 7),)),), ALLOW), ARCH)
    two = assemble(Layer((Rule("read", Errno(1), (Condition(1, Compare.GE, 7),)),), ALLOW), ARCH)
    calls = Calls(AUDIT, list(TABLE.values()), [7], 11)
    found, _ = through_the_machine(one, one, calls, 100_000, set())
    assert found == []
    at = calls.first_difference(one, two, 0, 100_000)
    assert at < 100_000
    assert calls[at].nr == TABLE["read"]
    assert calls[at].args[1] == 7


# -- cost


def mean(program, calls=tuple(CALLS)):
    """Instructions for a call that is let through, on average."""
    runs = [run(program, AUDIT, TABLE[call]) for call in calls]
    steps = [each.steps for each in runs if each.action == ALLOW]
    return sum(steps) / len(steps)


def shared_rules(wanted):
    """The rules of a filter that libseccomp can be given: 64-bit tests, one answer for all else."""
    layer = plain(wanted.layers[0])
    rules = (
        rule
        for rule in layer.rules
        if rule.syscall in TABLE and not any(test.width == 32 for test in rule.conditions)
    )
    kept = tuple(rule for rule in rules if rule.syscall != "ioctl" or rule.action == ALLOW)
    return Layer(kept, layer.default)


@pytest.mark.parametrize(
    "layer",
    [
        Layer(tuple(Rule(call) for call in CALLS[::2]), Errno(1)),
        shared_rules(SeccompFilter.docker()),
        shared_rules(SeccompFilter.default()),
        Layer(tuple(Rule(call, Errno(1)) for call in CALLS[::9]), ALLOW),
    ],
    ids=["every-second", "docker", "default", "deny-list"],
)
def test_ours_takes_the_fewest_instructions_for_what_is_let_through(layer):
    ours, tree, linear = assemble(layer, ARCH), theirs(layer, TREE), theirs(layer, LINEAR)
    assert mean(ours) < mean(tree)
    assert mean(ours) < mean(linear)
    assert len(ours) <= len(tree) or layer.default == ALLOW  # it has a list of few calls there


def test_both_programs_are_whole_instructions():
    layer = Layer((Rule("read"),), Errno(1))
    for program in agree(layer, [("read", ()), ("write", ())]):
        assert len(program) % struct.calcsize("=HBBI") == 0
