"""Filters with a listener: many layers as one program, that refuses what they refuse."""

import struct

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import Answer, Arg, Errno, HostLacks, Policy, PolicyError, Rule, SeccompFilter
from isolate.abi.syscalls import AUDIT_ARCH, X32_BIT, numbers
from isolate.plan.bpf.assemble import RETURNS, assemble
from isolate.plan.bpf.evaluate import as_action, run
from isolate.plan.compile import compile_box, compile_plan
from isolate.plan.lower.seccomp_notify import DOOR, DOORS, NOISE, listening, plain
from isolate.policy.command import Command
from isolate.policy.handlers import NOTIFY, Handler
from isolate.policy.rules import ALLOW, KILL_PROCESS, Action, Layer
from isolate.policy.seccomp import strictness
from tests import hosts

X86 = AUDIT_ARCH["x86_64"]
WORD = (1 << 64) - 1
NAMES = ["read", "mount", "socket", "clone3", "mbind", "kill", "openat", "sendmsg", "write"]
EDGES = [0, 1, 2, 8, 0xFFFFFFFF, 1 << 32, DOOR << 32, WORD]


def combined(found, call, args):
    """What the kernel does when all of them are installed."""
    programs = [found.main, *(program for _, program in found.further)]
    answers = [run(each, X86, numbers("x86_64")[call], args).action for each in programs]
    return min(answers, key=strictness)


def original(wanted, call, args):
    """What the layers say by themselves."""
    answers = [
        run(assemble(each, "x86_64"), X86, numbers("x86_64")[call], args).action
        for each in wanted.layers
    ]
    return min(answers, key=strictness)


CONDITIONS = st.builds(lambda i, v: Arg(i) == v, st.integers(0, 2), st.sampled_from(EDGES))
ACTIONS = st.sampled_from(
    [ALLOW, Errno(1), Errno(38), Errno(13), KILL_PROCESS, Action("log"), Action("trap"), NOTIFY]
)
RULES = st.builds(
    Rule, st.sampled_from(NAMES), ACTIONS, st.lists(CONDITIONS, max_size=2).map(tuple)
)
DEFAULTS = st.sampled_from([ALLOW, ALLOW, Errno(1), KILL_PROCESS])
LAYERS = st.builds(
    Layer, st.lists(RULES, max_size=8).map(tuple), DEFAULTS, st.none() | st.just(Errno(38))
)
FILTERS = st.builds(
    lambda layers, silent: SeccompFilter(tuple(dict.fromkeys(layers)), silent=frozenset(silent)),
    st.lists(LAYERS, min_size=1, max_size=4),
    st.sets(st.sampled_from(NAMES), max_size=3),
)


THREE = st.tuples(*[st.sampled_from(EDGES)] * 3)


@settings(max_examples=250, deadline=None)
@given(FILTERS, st.lists(st.tuples(st.sampled_from(NAMES), THREE), max_size=25))
def test_together_they_refuse_what_each_refuses_and_no_less(wanted, calls):
    found = listening(wanted, "x86_64")
    for call, args in [*calls, *((name, [0, 0, 0]) for name in NAMES)]:
        before, after = original(wanted, call, args), combined(found, call, args)
        bit, arg = DOORS.get(call, (0, 0))
        if found.doors & bit and args[arg] >> 32 == DOOR:
            assert after.name not in ("allow", "log", "notify")  # the seal
        elif before.name in ("allow", "log"):
            assert after.name == before.name, (call, args)
        elif before.name == "errno":
            assert after.name in ("errno", "notify")
        elif before.name == "kill_process":
            assert after.name in ("kill_process", "notify")
        else:
            assert after.name == before.name
        decided = [run(each, X86, numbers("x86_64")[call], args).action for each in found.policy]
        assert min(decided, key=strictness) == before or before.name == "errno"


@settings(max_examples=60, deadline=None)
@given(FILTERS, st.sampled_from(list(DOORS)))
def test_what_set_up_still_calls_passes_and_is_never_notified(wanted, call):
    found = listening(wanted, "x86_64")
    bit, arg = DOORS[call]
    args = [3, 0, 0x4000]
    if found.doors & bit:
        args[arg] |= DOOR << 32
    programs = [found.main, *(program for _, program in found.further)]
    for program in programs[:-1] if found.doors else programs:
        assert run(program, X86, numbers("x86_64")[call], args).action.name in ("allow", "log")
    if found.doors & bit:
        assert run(programs[-1], X86, numbers("x86_64")[call], args).action == Errno("EPERM")


def test_the_default_is_one_program_without_a_door():
    found = listening(SeccompFilter.default(), "x86_64")
    assert (found.further, found.doors) == ((), 0)
    assert run(found.main, X86, numbers("x86_64")["mount"]).action == NOTIFY
    assert run(found.main, X86, numbers("x86_64")["read"]).action == ALLOW
    assert run(found.main, X86, numbers("x86_64")["clone3"]).action == Errno("ENOSYS")
    assert run(found.main, X86, 1000).action == Errno("ENOSYS")
    for name in NOISE & set(numbers("x86_64")):
        assert run(found.main, X86, numbers("x86_64")[name]).action.name in ("allow", "errno")


