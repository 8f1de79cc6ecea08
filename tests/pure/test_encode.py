"""The blob that C reads: what is encoded is what the check accepts, and nothing points outside."""

import struct

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import LaunchError, Mount, Namespace, Policy, PolicyError, Sandbox, native
from isolate.abi.ops import MAGIC, VERSION, OpCode, OpFlag, Phase
from isolate.plan.compile import compile_box, compile_program
from isolate.plan.encode import HEADER, OP, encode, encode_body, encode_program
from isolate.plan.explain import explain
from isolate.plan.hints import BY_OP, BY_STEP, FORBIDDEN, forbidden, hint
from isolate.plan.model import Op, Plan, Step, Vector
from isolate.plan.verify import before, monotonic, verify
from isolate.policy.command import Command
from tests import hosts

U64 = st.integers(0, (1 << 64) - 1)


def op(code=OpCode.UMASK, phase=Phase.LIMIT, **more):
    return Op(code=code, phase=phase, about=code.name, **more)


READY = op(OpCode.READY, Phase.EXEC, slots=("record",))
EXEC = op(
    OpCode.EXEC, Phase.EXEC, strs=(b"/bin/true", Vector((b"true", b"x")), Vector((b"A=1",)))
)


class Blob:
    """A blob read back, by another hand than the one that wrote it."""

    def __init__(self, data):
        self.data = data
        self.magic, self.version, self.size, n_ops, self.n_slots, self.n_temps, self.clone = (
            HEADER.unpack_from(data)
        )
        self.ops = [OP.unpack_from(data, HEADER.size + n * OP.size) for n in range(n_ops)]

    def item(self, offset):
        (length,) = struct.unpack_from("<I", self.data, offset)
        assert self.data[offset + 4 + length] == 0
        return self.data[offset + 4 : offset + 4 + length]

    def vector(self, offset):
        raw = self.item(offset)
        return [self.item(each) for (each,) in struct.iter_unpack("<I", raw)]


def test_the_header_is_the_contract_s():
    blob = Blob(encode((READY,), clone_flags=0x20000000).blob)
    assert (blob.magic, blob.version, blob.clone) == (MAGIC, VERSION, 0x20000000)
    assert blob.size == len(blob.data)
    assert (blob.n_slots, blob.n_temps) == (1, 0)
    ffi = native.ffi
    assert HEADER.size == ffi.sizeof("struct iso_plan")
    assert OP.size == ffi.sizeof("struct iso_op")


def test_strings_and_vectors_are_found_where_the_op_says():
    blob = Blob(encode((READY, EXEC)).blob)
    code, phase, flags, a, b, path, argv, envp, none, *nums = blob.ops[1]
    assert (code, phase, flags) == (OpCode.EXEC, Phase.EXEC, 0)
    assert (a, b) == (-1, -1)
    assert blob.item(path) == b"/bin/true"
    assert blob.vector(argv) == [b"true", b"x"]
    assert blob.vector(envp) == [b"A=1"]
    assert none == 0
    assert nums == [0, 0, 0, 0]


def test_an_empty_string_is_not_none():
    blob = Blob(encode((op(OpCode.SETGROUPS, strs=(b"", None)),)).blob)
    _, _, _, _, _, first, second, *_ = blob.ops[0]
    assert first
    assert blob.item(first) == b""
    assert second == 0


def test_a_string_that_comes_twice_stands_once():
    one = encode((op(OpCode.CHDIR, strs=(b"/x" * 50,)),)).blob
    two = encode((op(OpCode.CHDIR, strs=(b"/x" * 50,)),) * 2).blob
    assert len(two) == len(one) + OP.size


def test_slots_are_numbered_in_order_and_temps_after_them():
    ops = (
        op(OpCode.LANDLOCK_CREATE, slots=(None, "temp:rules")),
        op(OpCode.BIND, slots=("tree:b", None), strs=(None, b"/b")),
        op(OpCode.BIND, slots=("tree:a", None), strs=(None, b"/a")),
        op(OpCode.LANDLOCK_RESTRICT, slots=("temp:rules",)),
    )
    encoded = encode(ops)
    assert encoded.slots == ("tree:b", "tree:a")
    blob = Blob(encoded.blob)
    assert (blob.n_slots, blob.n_temps) == (2, 1)
    assert [each[3:5] for each in blob.ops] == [(-1, 2), (0, -1), (1, -1), (2, -1)]


