"""The live kernel is asked too: 5,000 calls and more under filters that do nothing but answer.

What a filter lets through becomes an errno of its own, so that each answer can be told and no call
is made; beside that the program is what the library makes. tests/live/caller.c makes the calls.
"""

import errno
import functools
import os
import signal
import struct
import subprocess
import tempfile

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isolate import Arg, Errno, Rule, SeccompFilter
from isolate.abi.syscalls import AUDIT_ARCH, X32_BIT, numbers
from isolate.plan.bpf.assemble import JEQ, LD_W_ABS, RET, assemble
from isolate.plan.bpf.evaluate import run
from isolate.policy.rules import ALLOW, KILL_PROCESS, Action, Layer
from tests.live.machine import Calls, compiled
from tests.live.test_seccomp_oracle import values_of
from tests.pure.test_seccomp import LAYERS

pytestmark = pytest.mark.needs("gcc")

ARCH = os.uname().machine
AUDIT = AUDIT_ARCH[ARCH]
TABLE = numbers(ARCH)
HEADER, CALL = struct.Struct("=II"), struct.Struct("=II6QqIIII")
MAGIC = 0x15017A7E
# What stands for an action that would do something: letting through, and dying.
STANDS_FOR = {"allow": 2001, "log": 2002, "kill_process": 2003, "kill_thread": 2004, "notify": 2005}
# The kernel lets uretprobe and uprobe pass by every filter (docs/adr/0004); the caller needs the
# third to come back from its handler.
LEFT_OUT = {TABLE[name] for name in ("uretprobe", "uprobe", "rt_sigreturn") if name in TABLE}
TOLD = []


def harmless(action):
    """An action that only answers."""
    number = STANDS_FOR.get(action.name)
    return action if number is None else Errno(number)


def answering(layer):
    """A layer of which every answer is an errno or a trap."""
    return evolve(
        layer,
        rules=tuple(evolve(rule, action=harmless(rule.action)) for rule in layer.rules),
        default=harmless(layer.default),
        unknown=layer.unknown and harmless(layer.unknown),
    )


def opened(program):
    """The program, after a door for the end of the caller and for its return from a handler."""
    door = [
        (LD_W_ABS, 0, 0, 4),
        (JEQ, 0, 6, AUDIT),
        (LD_W_ABS, 0, 0, 0),
        (JEQ, 3, 0, TABLE["rt_sigreturn"]),
        (JEQ, 0, 3, TABLE["exit_group"]),
        (LD_W_ABS, 0, 0, 16 + 8 * 5),
        (JEQ, 0, 1, MAGIC),
        (RET, 0, 0, 0x7FFF0000),
    ]
    return b"".join(struct.pack("=HBBI", *each) for each in door) + program


@functools.cache
def caller():
    """The program that makes the calls."""
    return compiled("caller.c")


