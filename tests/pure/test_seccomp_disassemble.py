"""`disassemble`: for a person, and nothing in it is wrong."""

import re

import pytest
from hypothesis import given, settings

from isolate import Arg, Errno, PolicyError, Rule, SeccompFilter
from isolate.abi.syscalls import ARCHES, AUDIT_ARCH, numbers
from isolate.plan.bpf.assemble import assemble
from isolate.plan.bpf.disassemble import listing, told
from isolate.plan.bpf.evaluate import run
from isolate.policy import seccomp_docker
from isolate.policy.rules import KILL_PROCESS, Action, Layer
from isolate.policy.seccomp_default import REFUSED
from tests.pure.test_seccomp import LAYERS

LINE = re.compile(r" *(?:L(\d+):)? +(\d+)  (.*)")


def instructions(text):
    """Index -> its text, of a listing of one layer."""
    found = {}
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if match:
            assert match[1] in (None, match[2])
            found[int(match[2])] = match[3]
    return found


def follow(lines, audit, number, args, arches):
    """Read a listing as a person would: the action that it comes to."""
    words = {"nr": number, "arch": audit}
    for i in range(6):
        arg = args[i] if i < len(args) else 0
        words[f"arg{i}.high"], words[f"arg{i}.low"] = arg >> 32, arg & 0xFFFFFFFF
    at = a = 0
    while True:
        text = lines[at]
        if text.startswith("return "):
            return text.removeprefix("return ")
        at += 1
        if text.startswith("load "):
            a = words[text.split()[1]]
        elif text.startswith("and "):
            a &= int(text.split()[1], 0)
        elif text.startswith("goto "):
            at = int(text[6:])
        else:
            match = re.fullmatch(
                r"if (not )?(.+?) (==|>=|>) (\S+)(?: \(\S+\))? goto L(\d+)(?: else goto L(\d+))?",
                text,
            )
            k = AUDIT_ARCH[match[4]] if match[4] in arches else int(match[4], 0)
            holds = {"==": a == k, ">=": a >= k, ">": a > k}[match[3]] != bool(match[1])
            at = int(match[5]) if holds else int(match[6] or at)


def test_a_listing_has_labels_calls_tests_actions_and_reasons():
    rule = Rule("kill", Errno("ESRCH"), (Arg(1, width=32) == 9, Arg(0) > 1), "it has no victims")
    text = SeccompFilter.deny(rule, "mkdir").disassemble("x86_64")
    assert text.startswith("filter 'deny' on x86_64: ")
    for wanted in (
        "; kill ->",
        ";     errno(ESRCH) if arg1:32 == 0x9 and arg0 > 0x1: it has no victims",
        ";     allow otherwise",
        "; mkdir -> errno(EPERM)",
        "if nr >= 0x40000000 (x32) goto",
        "load arg1.low",
        "(any other architecture) -> kill_process",
        "(numbers that no table knows) -> allow",
    ):
        assert wanted in text, text
    assert re.search(r"if not arch == x86_64 goto L\d+", text)
    assert re.search(r"nr >= 62 \(kill\)", text)


def test_every_reason_of_the_default_is_there():
    text = re.sub(r"\s*\n;?\s*", " ", SeccompFilter.default().disassemble("x86_64"))
    for calls, reason in REFUSED.values():
        assert reason in text
        for call in calls.split():
            assert call not in numbers("x86_64") or f" {call} " in text
    assert "TIOCSTI types into a terminal that others read" in text


def test_every_known_call_is_named_once_for_each_architecture():
    layer = seccomp_docker.layer(arch="x86_64", caps=frozenset(), kernel=(6, 18))
    text = "\n".join(line for line in listing(layer, "x86_64") if line.startswith("; "))
    notes = re.split(r"\n; (?! )", "\n" + text)  # one for each answer
    words = " ".join(note.partition("->")[0].replace("\n;", " ") for note in notes).split()
    for call in numbers("x86_64"):
        assert words.count(call) == 1, call
    for call in numbers("i386"):
        assert words.count(f"{call}@i386") == 1, call


@pytest.mark.parametrize("arch", ARCHES)
def test_the_text_means_what_the_program_does(arch):
    layer = SeccompFilter.default().layers[0]
    program = assemble(layer, arch)
    lines = instructions("\n".join(listing(layer, arch)))
    assert len(lines) == len(program) // 8
    for number in [*numbers(arch).values(), 600, 1 << 30, (1 << 32) - 1]:
        for args in ([], [2, 1, 6], [1 << 32, 0x5412], [0x10000000], [16, 3, 9]):
            wanted = run(program, AUDIT_ARCH[arch], number, args).action
            assert follow(lines, AUDIT_ARCH[arch], number, args, [arch]) == str(wanted)


@settings(max_examples=30, deadline=None)
@given(LAYERS)
def test_the_text_of_made_up_layers_means_what_they_do(layer):
    program = assemble(layer, "x86_64")
    lines = instructions("\n".join(listing(layer, "x86_64")))
    for rule in layer.rules:
        args = [0] * 6
        for test in rule.conditions:
            args[test.index] = test.value
        number = numbers("x86_64")[rule.syscall]
        for tried in (args, [0] * 6, [(1 << 64) - 1] * 6):
            wanted = run(program, AUDIT_ARCH["x86_64"], number, tried).action
            found = follow(lines, AUDIT_ARCH["x86_64"], number, tried, ["x86_64"])
            assert found == str(wanted)


def test_several_layers_follow_each_other():
    both = SeccompFilter.default().narrow(SeccompFilter.deny("mkdir"))
    text = both.disassemble("x86_64")
    assert text.index("filter 'default'") < text.index("filter 'deny'")
    assert SeccompFilter.default().disassemble("x86_64") in text
    assert SeccompFilter(()).disassemble("x86_64") == "\n"


def test_all_comparators_read_as_they_are_written():
    assert told(Arg(0) == 1) == "arg0 == 0x1"
    assert told(Arg(1) != 2) == "arg1 != 0x2"
    assert told(Arg(2, width=32) <= 3) == "arg2:32 <= 0x3"
    assert told(Arg(3) & 0xF0 == 0x10) == "arg3 & 0xf0 == 0x10"
    assert told(Arg(4, width=32) & 0xFFFFFFFF == 0) == "arg4:32 & 0xffffffff == 0x0"


def test_actions_have_their_names():
    layer = Layer((Rule("read", Action("trap")), Rule("write", Errno(4095))), KILL_PROCESS)
    text = "\n".join(listing(layer, "aarch64"))
    assert "return trap" in text
    assert "return errno(4095)" in text
    assert "return kill_process" in text


def test_an_unknown_architecture_is_refused():
    with pytest.raises(PolicyError, match="vax"):
        SeccompFilter.default().disassemble("vax")
