"""How a box's processes come under its AppArmor profile, and what happens where one doesn't:
the ops, the names in them, and the look at labels, over processes that are made up."""

import errno
from itertools import chain, repeat

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from isolate import AppArmorProfile, HostLacks, LaunchError, Policy, PolicyError, Sandbox
from isolate.abi.ops import OpCode, Phase
from isolate.plan.compile import compile_box, compile_plan
from isolate.plan.encode import encode
from isolate.plan.hints import forbidden, hint
from isolate.plan.model import Op
from isolate.plan.verify import verify
from isolate.policy.command import Command
from isolate.supervise import confined, proctree
from isolate.supervise.proctree import INIT, ProcessFacts, inhabitants
from tests import hosts

TRUE = Command(["true"])
WITH = evolve(hosts.ROOT_V1, apparmor="", apparmor_label="unconfined")
WITHIN = evolve(WITH, apparmor_label="docker-default (enforce)")
MADE = AppArmorProfile.generate(read="/usr")


def steward(policy, host=WITH):
    return [op for op in compile_box(policy, host).setup if op.code is OpCode.STEWARD]


# ---- the op ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [hosts.ROOT_V1, hosts.ROOT_V2, hosts.ORDINARY])
def test_the_first_process_enters_the_profile_as_the_very_last_of_the_set_up(host):
    host = evolve(host, apparmor="", apparmor_label="unconfined")
    plan = compile_box(Sandbox(apparmor="docker-default").policy, host)
    assert plan.setup[-1].code is OpCode.STEWARD
    assert plan.setup[-1].strs == (
        b"changeprofile docker-default", b"docker-default (enforce)",
    )  # fmt: skip
    assert [op.code for op in plan.setup].count(OpCode.STEWARD) == 1
    assert isinstance(plan.setup[-1].origin, AppArmorProfile)


def test_it_reads_back_the_mode_that_the_policy_says():
    [op] = steward(Sandbox(apparmor=AppArmorProfile("x", complain=True)).policy)
    assert op.strs[1] == b"x (complain)"


def test_where_programs_stack_the_first_process_stacks():
    for host, wanted, verb in (
        (WITHIN, None, b"stack x"), (WITHIN, False, b"changeprofile x"),
        (WITHIN, True, b"stack x"), (WITH, True, b"stack x"), (WITH, None, b"changeprofile x"),
    ):  # fmt: skip
        policy = Sandbox(apparmor=AppArmorProfile("x", stack=wanted)).policy
        [op] = steward(policy, host)
        assert op.strs[0] == verb
        # What a stack shows depends on what it is stacked on: that is looked at from outside.
        assert (op.strs[1] is None) == verb.startswith(b"stack")
        program = [op for op in compile_plan(policy, TRUE, host).program
                   if op.code is OpCode.APPARMOR]  # fmt: skip
        assert program[0].strs[0].startswith(b"stack") == verb.startswith(b"stack")


def test_without_a_profile_there_is_no_steward():
    assert not steward(Sandbox().policy)
    assert not steward(Sandbox(apparmor="x", weaken="apparmor").policy, hosts.ROOT_V1)


def test_without_a_pid_namespace_nothing_would_end_with_the_first_process():
    plan = compile_plan(Policy(AppArmorProfile("x")), TRUE, WITH)
    assert not [op for op in plan.setup if op.code is OpCode.STEWARD]
    assert [op for op in plan.program if op.code is OpCode.APPARMOR]


def test_a_plan_with_a_steward_elsewhere_is_wrong():
    plan = compile_plan(Sandbox(apparmor="x").policy, TRUE, WITH)
    verify(plan)
    op = plan.setup[-1]
    for wrong in (
        evolve(plan, setup=(*plan.setup, evolve(op, code=OpCode.KEYRING, strs=()))),
        evolve(plan, setup=(*plan.setup, op)),
        evolve(plan, program=(evolve(op, phase=plan.program[0].phase), *plan.program)),
    ):
        with pytest.raises(PolicyError, match="STEWARD is not the set-up's last op"):
            verify(wrong)


def test_its_failure_means_what_a_program_s_means():
    [op] = steward(Sandbox(apparmor="x").policy)
    lack = forbidden(op, errno.ENOENT)
    assert isinstance(lack, HostLacks)
    assert (lack.what, lack.why) == ("apparmor", "the kernel has no profile of that name")
    twin = evolve(op, code=OpCode.APPARMOR)
    for number in (errno.EINVAL, errno.EACCES, errno.EPERM, errno.EKEYREJECTED):
        assert hint(op, number, None) == hint(twin, number, None) is not None
    assert hint(op, errno.EXDEV, None) is None


