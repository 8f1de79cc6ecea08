"""What filters, rules, handlers and profiles may not be: each mistake is named, where it stands."""

import json
import struct

import pytest
from attrs import evolve

from isolate import (
    Answer,
    Arg,
    Errno,
    HostLacks,
    Policy,
    PolicyConflict,
    PolicyError,
    Rule,
    SeccompFilter,
)
from isolate.abi.syscalls import AUDIT_ARCH, numbers
from isolate.plan.bpf.assemble import LD_W_ABS, RET, RETURNS, assemble
from isolate.plan.bpf.evaluate import JSET, outcomes, run
from isolate.plan.compile import compile_box, compile_plan
from isolate.plan.lower.seccomp_notify import DOORS, Listening, listening, prove, seal
from isolate.policy.command import Command
from isolate.policy.handlers import Handler
from isolate.policy.rules import ALLOW, Action, Compare, Condition, Layer
from isolate.policy.seccomp_docker import layer as docker_layer
from isolate.policy.seccomp_load import MAX_BYTES, MAX_ENTRIES, load, parse
from isolate.supervise.handlers import shortly
from isolate.supervise.violations import (
    Violation,
    abi_on,
    address,
    described,
    is_x32,
    merged,
    name_on,
)
from tests import hosts

X86, I386 = AUDIT_ARCH["x86_64"], AUDIT_ARCH["i386"]
TABLE = numbers("x86_64")
TRUE = Command(["true"])


# -- profiles


def entry(**fields):
    """A profile of one entry."""
    whole = {"names": ["read"], "action": "SCMP_ACT_ALLOW", **fields}
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [whole]}


def refused(document, arch="x86_64"):
    """Every mistake of a profile, as text."""
    with pytest.raises(PolicyError) as caught:
        parse(document, arch=arch, caps=frozenset(), kernel=(6, 1), known=None)
    return "\n".join(map(str, caught.value.args))


def test_a_good_profile_is_read_whole():
    loaded = parse(entry(), arch="x86_64", caps=frozenset(), kernel=(6, 1), known=None)
    assert loaded.layer.rules == (Rule("read"),)
    assert loaded.layer.default == Errno("EPERM")


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "a seccomp profile is an object, not []"),
        ({}, "defaultAction: None is no action"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "a file can't say who answers"),
        ({"defaultAction": "SCMP_ACT_TRACE"}, "a sandbox has no tracer"),
        ({"defaultAction": 7}, "7 is no action; there are:"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "can't carry an errno"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1}, "defaultErrnoRet: must be"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EWHAT"}, "'EWHAT' is no errno"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": 5}, "5 is no errno"),
        (
            {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EPERM", "defaultErrnoRet": 5},
            "EPERM is 1, but defaultErrnoRet says 5",
        ),
        ({"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/x"}, "listenerPath: is refused"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "listenerMetadata": "x"}, "listenerMetadata"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "flags": ["WHAT"]}, "'WHAT' is no filter flag"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "flags": "LOG"}, "flags: must be a list"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "new": 1}, "unknown key 'new'"),
        ({"defaultAction": "SCMP_ACT_ERRNO", 5: 1}, "unknown key 5"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}}, "syscalls: must be a list"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [7]}, "syscalls[0]: must be an object"),
        (entry(names=[]), "names no system call"),
        (entry(names=["READ"]), "'READ' is no system call's name"),
        (entry(names=[7]), "7 is no system call's name"),
        (entry(name="read"), "has both name and names"),
        (entry(comment=5), "comment: must be text"),
        (entry(action="ALLOW"), "syscalls[0].action"),
        (entry(action="SCMP_ACT_KILL", errnoRet=3), "can't carry an errno"),
        (entry(args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]), "args[0].index"),
        (entry(args=[{"index": True, "value": 1, "op": "SCMP_CMP_EQ"}]), "args[0].index"),
        (entry(args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]), "args[0].value"),
        (entry(args=[{"index": 0, "value": 1 << 64, "op": "SCMP_CMP_EQ"}]), "args[0].value"),
        (entry(args=[{"index": 0, "value": 1, "op": "=="}]), "'==' is no comparison"),
        (entry(args=[{"index": 0, "value": 1, "op": None}]), "None is no comparison"),
        (
            entry(args=[{"index": 0, "value": 1, "valueTwo": "x", "op": "SCMP_CMP_EQ"}]),
            "args[0].valueTwo",
        ),
        (entry(args=[7]), "args[0]: must be an object"),
        (entry(args=7), "args: must be a list"),
        (entry(includes=7), "includes"),
        (entry(includes={"minKernel": "six"}), "minKernel"),
        (entry(includes={"caps": [7]}), "caps"),
        (entry(excludes={"what": 7}), "unknown key 'what'"),
    ],
)
def test_every_mistake_of_a_profile_is_named_where_it_stands(document, told):
    assert told in refused(document)