def made(program, calls):
    """Make calls (number, args, by int 0x80) under a program; the exit status, and each answer."""
    whole = opened(program)
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(HEADER.pack(len(whole) // 8, len(calls)) + whole)
        for number, args, by_int80 in calls:
            file.write(CALL.pack(number, by_int80, *args, 0, 0, 0, 0, 0))
        file.flush()
        done = subprocess.run([str(caller()), file.name], timeout=60)
        data = file.seek(HEADER.size + len(whole)) and file.read()
    return done.returncode, list(CALL.iter_unpack(data))


def wanted(program, number, args, by_int80):
    """What our evaluator says: an errno, or "trap"."""
    audit = AUDIT_ARCH["i386"] if by_int80 else AUDIT
    action = run(program, audit, number, args).action
    assert action.name in ("errno", "trap"), action
    return "trap" if action.name == "trap" else action.data


def compared(layer, calls):
    """Every call's answer, the kernel's and ours; the layer's own program says the same."""
    program, original = assemble(answering(layer), ARCH), assemble(layer, ARCH)
    status, answers = made(program, calls)
    assert status == 0
    for (number, args, by_int80), answer in zip(calls, answers, strict=True):
        *_, result, trapped, trap_arch, trap_nr, done = answer
        found = "trap" if trapped else -result
        assert done
        assert found == wanted(program, number, args, by_int80), (number, args, layer)
        audit = AUDIT_ARCH["i386"] if by_int80 else AUDIT
        meant = harmless(run(original, audit, number, args).action)
        assert found == ("trap" if meant.name == "trap" else meant.data)
        if trapped:
            assert (trap_arch, trap_nr) == (audit, number)
    TOLD.append(len(calls))


def some_calls(layer, count, seed, arch=ARCH):
    """Calls of an architecture that look at what a layer looks at."""
    table = numbers(arch)
    told = [
        table[rule.syscall] for rule in layer.rules if rule.conditions and rule.syscall in table
    ]
    pool = [*table.values(), *told * 3]
    made_up = Calls(AUDIT_ARCH[arch], pool, values_of(layer), seed, arch == "i386")
    found, index = [], 0
    while len(found) < count:
        call, index = made_up[index], index + 1
        if arch != ARCH or call.nr not in LEFT_OUT:
            found.append((call.nr, tuple(call.args), int(arch != ARCH)))
    return found


LISTED = Layer(
    (
        Rule("read", ALLOW, (Arg(0) <= 2, Arg(2) > 1 << 33)),
        Rule("write", Action("trap"), (Arg(0) & 3 == 1,)),
        Rule("futex", Action("log"), (Arg(1, width=32) != 9,)),
        Rule("mmap", Errno(77), (Arg(2) & 6 == 6, Arg(5) >= 4096)),
        Rule("kill", KILL_PROCESS, (Arg(1) < 0x8000000000000000,)),
        Rule("exit_group", Action("kill_thread")),
    ),
    Errno(errno.EPERM),
    unknown=Errno(errno.ENOSYS),
    name="listed",
)


@pytest.mark.parametrize(
    "layer",
    [
        SeccompFilter.default().layers[0],
        SeccompFilter.docker().layers[0],
        SeccompFilter.docker(("SYS_ADMIN",)).layers[0],
        LISTED,
    ],
    ids=["default", "docker", "docker-admin", "listed"],
)
def test_the_kernel_answers_as_our_evaluator_does(layer):
    compared(layer, some_calls(layer, 1000, 23))


@pytest.mark.needs("x86_64")
def test_calls_by_int_0x80_are_answered_by_their_own_numbers():
    layer = SeccompFilter.docker().layers[0]
    assert layer.arches == ("i386",)
    compared(layer, some_calls(layer, 500, 29, "i386"))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(LAYERS, st.integers(0, 1 << 32))
def test_the_kernel_answers_as_our_evaluator_does_for_made_up_layers(layer, seed):
    compared(layer, some_calls(layer, 100, seed))


def test_five_thousand_calls_were_made():
    """By the tests above, when all of them ran."""
    if len(TOLD) < 25:
        pytest.skip("only a part of this file ran")
    assert sum(TOLD) >= 5000 + 500


def dies(program, number, args=(0,) * 6, by_int80=0):
    """Whether a call ends the caller, by SIGSYS, with nothing done after it."""
    status, answers = made(program, [(TABLE["getpid"], (0,) * 6, 0), (number, args, by_int80)])
    return status == -signal.SIGSYS and answers[0][-1] == 1 and answers[1][-1] == 0


@pytest.mark.parametrize("action", [KILL_PROCESS, Action("kill_thread")])
def test_what_kills_kills(action):
    program = assemble(
        Layer((Rule("mkdir" if "mkdir" in TABLE else "mkdirat", action),), Errno(2001)), ARCH
    )
    name = "mkdir" if "mkdir" in TABLE else "mkdirat"
    assert dies(program, TABLE[name])
    assert not dies(program, TABLE["uname"])


@pytest.mark.needs("x86_64")
@pytest.mark.parametrize("name", ["default", "docker", "listed"])
def test_foreign_ways_into_the_kernel_end_the_caller(name):
    """x32's numbers always; int 0x80 where i386 is not let in."""
    layer = {
        "default": SeccompFilter.default().layers[0],
        "docker": SeccompFilter.docker().layers[0],
        "listed": LISTED,
    }[name]
    program = assemble(answering(layer), ARCH)
    for number in (0, 1, 39, 59, 512, 545):
        assert dies(program, X32_BIT | number), number
    for number in (1, 11, 20, 102, 120):
        assert dies(program, number, by_int80=1) == (not layer.arches), number


def test_a_wrong_expectation_would_be_seen():
    """The comparison can fail: another filter's answers are not ours."""
    other = Layer((Rule("getppid", Errno(9)),), ALLOW)
    status, answers = made(assemble(answering(other), ARCH), [(TABLE["getppid"], (0,) * 6, 0)])
    assert status == 0
    assert -answers[0][8] == 9
    program = assemble(answering(Layer((Rule("getppid", Errno(8)),), ALLOW)), ARCH)
    assert wanted(program, TABLE["getppid"], (0,) * 6, 0) == 8