def test_a_flag_is_the_kernel_side_s_bit():
    blob = Blob(encode((op(OpCode.BIND, flags=OpFlag.RECURSIVE | OpFlag.MAKE_DIR),)).blob)
    assert blob.ops[0][2] == native.lib.ISO_F_RECURSIVE | native.lib.ISO_F_MAKE_DIR


def test_a_number_beyond_64_bits_is_refused():
    for number in (-1, 1 << 64):
        with pytest.raises(struct.error):
            encode((op(nums=(number,)),))


@settings(max_examples=200, deadline=None)
@given(
    strs=st.lists(st.binary(max_size=40), max_size=4),
    nums=st.lists(U64, max_size=4),
    flags=st.integers(0, 63),
    clone=st.integers(0, (1 << 63) - 1),
)
def test_what_is_encoded_is_accepted_and_comes_back(strs, nums, flags, clone):
    ops = (op(OpCode.UMASK, strs=tuple(strs), nums=tuple(nums), flags=OpFlag(flags)), READY)
    data = encode(ops, clone).blob
    assert native.check(data) is None
    blob = Blob(data)
    got = blob.ops[0]
    assert [blob.item(each) for each in got[5 : 5 + len(strs)]] == strs
    assert list(got[9 : 9 + len(nums)]) == nums
    assert (got[2], blob.clone) == (flags, clone)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=30), st.lists(st.binary(max_size=20), max_size=30))
def test_any_argv_and_environment_come_back(argv, envp):
    exec_op = evolve(EXEC, strs=(b"/x", Vector(tuple(argv)), Vector(tuple(envp))))
    data = encode((READY, exec_op)).blob
    assert native.check(data) is None
    blob = Blob(data)
    assert blob.vector(blob.ops[1][6]) == argv
    assert blob.vector(blob.ops[1][7]) == envp


def same(one, two):
    """Two blobs say the same, wherever their strings stand."""
    one, two = Blob(one), Blob(two)
    assert (one.n_slots, one.n_temps, one.clone) == (two.n_slots, two.n_temps, two.clone)
    for a, b in zip(one.ops, two.ops, strict=True):
        assert a[:5] == b[:5]
        assert a[9:] == b[9:]
        for x, y in zip(a[5:9], b[5:9], strict=True):
            assert bool(x) == bool(y)
            if x and a[0] != OpCode.EXEC:
                assert one.item(x) == two.item(y)
        if a[0] == OpCode.EXEC:
            for n in (6, 7):
                assert one.vector(a[n]) == two.vector(b[n])


def test_a_body_and_its_exec_say_what_all_at_once_says():
    policy = Sandbox().policy
    program = compile_program(policy, Command(["/bin/true", "x"]), hosts.ROOT_V1)
    whole = encode(program.ops)
    parts = encode_program(encode_body(program.body), program.exec)
    assert native.check(parts.blob) is None
    assert parts.slots == whole.slots
    same(parts.blob, whole.blob)


def test_two_programs_of_a_policy_differ_in_their_exec_alone():
    body = encode_body((op(OpCode.CHDIR, strs=(b"/x",)), READY))
    one = Blob(encode_program(body, EXEC).blob)
    other = Blob(encode_program(body, evolve(EXEC, strs=(b"/y", Vector(()), Vector(())))).blob)
    assert one.ops[:2] == other.ops[:2]
    assert other.item(other.ops[2][5]) == b"/y"


@pytest.mark.parametrize("name", [each for each in hosts.ALL if "no_userns" not in each.lower()])
def test_the_plans_of_every_recorded_host_are_accepted(name):
    plan = compile_box(Policy(Namespace(user=True, mount=True, pid=True)), hosts.ALL[name])
    assert native.check(encode(plan.setup, plan.clone_flags).blob) is None


# -- what must hold for every plan


FILTER = op(OpCode.SECCOMP, Phase.EXEC)
GOOD = Plan(program=(op(OpCode.NO_NEW_PRIVS, Phase.LSM), READY, FILTER, EXEC))


