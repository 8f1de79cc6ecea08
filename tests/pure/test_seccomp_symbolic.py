"""Programs as functions of every call: the diagrams, and the compiler proved by them."""

import random
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import Arg, Errno, PolicyError, Rule, SeccompFilter
from isolate.abi.syscalls import ARCHES, AUDIT_ARCH, numbers
from isolate.errors import Undecided
from isolate.plan.bpf.assemble import JEQ, JGE, JGT, LOW, assemble
from isolate.plan.bpf.diagram import Diagrams
from isolate.plan.bpf.evaluate import JSET, outcomes, run
from isolate.plan.bpf.symbolic import (
    LOWER,
    answers,
    call_of,
    compared,
    members,
    together,
    word,
)
from isolate.policy import seccomp_docker
from isolate.policy.findings import Call
from isolate.policy.rules import ALLOW, KILL_PROCESS, STRICTNESS, Action, Layer
from tests.pure.reading import differing, others
from tests.pure.test_seccomp import LAYERS

EDGES = [0, 1, 5, 0x0F0F0F0F, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


def at(space, function, *words):
    """A function's value for words (offset, value)."""
    bits = sorted(bit for each in words for bit in word(*each))
    return space.value(space.descend(function, bits))


# -- diagrams


@pytest.mark.parametrize("code", [JEQ, JGT, JGE, JSET])
def test_a_comparison_holds_exactly_where_it_does(code):
    space = Diagrams()
    dice = random.Random(code)
    masks = [LOW, 0, 0xF0, 0x80000001, 0xFFFF0000]
    for k in EDGES:
        for mask in masks:
            test = compared(space, code, LOWER[2], mask, k)
            for value in [*EDGES, k & mask, *(dice.getrandbits(32) for _ in range(20))]:
                a = value & mask
                wanted = {JEQ: a == k, JGT: a > k, JGE: a >= k, JSET: bool(a & k)}[code]
                assert at(space, test, (LOWER[2], value)) == int(wanted), (k, mask, value)


def test_equal_functions_are_the_same_node():
    space = Diagrams()
    more = compared(space, JGT, 0, LOW, 7)
    same = space.without(compared(space, JGE, 0, LOW, 7), compared(space, JEQ, 0, LOW, 7))
    assert more == same
    assert space.choose(more, space.yes, space.no) == more
    assert space.both(more, space.choose(more, space.no, space.yes)) == space.no
    assert space.either([more, space.choose(more, space.no, space.yes)]) == space.yes
    assert space.either([]) == space.no


def test_members_are_those_that_were_given():
    space = Diagrams()
    some = members(space, 0, [0, 3, 4, 0xFFFFFFFF])
    for value in range(8):
        assert at(space, some, (0, value)) == int(value in (0, 3, 4))
    assert at(space, some, (0, 0xFFFFFFFF)) == 1
    assert members(space, 0, []) == space.no


def test_zeroed_bits_are_asked_no_more():
    space = Diagrams()
    both = space.both(compared(space, JEQ, 0, LOW, 3), compared(space, JEQ, 4, LOW, 0))
    assert space.zeroed(both, range(32)) == compared(space, JEQ, 0, LOW, 3)
    other = space.both(compared(space, JEQ, 0, LOW, 3), compared(space, JEQ, 4, LOW, 9))
    assert space.zeroed(other, range(32)) == space.no


def test_an_example_is_one_for_which_it_holds():
    space = Diagrams()
    test = space.both(compared(space, JGT, LOWER[0], LOW, 77), compared(space, JEQ, 0, LOW, 59))
    found = call_of(space, test)
    assert found.number == 59
    assert found.args[0] > 77
    assert at(space, test, (0, found.number), (LOWER[0], found.args[0])) == 1


def test_too_many_nodes_are_undecided_and_no_guess():
    space = Diagrams(most=100)
    with pytest.raises(Undecided, match="more than 100"):
        members(space, 0, [value * 77777 for value in range(100)])


def test_deep_callers_have_no_trouble():
    def deep(n):
        return len(assemble_docker()) if n == 0 else deep(n - 1)

    def assemble_docker():
        space = Diagrams()
        answers(space, assemble(docker("x86_64"), "x86_64"))
        return space.bit

    assert deep(sys.getrecursionlimit() - 400) > 1000


# -- programs


def docker(arch, *caps):
    return seccomp_docker.layer(arch=arch, caps=frozenset(caps), kernel=(6, 18))


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", ["default", "docker"])
def test_the_compiler_is_proved_for_every_call_and_every_argument(arch, name):
    """Not sampled: both are functions of all 32 bytes of arguments, and are the same one."""
    layer = SeccompFilter.default().layers[0] if name == "default" else docker(arch)
    space = Diagrams()
    found = answers(space, assemble(layer, arch))
    assert differing(space, found, layer, arch) == []
    assert others(found, space, layer, arch)
    for other in layer.arches:
        if other != arch:
            assert differing(space, found, layer, other) == []


@settings(max_examples=40, deadline=None)
@given(LAYERS, st.sampled_from(ARCHES))
def test_the_compiler_is_proved_for_made_up_layers(layer, arch):
    space = Diagrams()
    found = answers(space, assemble(layer, arch))
    assert differing(space, found, layer, arch) == []
    assert others(found, space, layer, arch)


def test_a_wrong_program_is_told():
    """The proof can fail: one changed byte of one comparison is found, with the call."""
    layer = SeccompFilter.default().layers[0]
    program = bytearray(assemble(layer, "x86_64"))
    for index in range(0, len(program), 8):
        code, jt, jf, k = struct.unpack_from("=HBBI", program, index)
        if code == JEQ and k == 0x5412:
            struct.pack_into("=HBBI", program, index, code, jt, jf, k + 1)
            break
    space = Diagrams()
    assert differing(space, answers(space, bytes(program)), layer, "x86_64") == ["ioctl"]


@settings(max_examples=15, deadline=None)
@given(LAYERS, LAYERS, st.lists(st.lists(st.sampled_from(EDGES), max_size=6), max_size=5))
def test_filters_together_are_what_the_kernel_takes(one, other, samples):
    programs = [assemble(each, "x86_64") for each in (one, other)]
    space = Diagrams()
    both = together(space, programs)
    table = numbers("x86_64")
    for rule in (*one.rules, *other.rules):
        for args in [*samples, [test.value for test in rule.conditions][:6]]:
            args = [*args, *[0] * (6 - len(args))]
            actions = [
                run(program, AUDIT_ARCH["x86_64"], table[rule.syscall], args).action.name
                for program in programs
            ]
            words = [(4, AUDIT_ARCH["x86_64"]), (0, table[rule.syscall])]
            for i, arg in enumerate(args):
                words += [(LOWER[i] + 4, arg >> 32), (LOWER[i], arg & LOW)]
            bits = (bit for each in words for bit in word(*each))
            assert space.value(space.descend(both, bits)) == min(map(STRICTNESS.index, actions))


@pytest.mark.parametrize(
    "program",
    [
        struct.pack("=HBBI", 0x20, 0, 0, 0),  # no return
        struct.pack("=HBBI", 0x05, 0, 0, 9),  # a jump out of it
        struct.pack("=HBBI", 0x87, 0, 0, 0) + struct.pack("=HBBI", 6, 0, 0, 0),  # TXA
        struct.pack("=HBBI", 0x20, 0, 0, 2) + struct.pack("=HBBI", 6, 0, 0, 0),  # between words
        b"",
    ],
)
def test_what_is_no_program_is_refused(program):
    with pytest.raises(PolicyError):
        answers(Diagrams(), program)
    with pytest.raises(PolicyError):
        outcomes(program, 0, 0)


# -- outcomes: what the launch's own calls can get


def test_outcomes_name_every_action_that_a_call_can_get():
    layer = Layer(
        (
            Rule("execve", Errno(5), (Arg(1) == 77,)),
            Rule("execve", KILL_PROCESS, (Arg(2) & 8 == 8,)),
            Rule("read", Action("log")),
        ),
        ALLOW,
    )
    program = assemble(layer, "x86_64")
    audit, table = AUDIT_ARCH["x86_64"], numbers("x86_64")
    assert outcomes(program, audit, table["execve"]) == {ALLOW, Errno(5), KILL_PROCESS}
    assert outcomes(program, audit, table["read"]) == {Action("log")}
    assert outcomes(program, audit, table["write"]) == {ALLOW}
    assert outcomes(program, AUDIT_ARCH["aarch64"], 1) == {KILL_PROCESS}


@settings(max_examples=30, deadline=None)
@given(LAYERS)
def test_outcomes_leave_nothing_out(layer):
    program = assemble(layer, "x86_64")
    audit, table = AUDIT_ARCH["x86_64"], numbers("x86_64")
    for rule in layer.rules:
        args = [0] * 6
        for test in rule.conditions:
            args[test.index] = test.value
        found = outcomes(program, audit, table[rule.syscall])
        for given_args in (args, [0] * 6, [(1 << 64) - 1] * 6):
            assert run(program, audit, table[rule.syscall], given_args).action in found


def test_a_call_reads_as_one():
    assert (
        str(Call(AUDIT_ARCH["x86_64"], 41, (1 << 32, 0, 1, 0, 0, 0))) == "socket(0x100000000, 0, 1)"
    )
    assert str(Call(AUDIT_ARCH["x86_64"], 3000)) == "number 3000()"
    assert Call(5, 1).arch == "0x5"