def test_all_mistakes_are_told_at_once_up_to_a_bound():
    text = refused({"defaultAction": "x", "flags": ["y"], "syscalls": [7, 8], "listenerPath": "z"})
    for part in ("defaultAction", "'y'", "syscalls[0]", "syscalls[1]", "listenerPath"):
        assert part in text
    many = refused({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [7] * 5000})
    assert len(many.splitlines()) < 200


def test_a_value_that_can_not_be_shown_is_told_all_the_same():
    class Odd:
        def __repr__(self):
            raise RuntimeError

    assert "Odd instance" in refused({"defaultAction": Odd()})
    assert "<int" in refused({"defaultAction": 10**5000})


def test_a_profile_of_too_many_entries_is_refused():
    names = ["read"] * (MAX_ENTRIES + 1)
    assert "entries in all" in refused(entry(names=names))


@pytest.mark.parametrize("arch", ["s390x", "", None])
def test_a_profile_is_for_a_machine_that_there_is(arch):
    assert "is no architecture" in refused(entry(), arch=arch)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no JSON profile"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "defaultAction": "SCMP_ACT_KILL"}', "given twice"),
        ("[" * 100_000, "no JSON profile"),
        ('"' + "a" * MAX_BYTES + '"', "at most"),
        ("[]", "is an object"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path, text, told):
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(PolicyError, match=told):
        load(path, arch="x86_64", caps=frozenset(), kernel=(6, 1))


def test_a_file_and_its_document_are_one_profile(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(entry(errnoRet=None)))
    given = {"arch": "x86_64", "caps": frozenset(), "kernel": (6, 1)}
    assert load(path, **given).layer == load(entry(), **given).layer
    assert load(path, **given).layer.name == "mine.json"
    with pytest.raises(OSError, match=r"absent\.json"):
        load(tmp_path / "absent.json", **given)


def test_docker_has_no_profile_for_other_machines():
    with pytest.raises(PolicyError, match="mips"):
        docker_layer(arch="mips", caps=frozenset(), kernel=(6, 1))


def test_docker_before_4_8_lets_no_tracing_in():
    """A tracer could undo a filter's answer there (seccomp(2), before Linux 4.8)."""
    for kernel, expected in (((4, 7), Errno("EPERM")), ((4, 8), ALLOW)):
        made = docker_layer(arch="x86_64", caps=frozenset(), kernel=kernel)
        for name in ("ptrace", "process_vm_readv"):
            program = assemble(made, "x86_64")
            assert run(program, X86, TABLE[name]).action == expected, (kernel, name)