def test_a_good_plan_is_good():
    verify(GOOD)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(setup=(op(phase=Phase.ROOT), op(phase=Phase.IDS))), "a phase goes down"),
        (Plan(program=(READY,)), "last op is not EXEC"),
        (Plan(program=(op(OpCode.SECCOMP, Phase.EXEC), READY, EXEC)), "SECCOMP before READY"),
        (
            Plan(program=(op(OpCode.SECCOMP, Phase.LSM), op(OpCode.NO_NEW_PRIVS, Phase.LSM), EXEC)),
            "SECCOMP before NO_NEW_PRIVS",
        ),
        (
            Plan(program=(op(OpCode.SETRESUID), op(OpCode.BOUNDING), EXEC)),
            "SETRESUID before BOUNDING",
        ),
        (
            Plan(program=(op(OpCode.CAPSET), op(OpCode.SETRESUID), EXEC)),
            "CAPSET before SETRESUID",
        ),
        (
            Plan(program=(op(OpCode.DUP2), op(OpCode.CLOSE_FROM), EXEC)),
            "DUP2 before CLOSE_FROM",
        ),
        (
            Plan(setup=(op(OpCode.PIVOT_ROOT, Phase.ROOT), op(OpCode.BIND, Phase.ROOT))),
            "PIVOT_ROOT before BIND",
        ),
        (Plan(template=(op(OpCode.BIND, Phase.MOUNT),)), "last op is not PIVOT_ROOT"),
        (Plan(setup=(op(OpCode.ROOT_HERE),)), "ROOT_HERE without a template"),
        (Plan(setup=(op(OpCode.STEWARD), op())), "STEWARD is not the set-up's last op"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(plan, said):
    with pytest.raises(PolicyError, match=said):
        verify(plan)


def test_all_that_is_wrong_is_said_together():
    plan = Plan(program=(op(OpCode.SECCOMP, Phase.EXEC), op(OpCode.CAPSET, Phase.LIMIT)))
    with pytest.raises(PolicyError) as caught:
        verify(plan)
    assert "a phase goes down" in str(caught.value)
    assert "not EXEC" in str(caught.value)


def test_order_is_of_all_that_are_there():
    a, b = op(OpCode.CAPSET), op(OpCode.UMASK)
    assert before((a, b), OpCode.CAPSET, OpCode.UMASK)
    assert not before((a, b, a), OpCode.CAPSET, OpCode.UMASK)
    assert before((a,), OpCode.CAPSET, OpCode.UMASK)
    assert before((), OpCode.CAPSET, OpCode.UMASK)
    assert monotonic(())
    assert monotonic((a, a))


def test_an_op_is_found_by_its_code():
    assert GOOD.index(OpCode.SECCOMP) == 2
    with pytest.raises(ValueError, match="no CHDIR"):
        GOOD.index(OpCode.CHDIR)


# -- hints and tables


def test_every_hint_is_a_sentence_for_a_real_errno():
    for (what, number), text in (*BY_OP.items(), *BY_STEP.items()):
        assert what
        assert 0 < number < 134
        assert text == text.strip()
        assert not text.endswith(".")


def test_a_hint_is_found_by_op_or_step():
    failed = op(OpCode.EXEC, Phase.EXEC)
    assert "root" in hint(failed, 2, None)
    assert hint(failed, 71, None) is None
    assert "exist on this machine" in hint(Step(kind="open_tree", about="x"), 2, None)
    assert hint(Step(kind="reserve_ids", about="x"), 2, None) is None


def test_what_an_outer_container_forbids_says_how_to_do_without():
    for (code, number), (name, _, _) in FORBIDDEN.items():
        lack = forbidden(op(code), number)
        assert lack.what == name
        assert f'weaken={{"{name}"}}' in lack.hint
    assert forbidden(op(OpCode.CHDIR), 1) is None


def test_a_first_process_fails_as_programs_do():
    steward, apparmor = op(OpCode.STEWARD), op(OpCode.APPARMOR)
    assert hint(steward, 13, None) == hint(apparmor, 13, None)
    assert forbidden(steward, 2).what == "apparmor"


def test_a_table_has_a_line_for_each_step_op_and_promise():
    policy = Sandbox(Mount.tmpfs("/t")).policy
    plan = compile_box(policy, hosts.ROOT_V1)
    text = explain(plan)
    for each in (*plan.steps, *plan.setup, *plan.template):
        assert each.about in text
    for promise in plan.guarantees:
        assert promise.name in text
    assert text.index("the parent:") < text.index("isolate-init, cloned with")
    assert text.endswith("\n")


def test_an_error_of_an_op_reads_as_a_sentence():
    failed = evolve(op(OpCode.CHDIR, Phase.LIMIT), about="chdir /no", origin=Mount.tmpfs("/t"))
    text = str(LaunchError(3, failed, 2, "say where", steps=9))
    assert text.splitlines()[0] == "chdir /no: No such file or directory (ENOENT)"
    assert "step 3 of 9, CHDIR, asked for by Mount(" in text
    assert text.endswith("hint: say where")
