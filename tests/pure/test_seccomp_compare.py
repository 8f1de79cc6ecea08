"""`stricter_than`: exact, with a call for every no."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import Arg, Errno, IsolateError, Rule, SeccompFilter
from isolate.abi.syscalls import ARCHES, AUDIT_ARCH, X32_BIT
from isolate.errors import Undecided
from isolate.plan.bpf import compare as compare_module
from isolate.plan.bpf.assemble import assemble
from isolate.plan.bpf.compare import compare, compare_programs
from isolate.plan.bpf.diagram import Diagrams
from isolate.plan.bpf.evaluate import run
from isolate.policy import seccomp_docker
from isolate.policy.rules import ALLOW, KILL_PROCESS, STRICTNESS, Action, Layer
from tests.pure.test_seccomp import LAYERS

X86 = "x86_64"


def docker(arch, *caps):
    layer = seccomp_docker.layer(arch=arch, caps=frozenset(caps), kernel=(6, 18))
    return SeccompFilter((layer,))


@pytest.mark.parametrize("caps", [(), ("CAP_SYS_ADMIN",), ("CAP_BPF", "CAP_SYS_PTRACE")])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_the_default_is_stricter_than_dockers(arch, caps):
    default = SeccompFilter.default()
    assert default.compare(docker(arch, *caps), arch) == ()
    assert default.stricter_than(docker(arch, *caps), arch)
    assert not docker(arch, *caps).stricter_than(default, arch)


def test_as_the_native_abi_of_i386_one_call_is_wider():
    """arch_prctl is x86_64's way to set FS, and by one name for both; i386's has CPUID faulting."""
    wider = SeccompFilter.default().compare(docker("i386"), "i386")
    assert [each.call.name for each in wider] == ["arch_prctl"]


def test_where_dockers_is_wider_is_told_by_call():
    wider = {each.call.name for each in docker(X86).compare(SeccompFilter.default(), X86)
             if each.call.arch == X86}  # fmt: skip
    assert {"ptrace", "ioctl", "memfd_secret", "vmsplice", "socket", "prlimit64"} <= wider
    assert not {"read", "mount", "bpf", "clone3", "execve"} & wider


@pytest.mark.parametrize(
    ("narrow", "wide", "example"),
    [
        (SeccompFilter.deny("mkdir"), SeccompFilter.deny(), "mkdir()"),
        (SeccompFilter.allow("read"), SeccompFilter.allow("read", "write"), "write()"),
        (
            SeccompFilter.deny(Rule("kill", Errno(1), (Arg(1) != 0,))),
            SeccompFilter.deny(Rule("kill", Errno(1), (Arg(1) == 9,))),
            "kill(0, 1)",
        ),
        (
            SeccompFilter.deny(Rule("ioctl", Errno(1), (Arg(1, width=32) == 0x5412,))),
            SeccompFilter.deny(Rule("ioctl", Errno(1), (Arg(1) == 0x5412,))),
            "ioctl(0, 0x100005412)",
        ),
        (
            SeccompFilter.allow(Rule("personality", ALLOW, (Arg(0) <= 7,))),
            SeccompFilter.allow(Rule("personality", ALLOW, (Arg(0) < 9,))),
            "personality(8)",
        ),
        (
            SeccompFilter.allow(Rule("mmap", ALLOW, (Arg(2) & 6 == 2, Arg(3) & 1 == 0))),
            SeccompFilter.allow(Rule("mmap", ALLOW, (Arg(2) & 6 == 2,))),
            "mmap(0, 0, 2, 1)",
        ),
        (
            SeccompFilter.deny("mkdir", action=KILL_PROCESS),
            SeccompFilter.deny("mkdir"),
            "mkdir()",
        ),
        (SeccompFilter.deny("mkdir", action=Action("log")), SeccompFilter.deny(), "mkdir()"),
    ],
)
def test_one_is_stricter_and_the_other_shows_a_call(narrow, wide, example):
    assert narrow.stricter_than(wide, X86)
    assert not wide.stricter_than(narrow, X86)
    first = wide.compare(narrow, X86)[0]
    assert str(first.call) == example
    program = [assemble(each.layers[0], X86) for each in (wide, narrow)]
    actions = [run(p, first.call.audit, first.call.number, first.call.args).action for p in program]
    assert actions == [first.ours, first.theirs]
    assert STRICTNESS.index(first.ours.name) > STRICTNESS.index(first.theirs.name)
    assert str(first).startswith(f"{example} on x86_64: {first.ours}, where the other has")


def test_one_needle_in_all_numbers_is_found():
    """2^384 argument words, and one of them differs: sampling would not see it."""
    needle = tuple(Arg(i) == 0x1234567890ABCDEF + i for i in range(6))
    with_it = SeccompFilter.deny(Rule("futex", Errno(1), needle))
    wider = SeccompFilter.deny().compare(with_it, X86)
    assert [each.call.args for each in wider] == [tuple(0x1234567890ABCDEF + i for i in range(6))]
    assert with_it.stricter_than(SeccompFilter.deny(), X86)


def test_equal_filters_are_stricter_than_each_other_whatever_their_errno():
    one = SeccompFilter.deny("mkdir", action=Errno(1))
    other = SeccompFilter.deny("mkdir", action=Errno(30))
    assert one.stricter_than(other, X86)
    assert other.stricter_than(one, X86)
    assert one.stricter_than(one, X86)


def test_neither_may_be_stricter():
    one, other = SeccompFilter.deny("mkdir"), SeccompFilter.deny("rmdir")
    assert not one.stricter_than(other, X86)
    assert not other.stricter_than(one, X86)
    both = one.narrow(other)
    assert both.stricter_than(one, X86)
    assert both.stricter_than(other, X86)


def test_numbers_that_no_table_knows_count():
    open_end = SeccompFilter((Layer((), ALLOW),))
    closed = SeccompFilter((Layer((), ALLOW, unknown=Errno(38)),))
    wider = open_end.compare(closed, X86)
    assert len(wider) == 1
    assert wider[0].call.name.startswith("number ")
    assert closed.stricter_than(open_end, X86)


def test_further_architectures_count():
    native = SeccompFilter((Layer((Rule("read"),), Errno(1)),))
    more = SeccompFilter((Layer((Rule("read"),), Errno(1), arches=("i386",)),))
    assert native.stricter_than(more, X86)
    wider = more.compare(native, X86)
    assert {each.call.arch for each in wider} == {"i386"}
    assert "read" in {each.call.name for each in wider}


def test_a_program_that_lets_foreign_calls_in_is_wider():
    """No layer can say so; a program from elsewhere could."""
    everything = b"\x06\0\0\0\x00\x00\xff\x7f"  # ret ALLOW
    ours = assemble(Layer((), ALLOW), X86)
    wider = compare_programs([everything], [ours])
    audits = {each.call.audit for each in wider}
    assert audits - set(AUDIT_ARCH.values()) or any(w.call.number >= X32_BIT for w in wider)
    assert compare_programs([ours], [everything]) == ()


def test_no_filter_at_all_is_the_widest():
    nothing = SeccompFilter(())
    assert SeccompFilter.default().stricter_than(nothing, X86)
    assert not nothing.stricter_than(SeccompFilter.deny("mkdir"), X86)


def test_what_is_too_large_is_an_error_of_its_own(monkeypatch):
    monkeypatch.setattr(compare_module, "Diagrams", lambda: Diagrams(most=500))
    with pytest.raises(Undecided, match="500 cases"):
        SeccompFilter.default().stricter_than(docker(X86), X86)
    assert issubclass(Undecided, IsolateError)


def test_a_filter_of_tangled_tests_is_undecided_within_bounds(monkeypatch):
    """Pairs of bits far apart, as many as 2^n ways: it ends, with Undecided."""
    monkeypatch.setattr(compare_module, "Diagrams", lambda: Diagrams(most=50_000))
    tests = tuple(
        Rule("futex", Errno(1), (Arg(0) & 1 << n == 1 << n, Arg(5) & 1 << n == 1 << n))
        for n in range(40)
    )
    with pytest.raises(Undecided):
        compare(SeccompFilter.deny(*tests), SeccompFilter.deny(*tests[::2]), X86)


@settings(max_examples=15, deadline=None)
@given(LAYERS, LAYERS, st.sampled_from(ARCHES))
def test_examples_show_it_and_their_absence_is_right(one, other, arch):
    first, second = SeccompFilter((one,)), SeccompFilter((other,))
    programs = [assemble(layer, arch) for layer in (one, other)]

    def ranks(call):
        return [
            STRICTNESS.index(run(program, call.audit, call.number, call.args).action.name)
            for program in programs
        ]

    wider = first.compare(second, arch)
    for each in wider:
        mine, yours = ranks(each.call)
        assert mine > yours
    named = {each.call.name for each in wider}
    for rule in (*one.rules, *other.rules):
        args = [0] * 6
        for test in rule.conditions:
            args[test.index] = test.value
        for tried in (args, [0] * 6):
            mine, yours = (
                STRICTNESS.index(each.evaluate(rule.syscall, *tried, arch=arch).action.name)
                for each in (first, second)
            )
            assert mine <= yours or rule.syscall in named or arch != "x86_64"
    assert first.narrow(second).stricter_than(first, arch)
    assert first.narrow(second).stricter_than(second, arch)