@pytest.mark.parametrize("arch", ["aarch64", "riscv64", "x86_64"])
@pytest.mark.parametrize("seen", [True, False])
def test_foreign_machines_and_x32_are_killed_all_the_same(arch, seen):
    """By the supervisor, to whom the policy says so; or by the kernel, where others are too."""
    wanted = SeccompFilter.default().narrow(SeccompFilter.deny("sendmsg", "write"))
    if not seen:
        wanted = wanted.narrow(SeccompFilter.deny(Rule("acct", Action("trap"))))
    found = listening(wanted, arch)
    expected = NOTIFY if seen else KILL_PROCESS
    calls = [(AUDIT_ARCH[other], 0) for other in AUDIT_ARCH if other != arch]
    calls += [(0, 0), (0xFFFFFFFF, 5)]
    if arch == "x86_64":
        calls += [(X86, number) for number in (X32_BIT, X32_BIT | 46, 0xFFFFFFFF)]
    for audit, number in calls:
        args = [0, 0, DOOR << 32]
        assert run(found.main, audit, number, args).action == expected
        assert {run(each, audit, number, args).action for each in found.policy} == {KILL_PROCESS}


def test_a_second_listener_is_refused_by_the_filter_itself():
    found = listening(SeccompFilter.default(), "x86_64")
    number = numbers("x86_64")["seccomp"]
    for flags in (8, 8 | 32, 8 | 1 << 32, WORD):
        assert run(found.main, X86, number, [1, flags, 0]).action == Errno("EBUSY")
    assert run(found.main, X86, number, [1, 4, 0]).action == ALLOW


def test_kills_are_seen_unless_a_trap_has_to_be_the_kernels():
    kill = Rule("sync", KILL_PROCESS)
    seen = listening(SeccompFilter.deny(kill), "x86_64")
    assert combined(seen, "sync", [0]) == NOTIFY
    trap = listening(SeccompFilter.deny(kill, Rule("acct", Action("trap"))), "x86_64")
    assert combined(trap, "sync", [0]) == KILL_PROCESS
    assert combined(trap, "acct", [0]) == Action("trap")


def test_the_order_of_a_plan_with_a_listener():
    shut = SeccompFilter.deny("sendmsg").narrow(SeccompFilter.deny(Rule("sync", Action("trap"))))
    plan = compile_plan(Policy(shut), Command(["true"]), hosts.LISTENING)
    names = [op.code.name for op in plan.program]
    assert names[-5:] == ["READY", "SECCOMP_NOTIFY", "SECCOMP", "SECCOMP", "EXEC"]
    notify = plan.program[-4]
    assert notify.slots == ("notify",)
    assert notify.nums == (8 | 32, DOORS["sendmsg"][0])
    assert "seal" in plan.program[-2].about
    older = evolve(hosts.LISTENING, seccomp_flags=("new_listener",))
    plan = compile_plan(Policy(SeccompFilter.default()), Command(["true"]), older)
    assert plan.program[-2].nums == (8, 0)


@pytest.mark.parametrize(
    "machine",
    [
        hosts.ROOT_V1,
        evolve(hosts.LISTENING, seccomp=("errno", "allow", "kill_process"), seccomp_flags=()),
        evolve(hosts.LISTENING, seccomp_flags=("tsync",), seccomp_why="somebody listens already"),
    ],
)
def test_without_a_listener_the_layers_are_installed_as_they_are(machine):
    plan = compile_plan(Policy(SeccompFilter.default()), Command(["true"]), machine)
    names = [op.code.name for op in plan.program]
    assert "SECCOMP_NOTIFY" not in names
    assert plan.watch is None
    told = {each.name: each.verdict for each in plan.guarantees}
    assert (told["seccomp"], told["reports"]) == ("enforced", "weakened")
    by = next(each.by for each in plan.guarantees if each.name == "reports")
    assert machine.seccomp_why in by
    with pytest.raises(HostLacks, match="handlers"):
        compile_box(Policy(SeccompFilter.on("mkdir", len)), machine)


def test_without_a_listener_what_a_handler_would_decide_is_refused():
    wanted = SeccompFilter.on("mkdir", len)
    layer = plain(wanted.layers[0])
    assert run(assemble(layer, "x86_64"), X86, numbers("x86_64")["mkdir"]).action == Errno("EPERM")
    plan = compile_plan(Policy(wanted, weaken="handlers"), Command(["true"]), hosts.ROOT_V1)
    program = next(op.strs[0] for op in plan.program if op.code.name == "SECCOMP")
    assert run(program, X86, numbers("x86_64")["mkdir"]).action == Errno("EPERM")


