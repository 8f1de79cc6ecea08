"""The linter: each weak spot made on purpose is told, and what is mended is told no more."""

import struct

import pytest

from isolate import Action, Arg, Errno, Rule, SeccompFilter
from isolate.abi.arguments import WORDS32, WORDS64
from isolate.abi.syscalls import ARCHES, AUDIT_ARCH, X32_BIT, numbers
from isolate.plan.bpf.assemble import JEQ, JGE, LD_W_ABS, RET, assemble
from isolate.plan.bpf.evaluate import run
from isolate.plan.bpf.lint import GROUPS, lint_programs
from isolate.policy import seccomp_docker
from isolate.policy.rules import ALLOW, Condition, Layer
from isolate.policy.seccomp_default import REFUSED, default_layer

X86 = "x86_64"
NEW = 0x7E020000


def docker(arch=X86):
    layer = seccomp_docker.layer(arch=arch, caps=frozenset(), kernel=(6, 18))
    return SeccompFilter((layer,))


def names(wanted, arch=X86):
    return {finding.name for finding in wanted.lint(arch)}


def holes(wanted, arch=X86):
    return {(f.name, *f.calls) for f in wanted.lint(arch) if f.kind != "surface"}


def amended(*rules, drop=()):
    """The default with some of its calls decided otherwise."""
    about = {*drop, *(rule.syscall for rule in rules)}
    kept = tuple(rule for rule in default_layer().rules if rule.syscall not in about)
    return SeccompFilter((Layer((*kept, *rules), Errno("EPERM"), unknown=Errno("ENOSYS")),))


@pytest.mark.parametrize("arch", ARCHES)
def test_the_default_lints_clean(arch):
    assert SeccompFilter.default().lint(arch) == ()


def test_a_small_allow_list_lints_clean():
    assert SeccompFilter.allow("read", "write", "exit_group", "execve").lint(X86) == ()


def test_dockers_findings_are_these():
    """All of them; tests/live/test_seccomp_findings.py shows in a box that they are right."""
    found = docker().lint(X86)
    native = {(f.kind, f.name, *f.calls) for f in found if f.arch == X86}
    assert native == {
        ("hole", "upper-half", "socket"),
        ("surface", "terminal", "ioctl"),
        ("surface", "families", "socket"),
        ("surface", "mount", "statmount", "listmount"),
        ("surface", "debug", "ptrace", "process_vm_readv", "process_vm_writev", "process_mrelease"),
        ("surface", "handle", "name_to_handle_at"),
        ("surface", "clock", "clock_adjtime", "adjtimex"),
        ("surface", "admin", "fanotify_mark"),
        ("surface", "raw-io", "modify_ldt"),
        ("surface", "memory", "vmsplice", "memfd_secret", "remap_file_pages"),
    }
    foreign = {(f.kind, f.name, *f.calls) for f in found if f.arch == "i386"}
    assert ("hole", "multiplexed", "socketcall") in foreign
    assert ("surface", "second-abi") in foreign
    assert (
        foreign
        - native
        - {
            ("hole", "multiplexed", "socketcall"),
            ("surface", "second-abi"),
            ("surface", "clock", "clock_adjtime", "clock_adjtime64", "adjtimex"),
        }
        == set()
    )
    assert found[0].kind == "hole"
    assert [f.kind for f in found] == sorted(f.kind for f in found)


def test_dockers_arguments_are_compared_in_64_bits_where_the_kernel_takes_32():
    """AF_ALG and AF_VSOCK with something in the upper half: the filter sees another family."""
    (hole,) = (f for f in docker().lint(X86) if f.name == "upper-half")
    assert hole.example.name == "socket"
    family = hole.example.args[0]
    assert family >> 32
    assert family & 0xFFFFFFFF in (38, 40)
    program = assemble(docker().layers[0], X86)
    number = numbers(X86)["socket"]
    assert run(program, AUDIT_ARCH[X86], number, (family,)).action == ALLOW
    assert run(program, AUDIT_ARCH[X86], number, (family & 0xFFFFFFFF,)).action != ALLOW


