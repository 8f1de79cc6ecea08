# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

import pytest

from isolate import CgroupLimit, HostLacks, Namespace, Sandbox, native
from isolate.abi.ops import OpCode, OpFlag, Phase, Record, Request
from isolate.host.facts import Host
from isolate.host.probe import probe
from isolate.plan.compile import compile_box, compile_plan, compile_program
from isolate.plan.encode import HEADER, LENGTH, OP, encode, encode_body, encode_program
from isolate.plan.explain import explain
from isolate.plan.model import Op, Plan, Vector
from isolate.plan.verify import verify
from isolate.policy.command import Command
from isolate.policy.policy import Policy
from tests import hosts

ROOT = Path(__file__).resolve().parents[2]
TRUE = Command(["true"])
GOLDEN = Path(__file__).parent / "golden"


def test_the_codes_are_those_of_the_c_side():
    text = (ROOT / "_native" / "isolate.cdef.h").read_text()
    for table, prefix in ((OpCode, "OP"), (OpFlag, "F"), (Request, "REQ"), (Record, "REC")):
        for member in table:
            found = re.search(rf"#define ISO_{prefix}_{member.name} +(\d+)", text)
            assert found, member
            assert int(found[1]) == member.value


@pytest.mark.parametrize("name", sorted(hosts.ALL))
def test_the_default_plan_is_as_recorded(name):
    text = explain(compile_plan(Sandbox().policy, TRUE, hosts.ALL[name]))
    path = GOLDEN / f"{name}.txt"
    assert text == path.read_text(), f"if that is meant: python -m tests.pure.test_plan {name}"


@pytest.mark.parametrize("host", hosts.ALL.values(), ids=sorted(hosts.ALL))
def test_every_blob_is_accepted_by_the_checker(host):
    plan = compile_plan(Sandbox().policy, TRUE, host)
    for ops in (plan.setup, plan.program):
        assert native.check(encode(ops).blob) is None


def test_a_broken_blob_is_refused_with_the_place():
    blob = bytearray(encode(compile_box(Sandbox().policy, hosts.ROOT_V1).setup).blob)
    blob[32:34] = b"\xff\xff"  # the first op's code
    assert native.check(bytes(blob)) == 32
    assert native.check(bytes(blob[:40])) == 0
    assert native.check(b"") == 0


def test_privileges_go_in_the_right_order():
    plan = compile_plan(Sandbox().policy, TRUE, hosts.ROOT_V1)
    codes = [op.code for op in plan.program]
    order = [
        OpCode.JOIN_CGROUP,
        OpCode.SETSID,
        OpCode.CLOSE_FROM,
        OpCode.BOUNDING,
        OpCode.SETGROUPS,
        OpCode.SETRESGID,
        OpCode.SETRESUID,
        OpCode.CAPSET,
        OpCode.NO_NEW_PRIVS,
        OpCode.READY,
        OpCode.EXEC,
    ]
    places = [codes.index(code) for code in order]
    assert places == sorted(places)


def test_a_plan_whose_phases_go_down_is_refused():
    late = Op(code=OpCode.EXEC, phase=Phase.EXEC, about="exec")
    early = Op(code=OpCode.SETSID, phase=Phase.SESSION, about="setsid")
    with pytest.raises(ValueError, match="phase goes down"):
        verify(Plan(program=(late, early)))


def test_the_same_policy_gives_the_same_plan():
    assert compile_plan(Sandbox(mem="1M").policy, TRUE, hosts.ROOT_V1) == compile_plan(
        Sandbox(mem="1M").policy, TRUE, hosts.ROOT_V1
    )


def test_memory_without_a_cgroup_is_refused_with_what_to_do():
    with pytest.raises(HostLacks, match="systemd-run") as caught:
        compile_box(Sandbox(mem="64M").policy, hosts.ORDINARY)
    assert caught.value.what == "memory"