# ---- the box's own name in it ----------------------------------------------------------------


def test_a_temporary_profile_s_name_is_put_into_both_ops():
    plan = compile_plan(Sandbox(apparmor=MADE).policy, TRUE, WITH)
    first = confined.named(plan.setup, "isolate-1-2")[-1]
    assert first.strs == (b"changeprofile isolate-1-2", b"isolate-1-2 (enforce)")
    assert first.about == "put the first process into the AppArmor profile isolate-1-2"
    assert confined.named(plan.setup, "isolate-1-2")[:-1] == plan.setup[:-1]
    assert confined.asked(confined.named(plan.setup, "isolate-1-2")) == (
        len(plan.setup) - 1, "isolate-1-2 (enforce)", False,
    )  # fmt: skip


def test_ops_without_a_name_to_put_in_stay_the_same_object():
    """What is encoded is kept by identity: another tuple a launch would fill that store."""
    plan = compile_plan(Sandbox(apparmor="x").policy, TRUE, WITH)
    assert confined.named(plan.setup, "x") is plan.setup
    assert confined.named(plan.program, "x") is plan.program
    bare = compile_box(Sandbox().policy, WITH).setup
    assert confined.named(bare, "") is bare


def test_what_is_done_without_is_left_out_of_both():
    plan = compile_plan(Sandbox(apparmor="x", weaken="apparmor").policy, TRUE, WITH)
    assert confined.named(plan.setup, "!not loaded") == plan.setup[:-1]
    left = confined.named(plan.program, "!not loaded")
    assert len(left) == len(plan.program) - 1
    assert confined.asked(left) is None


@given(st.from_regex(r"isolate-[0-9]{1,7}-[0-9]{1,3}-[0-9a-f]{8}", fullmatch=True))
def test_any_name_of_ours_is_encoded_whole(name):
    setup = confined.named(compile_box(Sandbox(apparmor=MADE).policy, WITH).setup, name)
    blob = encode(setup).blob
    assert f"changeprofile {name}\0".encode() in blob
    assert f"{name} (enforce)\0".encode() in blob
    assert b"isolate/temporary" not in blob


# ---- the look from outside ------------------------------------------------------------------


class Made:
    """A process whose labels are given, look by look; its exec lasts for `execs` looks."""

    def __init__(self, labels, execs=0):
        self.labels = chain(labels, repeat(labels[-1]))
        self.execs = execs
        self.pidfd = self
        self.killed = 0
        self.looks = 0

    def label(self, _):
        self.looks += 1
        return next(self.labels)

    def in_exec(self, _):
        self.execs -= 1
        return self.execs >= 0

    def kill(self):
        self.killed += 1


@pytest.fixture
def look(monkeypatch):
    def at(process, wanted="x", host=WITH, **more):
        monkeypatch.setattr(confined, "label", process.label)
        monkeypatch.setattr(confined, "in_exec", process.in_exec)
        policy = Sandbox(apparmor=AppArmorProfile(wanted, **more)).policy
        ops = compile_plan(policy, TRUE, host).program
        confined.confirm(ops, process, process.kill)

    return at


def test_the_wanted_label_is_enough(look):
    process = Made(["x (enforce)"])
    look(process)
    assert (process.killed, process.looks) == (0, 1)


def test_the_old_label_is_waited_for_as_long_as_the_exec_lasts(look):
    process = Made(["unconfined", "unconfined", "x (enforce)"], execs=2)
    look(process)
    assert (process.killed, process.looks) == (0, 3)


def test_one_that_has_ended_ran_under_what_the_kernel_said(look):
    process = Made(["unconfined", None], execs=1)
    look(process)
    assert process.killed == 0


@pytest.mark.parametrize(
    "seen", ["unconfined", "y (enforce)", "x (complain)", "x//&y (enforce)", "x//hat (enforce)", ""]
)
def test_after_the_exec_any_other_label_kills_at_once_and_says_so(look, seen):
    process = Made([seen])
    with pytest.raises(LaunchError) as caught:
        look(process)
    assert (process.killed, process.looks) == (1, 1)
    assert caught.value.op.code is OpCode.APPARMOR
    assert caught.value.errno == errno.EACCES
    told = f"it ran under {seen!r} instead of 'x (enforce)', and was killed"
    assert caught.value.hint == told
    assert told in str(caught.value)