@pytest.mark.parametrize(("name", "calls"), [(name, calls) for name, (calls, _) in GROUPS.items()])
def test_every_group_is_told_when_it_is_let_in(name, calls):
    known = [call for call in calls.split() if call in numbers(X86)]
    if not known:
        assert name == "raw-io" or all(call not in numbers(X86) for call in calls.split())
        return
    wanted = amended(*(Rule(call) for call in known))
    found = {f.name: f for f in wanted.lint(X86)}
    assert found[name].kind == "surface"
    assert set(found[name].calls) == set(known)
    assert found[name].example.name in known


def test_the_groups_are_all_of_the_defaults():
    told = {call for calls, _ in GROUPS.values() for call in calls.split()}
    assert told == {call for calls, _ in REFUSED.values() for call in calls.split()}


def test_clone3_is_told_where_clones_flags_are_tested():
    tested = Rule("clone", ALLOW, (Arg(0) & NEW == 0,))
    assert holes(amended(tested, Rule("clone3"))) == {("clone3", "clone3")}
    assert holes(amended(tested, Rule("clone3", Errno("EPERM")))) == {("clone3-errno", "clone3")}
    assert holes(amended(tested, Rule("clone3", Errno("ENOSYS")))) == set()
    open_clone = amended(Rule("clone"), Rule("clone3"))
    assert {"namespaces"} == names(open_clone)
    assert {f.calls for f in open_clone.lint(X86)} == {("clone",), ("clone3",)}
    assert names(amended(drop=("clone", "clone3"))) == set()


def test_each_flag_of_clone_counts():
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        mask = NEW & ~bit
        found = amended(Rule("clone", ALLOW, (Arg(0) & mask == 0,)), Rule("clone3", Errno(38)))
        (finding,) = found.lint(X86)
        assert (finding.name, finding.example.args[0] & NEW) == ("namespaces", bit)


@pytest.mark.parametrize("request_code", [0x5412, 0x541C, 0x5423])
def test_terminal_requests_are_told_by_number(request_code):
    others = {0x5412, 0x541C, 0x5423} - {request_code}
    rules = [Rule("ioctl", Errno(1), (Arg(1, width=32) == each,)) for each in others]
    (finding,) = amended(Rule("ioctl"), *rules).lint(X86)
    assert (finding.name, finding.example.args[1]) == ("terminal", request_code)


def test_an_ioctl_that_is_refused_in_64_bits_is_a_hole():
    rules = [Rule("ioctl", Errno(1), (Arg(1) == each,)) for each in (0x5412, 0x541C, 0x5423)]
    (finding,) = amended(Rule("ioctl"), *rules).lint(X86)
    assert (finding.name, finding.kind, finding.calls) == ("upper-half", "hole", ("ioctl",))
    assert finding.example.args[1] >> 32
    assert finding.example.args[1] & 0xFFFFFFFF in (0x5412, 0x541C, 0x5423)


def test_an_allow_list_in_64_bits_is_no_hole():
    """What isn't the value is refused: an upper half only makes it stricter."""
    assert holes(amended(Rule("ioctl", ALLOW, (Arg(1) == 0x5401,)))) == set()


def test_a_refusal_of_a_negative_number_in_64_bits_is_a_hole():
    """-1 as an int comes with an upper half of zeros or ones; the rule asks for ones."""
    wanted = amended(Rule("kill"), Rule("kill", Errno(1), (Arg(0) == -1,)))
    assert ("upper-half", "kill") in holes(wanted)
    mended = amended(Rule("kill"), Rule("kill", Errno(1), (Arg(0, width=32) == 0xFFFFFFFF,)))
    assert holes(mended) == set()


def test_a_pointer_that_is_compared_in_32_bits_is_a_hole():
    wanted = amended(Rule("prlimit64", ALLOW, (Arg(2, width=32) == 0,)))
    assert holes(wanted) == {("lower-half", "prlimit64")}
    assert holes(amended(Rule("prlimit64", ALLOW, (Arg(2) == 0,)))) == set()
    some_bits = amended(Rule("mmap", ALLOW, (Arg(2, width=32) & 4 == 0,)))
    assert holes(some_bits) == set()