# -- rules and answers


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Condition(6, Compare.EQ, 1),
        lambda: Condition(-1, Compare.EQ, 1),
        lambda: Condition(0, Compare.EQ, 1 << 64),
        lambda: Condition(0, Compare.EQ, -1),
        lambda: Condition(0, Compare.EQ, 1, mask=1 << 64),
        lambda: Condition(0, Compare.EQ, 1, width=16),
        lambda: (Arg(0) & 7) != 1,
        lambda: (Arg(0) & 7) < 1,
        lambda: Arg(0) == "one",
        lambda: Arg(0) == True,  # noqa: E712
        lambda: Action("deny"),
        lambda: Action("allow", 1),
        lambda: Action("errno", 5000),
        lambda: Errno("EWHAT"),
        lambda: Errno(1.5),
        lambda: SeccompFilter.allow(7),
        lambda: SeccompFilter.allow("raed"),
        lambda: SeccompFilter.deny("@nogroup"),
        lambda: SeccompFilter((7,)),
        lambda: Answer("maybe"),
        lambda: Answer("errno", 0),
        lambda: Answer("errno", True),
        lambda: Answer("value", 1 << 63),
        lambda: Answer("value", -4095),
        lambda: Answer("value", "1"),
        lambda: Answer("fd", -1),
        lambda: Answer("fd", 1 << 31),
        lambda: Answer("fd", 3, -1),
        lambda: Answer("fd", 3, "4"),
        lambda: Answer.fd(True),
        lambda: Handler("execve", len, 1.0),
        lambda: Handler("read", 7, 1.0),
        lambda: Handler("read", len, 0),
        lambda: Handler("read", len, 4000),
        lambda: SeccompFilter.on("read", len, timeout="soon"),
    ],
)
def test_what_is_no_rule_condition_or_answer_is_refused(wrong):
    with pytest.raises(PolicyError):
        wrong()


def test_the_answers_at_their_edges_are_answers():
    assert Answer.value(-4096).number == -4096
    assert Answer.value((1 << 63) - 1).number == (1 << 63) - 1
    assert Answer("errno", 4095).number == 4095
    assert Answer("fd", (1 << 31) - 1, 0).at == 0
    with open(__file__) as file:
        assert Answer.fd(file).ours is False
        assert Answer.fd(file.fileno()).ours is True


def test_two_handlers_for_one_call_are_a_conflict():
    with pytest.raises(PolicyConflict, match="two handlers"):
        SeccompFilter.on("read", len).narrow(SeccompFilter.on("read", print))


def test_what_a_handler_gave_is_shown_whatever_it_is():
    class Odd:
        def __repr__(self):
            raise RuntimeError

    assert shortly(None) == "None"
    assert shortly(Odd()) == "a Odd"
    assert len(shortly("a" * 10_000)) == 200


def test_a_filter_of_nothing_lets_all_in():
    assert SeccompFilter(()).evaluate("mount").action == ALLOW
    assert SeccompFilter(()).evaluate("mount").layer == ""


def test_evaluate_knows_foreign_machines_and_calls_that_are_not_there():
    import os

    other = "aarch64" if os.uname().machine != "aarch64" else "x86_64"
    verdict = SeccompFilter.default().evaluate("read", arch=other)
    assert (str(verdict.action), verdict.rule) == ("kill_process", None)
    assert SeccompFilter.default().evaluate("no_such_call").action == Errno("ENOSYS")


# -- programs that are none


def code(*parts):
    return b"".join(struct.pack("=HBBI", *each) for each in parts)


@pytest.mark.parametrize(
    "program",
    [
        b"",
        code((LD_W_ABS, 0, 0, 0)),
        code((0x05, 0, 0, 9)),
        code((0x15, 7, 7, 1), (RET, 0, 0, 0)),
        code((0xFFFF, 0, 0, 0)),
        code((LD_W_ABS, 0, 0, 64), (RET, 0, 0, 0)),
        code((LD_W_ABS, 0, 0, 3), (RET, 0, 0, 0)),
    ],
)
def test_what_is_no_program_is_told_by_both_readers(program):
    with pytest.raises(PolicyError):
        run(program, X86, 0)
    with pytest.raises(PolicyError):
        outcomes(program, X86, 0)


def test_outcomes_take_both_ways_of_what_is_not_known():
    tests = code(
        (LD_W_ABS, 0, 0, 16), (JSET, 0, 1, 4), (RET, 0, 0, RETURNS["allow"]), (RET, 0, 0, 0)
    )
    assert {each.name for each in outcomes(tests, X86, 0)} == {"allow", "kill_thread"}
    assert {each.name for each in outcomes(tests, X86, 0, {16: 4})} == {"allow"}
    assert {each.name for each in outcomes(tests, X86, 0, {16: 3})} == {"kill_thread"}


# -- what a launch may not be refused


def test_a_program_that_would_stop_the_launch_is_not_believed():
    shut = assemble(Layer((Rule("write", Errno(1)),), ALLOW), "x86_64")
    with pytest.raises(PolicyError, match="launch's own write"):
        prove(Listening(shut, (), 0, ()), "x86_64")