@pytest.mark.parametrize("call", ["execve", "exit_group"])
@pytest.mark.parametrize("action", [NOTIFY, KILL_PROCESS, Errno("EPERM")])
def test_the_launchs_own_calls_are_never_notified(call, action):
    with pytest.raises(PolicyError, match=call):
        compile_plan(
            Policy(SeccompFilter.deny(Rule(call, action))), Command(["true"]), hosts.LISTENING
        )


def test_too_many_rules_for_one_program_are_told_and_still_hold():
    many = tuple(
        Layer(
            tuple(
                Rule("read", Errno(1 + v % 90), (Arg(0) == v + 1000 * n, Arg(1) == v))
                for v in range(300)
            ),
            ALLOW,
            name=f"part {n}",
        )
        for n in range(4)
    )
    plan = compile_plan(Policy(SeccompFilter(many)), Command(["true"]), hosts.LISTENING)
    assert [op.code.name for op in plan.program].count("SECCOMP") == 4
    assert {each.name: each.verdict for each in plan.guarantees}["reports"] == "weakened"


def test_silence_needs_no_listener():
    plan = compile_plan(
        Policy(SeccompFilter.default(silent=True)), Command(["true"]), hosts.LISTENING
    )
    assert plan.watch is None
    assert "SECCOMP_NOTIFY" not in [op.code.name for op in plan.program]
    assert "reports" not in [each.name for each in plan.guarantees]
    some = SeccompFilter.default(silent=["mount"])
    assert run(listening(some, "x86_64").main, X86, 165).action == Errno("EPERM")


def test_what_is_silent_and_what_ends_narrows():
    one = SeccompFilter.default(silent="mount").narrow(SeccompFilter.default(lethal=True))
    assert one.silent == {"mount"}
    assert one.lethal
    assert SeccompFilter.deny("chroot", silent=["@network"]).silent >= {"socket", "connect"}
    with pytest.raises(PolicyError, match="nosuch"):
        SeccompFilter.default(silent=["nosuch"])


def test_handlers_are_values_that_no_file_can_hold():
    wanted = SeccompFilter.on("mkdir", len, timeout="250ms")
    assert wanted.handlers == (Handler("mkdir", len, 0.25),)
    assert hash(wanted) == hash(SeccompFilter.on("mkdir", len, timeout=0.25))
    with pytest.raises(PolicyError, match="handler"):
        Policy(wanted).dumps()
    text = "version = 1\n[seccomp]\nlayers = []\nhandlers = ['x']\n"
    with pytest.raises(PolicyError, match="handler"):
        Policy.loads(text)
    quiet = Policy(SeccompFilter.default(silent=["mount"], lethal=True))
    assert Policy.loads(quiet.dumps()) == quiet


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: SeccompFilter.on("mkdri", len),
        lambda: SeccompFilter.on("mkdir", None),
        lambda: SeccompFilter.on("mkdir", len, timeout=0),
        lambda: SeccompFilter.on("mkdir", len, timeout=1e9),
        lambda: Answer.value(-5),
        lambda: Answer.value(True),
        lambda: Answer.value(1 << 63),
        lambda: Answer.deny(0),
        lambda: Answer.deny("ENOTHING"),
        lambda: Answer.fd(-1),
        lambda: Answer.fd(1, at=-2),
        lambda: Answer("errno", 5000),
    ],
)
def test_what_no_handler_may_be_or_answer(wrong):
    with pytest.raises(PolicyError):
        wrong()


# -- the supervisor's own evaluator, in C


@settings(max_examples=150, deadline=None)
@given(LAYERS, st.sampled_from(NAMES), st.lists(st.sampled_from(EDGES), min_size=6, max_size=6))
def test_the_c_evaluator_agrees_with_the_python_one(layer, call, args):
    from isolate.native import filter_answer

    program = assemble(layer, "x86_64")
    data = struct.pack("=IIQ6Q", numbers("x86_64")[call], X86, 0, *args)
    answer = run(program, X86, numbers("x86_64")[call], args)
    assert as_action(filter_answer(program, data)) == answer.action


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=160), st.binary(min_size=64, max_size=64))
def test_the_c_evaluator_takes_any_bytes(program, data):
    from isolate.native import filter_answer

    value = filter_answer(program, data)
    assert 0 <= value < 1 << 32
    if len(program) < 8:
        assert value == RETURNS["kill_process"]


def test_codes_without_a_step_are_refused_before_anything_runs():
    from isolate import native
    from isolate.abi.ops import OpCode, Phase
    from isolate.plan.encode import encode
    from isolate.plan.model import Op

    codes = {int(code) for code in OpCode}
    blob = bytearray(encode((Op(code=OpCode.SETSID, phase=Phase.EXEC, about="x"),)).blob)
    assert native.check(bytes(blob)) is None
    for code in {0, *range(1, 80), 0xFFFF} - codes:
        struct.pack_into("<H", blob, 32, code)
        assert native.check(bytes(blob)) is not None, code
