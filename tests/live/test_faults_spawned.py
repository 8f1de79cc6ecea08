"""Faults of the two ops that need more than a set-up: LEAF, of a program that is being started, and
REBORN, after which another process is init."""

import errno
import os
from contextlib import closing

import pytest

from isolate import Arg, Errno, LaunchError, Rule, native
from isolate.abi.ops import STEP_READY, OpCode, Phase, Record, Request
from isolate.plan.encode import encode
from isolate.plan.model import Op, Vector
from isolate.supervise import channel, joining
from isolate.supervise.setup import failure, set_up
from isolate.supervise.start import start_init
from tests.conftest import processes, state
from tests.live.faults import failing
from tests.live.test_faults_ops import CLONE, NEW_PID, folder, no_templates, write_maps

pytestmark = pytest.mark.needs("gcc", "x86_64")
assert folder and no_templates  # fixtures

NO_CLONE3 = Rule("clone3", Errno("ENOSYS"))
UMASK = Op(code=OpCode.UMASK, phase=Phase.LIMIT, about="set umask", nums=(0o22,))
LEAF = Op(
    code=OpCode.LEAF, phase=Phase.CGROUP, about="be born in the leaf", origin="asked LEAF",
    slots=("leaf",),
)  # fmt: skip
READY = Op(code=OpCode.READY, phase=Phase.EXEC, about="report ready", slots=("record",))
TRUE = Op(
    code=OpCode.EXEC, phase=Phase.EXEC, about="exec /bin/true",
    strs=(b"/bin/true", Vector((b"true",)), Vector(())),
)  # fmt: skip


def born_outside(leaf_fd):
    """A program that clone3 could not put into its leaf. (What its start told, its end)."""
    ops = (LEAF, READY, TRUE)
    blob = encode(ops)
    init = start_init(NEW_PID)
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        write_maps(init.pid)
        set_up(init, (UMASK,), {})
        blob_fd = channel.blob_fd(blob.blob)
        named = {"leaf": leaf_fd, "record": write_fd}
        passed = [blob_fd, *(named[name] for name in blob.slots)]
        flags = channel.SPAWN_LAST | channel.SPAWN_CGROUP
        status = channel.ask(init.control, Request.SPAWN, passed, flags)
        os.close(blob_fd)
        os.close(write_fd)
        with closing(status):
            record, pidfd = status.receive(20)
            if pidfd is not None:
                os.close(pidfd)
            if record.type is not Record.SPAWNED:
                raise failure(ops, 0, record.error)
            end, _ = status.receive(20)
        return [each[:2] for each in native.told(read_fd, 20)], end
    finally:
        init.close()
        os.close(read_fd)


@pytest.fixture
def leaf(tmp_path):
    """A directory that looks like a leaf, and takes what is written."""
    tmp_path.chmod(0o777)
    (tmp_path / "cgroup.procs").write_bytes(b"")
    (tmp_path / "cgroup.procs").chmod(0o666)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    yield fd, tmp_path / "cgroup.procs"
    os.close(fd)


def test_without_clone3_a_program_joins_its_leaf_itself(leaf, folder):
    fd, file = leaf
    with failing(folder, "mlockall", errno.EIO, (), (NO_CLONE3,)):
        told, end = born_outside(fd)
    assert file.read_bytes() == b"0"
    assert told == [(STEP_READY, 0)]
    assert (end.type, end.status) == (Record.EXITED, 0)


LEAF_CALLS = [
    ("openat", (Arg(2, width=32) & os.O_WRONLY == os.O_WRONLY,)),
    ("write", (Arg(2) == 1,)),
]


@pytest.mark.parametrize("word", ["EIO", "EPERM", "ENOMEM", "EBUSY"])
@pytest.mark.parametrize("call", LEAF_CALLS, ids=lambda call: call[0])
def test_a_program_that_can_not_join_its_leaf_never_runs(call, word, leaf, folder):
    fd, file = leaf
    seen, number = state(), getattr(errno, word)
    with failing(folder, call[0], number, call[1], (NO_CLONE3,)):
        told, end = born_outside(fd)
    assert told == [(0, number)]  # step 0 is LEAF, and READY was never written
    assert os.waitstatus_to_exitcode(end.status) == 127
    assert file.read_bytes() == b""
    error = failure((LEAF, READY, TRUE), 0, number)
    assert "born in the leaf" in str(error)
    assert state() == seen


def test_a_leaf_that_is_none_stops_the_clone(folder):
    """With clone3 the kernel itself refuses a descriptor that is no cgroup's."""
    seen = state()
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with pytest.raises(LaunchError) as caught:
            born_outside(fd)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.EBADF
    assert state() == seen


# -- REBORN

REBORN = Op(
    code=OpCode.REBORN, phase=Phase.NAMESPACE, about="clone the box's init", origin="asked REBORN",
    slots=("reborn",), nums=(CLONE,),
)  # fmt: skip


def reborn():
    """Init clones itself; what the caller then has is the second one."""
    first = start_init(0)
    second = None
    try:
        second = joining.join(first, (DUMPABLE, REBORN), {})
        return second.pid != first.pid
    finally:
        (second or first).close()
        first.close()


DUMPABLE = Op(code=OpCode.DUMPABLE, phase=Phase.NAMESPACE, about="hide init", nums=(0,))


def test_an_init_clones_itself_and_the_first_is_gone():
    seen = state()
    assert reborn()
    assert state() == seen


@pytest.mark.parametrize("word", ["EIO", "EAGAIN", "ENOMEM", "EUSERS"])
def test_an_init_that_can_not_clone_itself_names_the_op(word, folder):
    seen, number = state(), getattr(errno, word)
    cloned = (Arg(0) & CLONE == CLONE,)
    with failing(folder, "clone", number, cloned), pytest.raises(LaunchError) as caught:
        reborn()
    error = caught.value
    assert (error.op.code, error.errno, error.step) == (OpCode.REBORN, number, 1)
    assert error.origin == "asked REBORN"
    assert state() == seen


def test_an_init_that_can_not_tell_of_its_clone_names_the_op(folder):
    """The second one, of which nobody knows, is killed; what is left of it is a zombie of ours."""
    before = processes()
    to_us = (Arg(0) > 8,)  # its answers go to the first descriptor of the request
    with failing(folder, "sendmsg", errno.EIO, to_us), pytest.raises(LaunchError) as caught:
        reborn()
    error = caught.value
    assert error.op.code is OpCode.REBORN
    assert error.errno in (errno.EIO, errno.EPIPE)  # the second one's answer may come first
    for entry in processes() - before:
        pid, _, name = entry.partition(" ")
        assert name == "isolate-init"
        _, status = os.waitpid(int(pid), 0)
        assert os.waitstatus_to_exitcode(status) in (-9, 0)