def test_a_seal_that_seals_nothing_is_not_believed():
    found = listening(SeccompFilter.deny("sendmsg"), "x86_64")
    open_door = (("the seal", assemble(Layer((), ALLOW), "x86_64")),)
    with pytest.raises(PolicyError, match="stay open"):
        prove(evolve(found, further=open_door), "x86_64")
    prove(found, "x86_64")
    other = (("the seal", seal(DOORS["write"][0], "x86_64")),)
    with pytest.raises(PolicyError, match="stay open"):
        prove(evolve(found, further=other), "x86_64")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seccomp": ()}, "no seccomp filters"),
        ({"arch": "mips"}, "no table of system calls for mips"),
        ({"seccomp": ("errno", "allow")}, "kill_process"),
    ],
)
def test_a_host_that_can_not_filter_is_refused_with_the_reason(change, why):
    host = evolve(hosts.LISTENING, **change)
    wanted = Policy(SeccompFilter.deny(Rule("acct", Action("kill_process"))))
    with pytest.raises(HostLacks, match=why):
        compile_box(wanted, host)
    names = [op.code.name for op in compile_plan(evolve_weaken(wanted), TRUE, host).program]
    assert "SECCOMP_NOTIFY" not in names


def evolve_weaken(policy):
    """The same policy, which may be held without a filter."""
    return Policy(*policy, weaken={"seccomp"})


# -- reports


@pytest.mark.parametrize(
    ("arch", "number", "abi", "name"),
    [
        (X86, 39, "", "getpid"),
        (X86, 0x40000000 | 39, "x32", "getpid"),
        (X86, 0x40000000 | 545, "x32", "syscall_1073742369"),
        (X86, 100_000, "", "syscall_100000"),
        (X86, -1, "", "syscall_-1"),
        (I386, 20, "i386", "getpid"),
        (I386, 0x40000000 | 20, "i386", "syscall_1073741844"),
        (AUDIT_ARCH["aarch64"], 172, "aarch64", "getpid"),
        (0xDEAD, 3, "arch 0xdead", "syscall_3"),
    ],
)
def test_a_call_is_named_by_the_abi_that_it_came_by(arch, number, abi, name):
    assert (abi_on(arch, number, X86), name_on(arch, number)) == (abi, name)


def test_only_x86_64_has_x32():
    assert is_x32(X86, 0x40000000)
    assert is_x32(X86, 0x7FFFFFFF)
    assert not is_x32(X86, 0x3FFFFFFF)
    assert not is_x32(X86, -1)
    assert not is_x32(I386, 0x40000000)


def test_the_same_call_by_another_abi_is_another_kind():
    one = Violation(syscall="getpid", abi="i386")
    two = Violation(syscall="getpid", abi="x32")
    found = merged([one, two, one, Violation(syscall="getpid")])
    assert [(each.abi, each.count) for each in found] == [("i386", 2), ("x32", 1), ("", 1)]
    assert [str(each).partition("(")[0] for each in found] == [
        "i386: getpid", "x32: getpid", "getpid",
    ]  # fmt: skip


def test_strings_that_were_not_read_are_shown_as_addresses():
    assert described("chroot", (0x1234,), ()) == ("path=0x1234",)
    assert described("chroot", (0x1234,), (b"/x",)) == ("path='/x'",)
    assert described("no_such_call", (1, 255), ()) == ("1", "0xff")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "nothing"),
        (b"\x02", "b'\\x02'"),
        (struct.pack("=HII", 16, 7, 3) + bytes(2), None),
        (struct.pack("=HHII", 16, 0, 7, 3), "netlink:pid=7,groups=0x3"),
        (struct.pack("=H", 40) + b"\x01\x02", "AF_VSOCK:0102"),
        (struct.pack("=H", 2) + b"\x00", "AF_INET:00"),
        (struct.pack("=H", 1) + b"\0name", "unix:@'name'"),
    ],
)
def test_an_address_is_shown_whatever_it_is_made_of(data, text):
    shown = address(data)
    assert shown == text if text is not None else shown.startswith("netlink:")
