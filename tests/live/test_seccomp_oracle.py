"""libseccomp is the oracle: the same rules, two compilers, the same answers."""

import ctypes
import ctypes.util
import errno
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import Errno, Rule
from isolate.abi.syscalls import AUDIT_ARCH, numbers
from isolate.plan.bpf.assemble import assemble
from isolate.plan.bpf.evaluate import run
from isolate.policy.rules import ALLOW, Compare, Condition, Layer

pytestmark = pytest.mark.needs("libseccomp")

ARCH = os.uname().machine
AUDIT = AUDIT_ARCH[ARCH]
TABLE = numbers(ARCH)
WORD = (1 << 64) - 1
OPS = {  # enum scmp_compare, seccomp.h
    Compare.NE: 1,
    Compare.LT: 2,
    Compare.LE: 3,
    Compare.EQ: 4,
    Compare.GE: 5,
    Compare.GT: 6,
    Compare.MASKED_EQ: 7,
}
EDGES = [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (5 << 32) + 9, 1 << 63, WORD]


class ArgCmp(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def library():
    """libseccomp.so.2, its calls typed."""
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_init.argtypes = [ctypes.c_uint32]
    lib.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(ArgCmp),
    ]
    lib.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lib.seccomp_release.argtypes = [ctypes.c_void_p]
    lib.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    return lib


def value_of(action):
    """SCMP_ACT_*."""
    return 0x7FFF0000 if action == ALLOW else 0x00050000 | action.data


def theirs(layer, optimize):
    """The program that libseccomp makes of a layer."""
    lib = library()
    context = lib.seccomp_init(value_of(layer.default))
    assert context
    try:
        assert lib.seccomp_attr_set(context, 8, optimize) == 0  # SCMP_FLTATR_CTL_OPTIMIZE
        for rule in layer.rules:
            tests = (ArgCmp * max(1, len(rule.conditions)))()
            for at, test in enumerate(rule.conditions):
                masked = test.compare is Compare.MASKED_EQ
                a, b = (test.mask, test.value) if masked else (test.value, 0)
                tests[at] = ArgCmp(test.index, OPS[test.compare], a, b)
            done = lib.seccomp_rule_add_array(
                context, value_of(rule.action), TABLE[rule.syscall], len(rule.conditions), tests
            )
            assert done in (0, -errno.EEXIST), (done, rule)
        read_fd, write_fd = os.pipe()
        try:
            fd = os.memfd_create("isolate-oracle")
            assert lib.seccomp_export_bpf(context, fd) == 0
            size = os.fstat(fd).st_size
            return os.pread(fd, size, 0)
        finally:
            for each in (read_fd, write_fd, fd):
                os.close(each)
    finally:
        lib.seccomp_release(context)


def agree(layer, calls, optimize=2):
    """Both programs, through the evaluator, on every call."""
    ours = assemble(layer, ARCH)
    other = theirs(layer, optimize)
    for call, args in calls:
        mine = run(ours, AUDIT, TABLE[call], args)
        yours = run(other, AUDIT, TABLE[call], args)
        assert mine.value == yours.value, (call, args, layer)
    return ours, other


@pytest.mark.parametrize("compare", list(Compare))
def test_every_comparator_agrees_at_its_edges(compare):
    for value in EDGES:
        test = Condition(2, compare, value, value if compare is Compare.MASKED_EQ else WORD)
        layer = Layer((Rule("read", Errno(7), (test,)),), ALLOW)
        args = {(value + step) & WORD for step in (-1, 0, 1)} | set(EDGES)
        agree(layer, [("read", (0, 0, arg)) for arg in args])


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
RULES = st.lists(st.tuples(st.sampled_from(CALLS), conditions()), max_size=40)
ARGS = st.lists(st.sampled_from(EDGES), min_size=6, max_size=6)


@settings(max_examples=200, deadline=None)
@given(RULES, st.booleans(), st.lists(ARGS, min_size=1, max_size=5), st.sampled_from([1, 2]))
def test_made_up_profiles_agree(rules, allow_list, samples, optimize):
    default, action = (Errno(1), ALLOW) if allow_list else (ALLOW, Errno(5))
    layer = Layer(tuple(Rule(call, action, tests) for call, tests in rules), default)
    values = {test.value for _, tests in rules for test in tests} | {0}
    calls = [(call, args) for call in CALLS[::7] for args in samples]
    for call, tests in rules:
        for args in samples:
            near = list(args)
            for test in tests:
                near[test.index] = test.value
            calls += [(call, tuple(args)), (call, tuple(near))]
            calls += [(call, tuple([value] * 6)) for value in list(values)[:4]]
    agree(layer, calls, optimize)


def test_ours_is_no_longer_and_takes_fewer_steps():
    """A plain allow-list, as profiles are: against libseccomp's tree and its list."""
    calls = CALLS[::2]
    layer = Layer(tuple(Rule(call) for call in calls), Errno(1))
    ours, tree = agree(layer, [(call, ()) for call in CALLS], 2)
    _, linear = agree(layer, [(call, ()) for call in CALLS], 1)

    def steps(program):
        return sum(run(program, AUDIT, TABLE[call]).steps for call in CALLS)

    assert steps(ours) <= steps(tree)
    assert steps(ours) < steps(linear)
    assert len(ours) <= len(tree)


def test_both_programs_are_whole_instructions():
    layer = Layer((Rule("read"),), Errno(1))
    for program in agree(layer, [("read", ()), ("write", ())]):
        assert len(program) % struct.calcsize("=HBBI") == 0