def test_socket_families_are_told_with_the_worst_by_name():
    (finding,) = amended(Rule("socket")).lint(X86)
    assert finding.name == "families"
    assert all(name in finding.why for name in ("AF_PACKET", "AF_ALG", "AF_VSOCK", "NETLINK"))
    usual = amended(Rule("socket", ALLOW, (Arg(0) <= 2,)))
    assert [f.example.args[0] for f in usual.lint(X86)] == [0]
    other = amended(Rule("socket", ALLOW, (Arg(0) == 16,)))
    assert [f.example.args[2] > 0 for f in other.lint(X86)] == [True]


def test_personalities_are_told_but_not_the_question():
    assert names(amended(Rule("personality"))) == {"personality"}
    for fine in (0, 0xFFFFFFFF, 8, 0x20000):
        assert names(amended(Rule("personality", ALLOW, (Arg(0) == fine,)))) == set()
    for wrong in (0x0400000, 0x0040000, 0x0100000):
        found = amended(Rule("personality", ALLOW, (Arg(0) == wrong,))).lint(X86)
        assert [f.example.args[0] for f in found] == [wrong]


def test_numbers_that_no_table_knows_are_told():
    wanted = SeccompFilter((Layer(default_layer().rules, Errno(1), unknown=ALLOW),))
    (finding,) = wanted.lint(X86)
    assert finding.name == "unknown-calls"
    assert finding.example.number not in numbers(X86).values()
    assert finding.example.number < X32_BIT


def test_a_second_abi_is_told_with_its_two_doors():
    layer = Layer(
        (*default_layer().rules, Rule("socketcall"), Rule("ipc")),
        Errno(1),
        unknown=Errno(38),
        arches=("i386",),
    )
    found = SeccompFilter((layer,)).lint(X86)
    assert {(f.name, f.arch, *f.calls) for f in found} >= {
        ("second-abi", "i386"),
        ("multiplexed", "i386", "socketcall"),
    }


def program(*instructions):
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


def test_programs_that_leave_architectures_open_are_told():
    """Our compiler makes none; a program of somebody else's may."""
    audit = AUDIT_ARCH[X86]
    allowed, killed = (RET, 0, 0, 0x7FFF0000), (RET, 0, 0, 0x80000000)
    no_check = program((LD_W_ABS, 0, 0, 0), (JEQ, 1, 0, 39), killed, allowed)
    found = {f.name for f in lint_programs([no_check], X86)}
    assert {"foreign-arch", "second-abi"} <= found
    x32 = program((LD_W_ABS, 0, 0, 4), (JEQ, 1, 0, audit), killed, (LD_W_ABS, 0, 0, 0),
                  (JGE, 1, 0, X32_BIT), killed, allowed)  # fmt: skip
    (finding,) = lint_programs([x32], X86)
    assert (finding.name, finding.example.number) == ("x32", X32_BIT)
    closed = program((LD_W_ABS, 0, 0, 4), (JEQ, 1, 0, audit), killed, (LD_W_ABS, 0, 0, 0),
                     (JEQ, 0, 1, 39), allowed, killed)  # fmt: skip
    assert lint_programs([closed], X86) == ()


def test_no_filter_at_all_has_every_hole():
    found = {f.name for f in lint_programs([], X86)}
    assert {"foreign-arch", "x32", "second-abi", "unknown-calls", "terminal", "families"} <= found


def test_refusals_that_say_success_are_told():
    wanted = amended(Rule("setuid", Errno(0)))
    assert holes(wanted) == {("errno-0", "setuid")}


def test_layers_are_judged_together():
    """What one lets in and another refuses is refused."""
    both = docker().narrow(SeccompFilter.default())
    assert both.lint(X86) == ()


def test_a_finding_reads_as_a_sentence():
    (finding,) = amended(Rule("bpf")).lint(X86)
    assert str(finding).startswith("surface bpf on x86_64: bpf (such as bpf()): programs in the")
    assert hash(finding)


def test_a_logged_call_is_let_through():
    assert names(amended(Rule("bpf", Action("log")))) == {"bpf"}


def test_widths_are_of_calls_that_exist_and_exclude_each_other():
    known = {name for arch in ARCHES for name in numbers(arch)}
    for call, indexes in [*WORDS32.items(), *WORDS64.items()]:
        assert call in known
        assert all(0 <= index <= 5 for index in indexes)
        Condition(max(indexes), (Arg(0) == 0).compare, 0)
    for call, indexes in WORDS32.items():
        assert not set(indexes) & set(WORDS64.get(call, ())), call