def test_a_weakened_limit_is_listed():
    plan = compile_box(Sandbox(mem="64M", weaken={"memory"}).policy, hosts.ORDINARY)
    assert [g.verdict for g in plan.guarantees if g.name == "memory"] == ["weakened"]


def test_no_user_namespaces_is_refused_by_name():
    with pytest.raises(HostLacks, match="max_user_namespaces"):
        compile_box(Sandbox().policy, hosts.NO_USERNS)


def test_an_ordinary_user_gets_pids_by_rlimit_in_the_user_namespace():
    plan = compile_plan(Sandbox(pids=7).policy, TRUE, hosts.ORDINARY)
    assert any(op.code is OpCode.RLIMIT and op.nums == (6, 8, 8) for op in plan.program)


def test_bare_primitives_do_nothing_else():
    plan = compile_plan(Policy(Namespace(net=True)), TRUE, hosts.ROOT_V1)
    assert plan.clone_flags == 0x40000000
    assert [op.code for op in plan.setup] == [OpCode.DUMPABLE]
    assert not plan.steps


def test_hosts_go_through_json():
    here = probe()
    assert Host.from_json(here.to_json()) == here


def test_probing_tells_the_same_twice():
    assert probe() == probe()


def test_vectors_and_strings_are_items_of_their_own():
    op = Op(
        code=OpCode.EXEC,
        phase=Phase.EXEC,
        about="exec",
        strs=(b"/bin/x", Vector((b"a", b"b c")), Vector(())),
    )
    blob = encode((op,)).blob
    assert native.check(blob) is None
    assert b"b c\0" in blob


def test_limits_go_to_the_supervisor():
    limits = compile_box(Sandbox(mem="2M", timeout="3s", output=5).policy, hosts.ROOT_V1).limits
    assert (limits.memory, limits.wall, limits.output) == (2 << 20, 3.0, 5)
    assert compile_box(Policy(CgroupLimit(pids=3)), hosts.ROOT_V1).limits.pids == 3


def test_a_programs_bytes_in_two_parts_say_the_same_as_in_one():
    policy = Sandbox().policy
    for argv in (["true"], ["/bin/sh", "-c", "x" * 5000], ["a", *map(str, range(300))]):
        program = compile_program(policy, Command(argv), hosts.ROOT_V1)
        two = encode_program(encode_body(program.body), program.exec)
        one = encode(program.ops)
        assert native.check(two.blob) is None
        assert two.slots == one.slots
        assert unpacked(two.blob) == unpacked(one.blob)


def test_every_program_of_a_policy_shares_its_body():
    policy = Sandbox().policy
    first = compile_program(policy, Command(["true"]), hosts.ROOT_V1)
    other = compile_program(policy, Command(["false", "x"], {"A": "b"}), hosts.ROOT_V1)
    elsewhere = compile_program(policy, Command(["true"], None, "/usr"), hosts.ROOT_V1)
    assert first.body is other.body
    assert elsewhere.body != first.body


def unpacked(blob):
    """Each op with its strings in the place of their offsets."""
    n_ops = HEADER.unpack_from(blob)[3]

    def item(offset):
        (length,) = LENGTH.unpack_from(blob, offset)
        return blob[offset + 4 : offset + 4 + length]

    found = []
    for i in range(n_ops):
        values = OP.unpack_from(blob, HEADER.size + i * OP.size)
        strs = [item(offset) if offset else None for offset in values[5:9]]
        if values[0] == OpCode.EXEC:
            for which in (1, 2, 3):
                offsets = [at for (at,) in LENGTH.iter_unpack(strs[which] or b"")]
                strs[which] = [item(offset) for offset in offsets]
        found.append((values[:5], strs, values[9:]))
    return found


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each, machine in hosts.ALL.items():
        (GOLDEN / f"{each}.txt").write_text(explain(compile_plan(Sandbox().policy, TRUE, machine)))