def test_a_profile_that_is_unloaded_meanwhile_is_a_mismatch(look):
    process = Made(["unconfined"], execs=3)
    with pytest.raises(LaunchError, match="ran under 'unconfined'"):
        look(process)
    assert (process.killed, process.looks) == (1, 4)


def test_an_exec_that_never_ends_is_not_waited_for_without_end(look, monkeypatch):
    monkeypatch.setattr(confined, "CONFIRM_SECONDS", 0.01)
    process = Made(["unconfined"], execs=10**9)
    with pytest.raises(LaunchError):
        look(process)
    assert process.killed == 1


def test_a_stack_has_to_name_it_in_its_mode(look):
    process = Made(["docker-default//&x (enforce)"])
    look(process, host=WITHIN)
    assert process.killed == 0
    for seen in ("docker-default (enforce)", "docker-default//&x (mixed)", "x//&y (complain)"):
        process = Made([seen])
        with pytest.raises(LaunchError):
            look(process, host=WITHIN)
        assert process.killed == 1


def test_a_program_without_a_profile_is_not_looked_at(monkeypatch):
    process = Made(["unconfined"])
    monkeypatch.setattr(confined, "label", process.label)
    confined.confirm(compile_plan(Sandbox().policy, TRUE, WITH).program, process, process.kill)
    assert (process.looks, process.killed) == (0, 0)


def test_the_first_process_is_looked_at_as_well(monkeypatch):
    ops = compile_box(Sandbox(apparmor="x").policy, WITH).setup
    for seen in ("x (enforce)", None):  # None: it has ended, and its box with it
        monkeypatch.setattr(confined, "label", lambda _, seen=seen: seen)
        confined.confirm_first(ops, Made(["?"]))
    monkeypatch.setattr(confined, "label", lambda _: "unconfined")
    with pytest.raises(LaunchError, match="ran under 'unconfined'") as caught:
        confined.confirm_first(ops, Made(["?"]))
    assert caught.value.op.code is OpCode.STEWARD
    stack = compile_box(Sandbox(apparmor="x").policy, WITHIN).setup
    monkeypatch.setattr(confined, "label", lambda _: "docker-default//&x (enforce)")
    confined.confirm_first(stack, Made(["?"]))
    confined.confirm_first(compile_box(Sandbox().policy, WITH).setup, Made(["?"]))


def test_an_op_of_somebody_else_is_none_of_ours():
    plain = Op(code=OpCode.STEWARD, phase=Phase.ROOT, about="split")
    assert confined.asked((plain,)) is None


# ---- whose process is whose ----------------------------------------------------------------


def made(pid, parent, name):
    return ProcessFacts(pid=pid, parent=parent, name=name, state="S", cpu=1.0, reaped=2.0,
                        threads=1, started=pid, resident=4096)  # fmt: skip


@pytest.fixture
def status(monkeypatch):
    """NoNewPrivs by pid: 0 unless said."""
    held = {}

    def text(path):
        pid = int(path.split("/")[2])
        return f"Name:\tx\nNoNewPrivs:\t{held.get(pid, 0)}\nSeccomp:\t0\n"

    monkeypatch.setattr(proctree, "read_text", text)
    return held


def pids(found):
    return [each.pid for each in found]


def test_a_steward_and_its_keepers_are_isolate_s_own(status):
    family = [made(10, 1, INIT), made(11, 10, INIT), made(12, 11, INIT), made(13, 12, "sh"),
              made(14, 13, "sleep"), made(15, 11, INIT), made(16, 15, "cat")]  # fmt: skip
    inside, own = inhabitants(10, family)
    assert set(pids(own)) == {11, 12, 15}
    assert set(pids(inside)) == {13, 14, 16}


def test_a_program_that_takes_the_name_is_still_a_program(status):
    status[13] = 1
    family = [made(10, 1, INIT), made(12, 10, INIT), made(13, 12, INIT), made(14, 13, INIT)]
    status[14] = 1
    inside, own = inhabitants(10, family)
    assert (pids(inside), pids(own)) == ([13, 14], [12])


def test_one_below_a_program_is_never_isolate_s_own(status):
    family = [made(10, 1, INIT), made(12, 10, INIT), made(13, 12, "sh"), made(14, 13, INIT)]
    assert (pids(inhabitants(10, family)[0]), pids(inhabitants(10, family)[1])) == ([13, 14], [12])


def test_somebody_else_s_processes_are_left_out(status):
    family = [made(10, 1, INIT), made(20, 1, "sshd"), made(12, 10, "sh")]
    assert (pids(inhabitants(10, family)[0]), inhabitants(10, family)[1]) == ([12], [])
