"""What an outer container keeps from us, from texts that were recorded in such ones."""

import errno
import os
from pathlib import Path

import pytest
from attrs import evolve

from isolate import Chroot, HostLacks, Mount, Namespace, Policy, PolicyConflict, Sandbox
from isolate.abi.flags import CLONE_NEWNS, CLONE_NEWUSER
from isolate.abi.ops import OpCode, OpFlag, Phase
from isolate.abi.syscalls import numbers
from isolate.host import asking, confinement
from isolate.host.probe import probe
from isolate.plan.compile import compile_box, compile_plan
from isolate.plan.hints import forbidden, hint
from isolate.plan.model import Op
from isolate.policy.command import Command
from isolate.supervise.setup import failure
from tests import hosts

WHOLE = "0 0 4294967295\n"
STATUS = "Name:\tx\nCapEff:\t{:016x}\nSeccomp:\t2\n"
DOCKER_CAPS = 0xA80425FB
PLAIN = "23 68 0:44 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n"
MASKED = PLAIN + (
    "101 23 0:51 / /proc/acpi ro,relatime - tmpfs tmpfs rw,size=0k\n"
    "102 23 0:6 /null /proc/keys ro,relatime - devtmpfs devtmpfs rw\n"
    "109 23 0:44 /sys /proc/sys ro,relatime - proc proc rw\n"
)
ALL = {"user", "mount", "pid", "net", "ipc", "uts", "cgroup", "root", "ids", "pids"}
FILTERED = evolve(
    hosts.NESTED,
    user_namespaces=False,
    user_why="a seccomp filter around this process refuses new namespaces",
    filtered=True,
    refused=("clone", "clone3", "unshare", "setns", "keyctl", "mount"),
)


def verdicts(plan):
    return {each.name: each.verdict for each in plan.guarantees}


def test_a_proc_without_masks_is_no_hindrance():
    assert confinement.proc_why(PLAIN) == ""
    binfmt = "30 23 0:50 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw\n"
    assert confinement.proc_why(PLAIN + binfmt) == ""


def test_masks_and_read_only_mounts_are_counted_and_named():
    why = confinement.proc_why(MASKED)
    assert "3 masks lie on /proc (/proc/acpi, /proc/keys, /proc/sys" in why
    assert "read-only" in confinement.proc_why(PLAIN.replace("rw,nosuid", "ro,nosuid"))
    assert "no /proc" in confinement.proc_why("1 0 8:1 / / rw - ext4 /dev/vda rw\n")


def test_one_whole_proc_anywhere_is_enough():
    other = "200 68 0:44 / /elsewhere/proc rw - proc proc rw\n"
    assert confinement.proc_why(MASKED + other) == ""


@pytest.mark.parametrize(
    ("uids", "gids", "found"),
    [
        (WHOLE, WHOLE, confinement.OWN_RANGE),
        ("0 1000 1\n", "0 1000 1\n", None),
        ("0 1000 1\n1 100000 65535\n", "0 1000 1\n1 100000 65535\n", (32768, 65472)),
        ("0 100000 65536\n", "0 100000 65536\n", (32768, 65472)),
        ("0 100000 65536\n", "0 100000 10\n", None),
    ],
)
def test_ids_are_taken_from_what_is_mapped(uids, gids, found):
    assert confinement.id_range(uids, gids) == found


def test_root_needs_the_rights_and_the_ids():
    status = STATUS.format(DOCKER_CAPS)
    assert confinement.ids_why(status, WHOLE, WHOLE) == ""
    assert "CAP_SETUID and CAP_SETGID" in confinement.ids_why(STATUS.format(0), WHOLE, WHOLE)
    few = "0 1000 1\n"
    assert "only 1 user ids" in confinement.ids_why(status, few, few)
    assert confinement.has_cap(status, "CAP_SETFCAP")
    assert not confinement.has_cap(status, "CAP_SYS_ADMIN")
    assert confinement.initial_ids(WHOLE)
    assert not confinement.initial_ids("0 1000 1\n")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of x86_64")
def test_the_harmless_calls_are_refused_by_the_kernel_itself():
    """Each with the errno that the table expects; a child would be one too many."""
    if asking.is_filtered():
        pytest.skip("a filter answers instead")
    before = Path("/proc/self/mountinfo").read_text(), os.readlink("/proc/self/ns/user")
    for name, (args, expected) in confinement.HARMLESS.items():
        assert asking.direct((numbers("x86_64")[name], *args)) == -expected, name
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    after = Path("/proc/self/mountinfo").read_text(), os.readlink("/proc/self/ns/user")
    assert before == after
    assert probe().refused == ()


def test_a_masked_proc_is_refused_or_empty():
    host = evolve(hosts.NESTED, proc_why="3 masks lie on /proc")
    with pytest.raises(HostLacks, match="systempaths=unconfined") as caught:
        compile_box(Sandbox().policy, host)
    assert caught.value.what == "proc"
    plan = compile_box(Sandbox(weaken={"proc"}).policy, host)
    assert verdicts(plan)["proc"] == "weakened"
    kinds = [op.strs[0] for op in plan.setup if op.code is OpCode.MOUNT_NEW]
    assert b"proc" not in kinds
    assert not any(op.code is OpCode.MASK for op in plan.setup)


def test_masks_don_t_matter_to_root_that_shares_the_initial_user_namespace():
    host = evolve(hosts.ROOT_V1, proc_why="3 masks lie on /proc")
    plan = compile_box(Policy(Namespace(pid=True), Mount.proc()), host)
    assert any(op.strs[:1] == (b"proc",) for op in plan.setup)


def test_a_filter_that_refuses_namespaces_is_told_before_anything_starts():
    with pytest.raises(HostLacks, match="seccomp=unconfined") as caught:
        compile_box(Sandbox().policy, FILTERED)
    assert caught.value.what == "user"
    for kind in ("net", "time", "mount"):
        with pytest.raises(HostLacks, match="seccomp=unconfined") as caught:
            compile_box(Policy(Namespace(**{kind: True})), FILTERED)
        assert caught.value.what == kind


def test_with_everything_given_up_only_what_can_be_held_is_promised():
    plan = compile_plan(Sandbox(weaken=ALL).policy, Command(["true"]), FILTERED)
    assert plan.clone_flags == 0
    weakened = {name for name, verdict in verdicts(plan).items() if verdict == "weakened"}
    # Landlock is a second lock, and reports hold nothing: neither asks for a word.
    assert weakened - {"landlock", "reports"} == ALL
    assert verdicts(plan)["caps"] == verdicts(plan)["seccomp"] == "enforced"
    assert verdicts(plan)["keyring"] == "enforced"  # by the filter that refuses keyctl
    codes = {op.code for op in (*plan.setup, *plan.program)}
    assert not codes & {OpCode.PIVOT_ROOT, OpCode.KEYRING, OpCode.LOOPBACK_UP, OpCode.SETHOSTNAME}
    assert {OpCode.CAPSET, OpCode.SECCOMP, OpCode.NO_NEW_PRIVS} <= codes


@pytest.mark.parametrize("missing", sorted(ALL))
def test_each_name_has_to_be_given_up_by_itself(missing):
    with pytest.raises(HostLacks) as caught:
        compile_box(Sandbox(weaken=ALL - {missing}).policy, FILTERED)
    assert caught.value.what == missing


def test_root_of_few_ids_is_refused_or_the_callers_id_is_mapped():
    host = evolve(hosts.NESTED, ids_why="only 1 user ids are mapped")
    with pytest.raises(HostLacks, match="CAP_SETUID") as caught:
        compile_box(Sandbox().policy, host)
    assert caught.value.what == "ids"
    plan = compile_box(Sandbox(weaken={"ids"}).policy, host)
    steps = {step.kind: step.args for step in plan.steps}
    assert "reserve_ids" not in steps
    assert steps["id_map"] == (((1000, 0, 1),), ((1000, 0, 1),), True)


def test_files_to_write_need_ids_that_can_be_shown_as_the_callers():
    policy = Sandbox(write=["/srv/out"]).policy
    with pytest.raises(HostLacks, match="/srv/out .*idmapped") as caught:
        compile_box(policy, evolve(hosts.ROOT_V1, idmap=False))
    assert caught.value.what == "ids"
    assert verdicts(compile_box(policy, hosts.ROOT_V1))["ids"] == "enforced"
    weak = Sandbox(write=["/srv/out"], weaken={"ids"}).policy
    assert verdicts(compile_box(weak, hosts.NESTED))["ids"] == "weakened"
    assert verdicts(compile_box(weak, hosts.ROOT_V1))["ids"] == "enforced"


def test_a_container_with_its_own_ids_gives_boxes_some_of_them():
    host = evolve(hosts.NESTED, id_range=(32768, 65472))
    plan = compile_box(Sandbox().policy, host)
    assert [step.args for step in plan.steps if step.kind == "reserve_ids"] == [(2, 32768, 65472)]


def test_a_hostname_may_be_given_up_only_under_a_filter():
    def ops(host, **short):
        plan = compile_box(Sandbox(**short).policy, host)
        return plan, next(op for op in plan.setup if op.code is OpCode.SETHOSTNAME)

    plan, op = ops(hosts.NESTED, weaken={"hostname"})
    assert (op.flags, "hostname" in verdicts(plan)) == (OpFlag(0), False)
    plan, op = ops(evolve(hosts.NESTED, filtered=True), weaken={"hostname"})
    assert (op.flags, verdicts(plan)["hostname"]) == (OpFlag.OPTIONAL, "weakened")
    plan, op = ops(evolve(hosts.NESTED, filtered=True))
    assert op.flags == OpFlag(0)


def test_what_only_the_attempt_tells_is_host_lacks_with_the_launch_error_as_cause():
    op = Op(code=OpCode.SETHOSTNAME, phase=Phase.NAMESPACE, about="set hostname x")
    error = failure((op,), 0, errno.EPERM)
    assert isinstance(error, HostLacks)
    assert "seccomp=unconfined" in str(error)
    assert error.__cause__.op is op
    assert forbidden(op, errno.EINVAL) is None
    assert not isinstance(failure((op,), 0, errno.EINVAL), HostLacks)


@pytest.mark.parametrize("code", ["PROPAGATION", "ROOT_TMPFS", "PIVOT_ROOT", "MOUNT_NEW"])
def test_forbidden_mounts_have_a_hint_with_the_containers_option(code):
    op = Op(code=OpCode[code], phase=Phase.MOUNT, about="x")
    assert "--security-opt" in hint(op, errno.EPERM, None)


def test_a_root_and_mounts_bring_their_mount_namespace():
    """Without one they would be made in the machine's own."""
    for policy in (Policy(Chroot("/srv")), Policy(Mount.tmpfs("/mnt"))):
        for host in (hosts.ROOT_V1, hosts.ORDINARY):
            assert compile_box(policy, host).clone_flags == CLONE_NEWNS
    both = compile_box(Policy(Namespace(user=True), Mount.tmpfs("/mnt")), hosts.ORDINARY)
    assert both.clone_flags == CLONE_NEWNS | CLONE_NEWUSER


def test_mounts_into_somebody_elses_namespace_are_a_conflict():
    joined = Namespace.of("/proc/1/ns/mnt", "mount")
    with pytest.raises(PolicyConflict, match="joined"):
        compile_box(Policy(joined, Mount.tmpfs("/mnt")), hosts.ROOT_V1)
