"""What the caller does around the clone: a failure names its step, what was made is undone."""

import errno
import os
import threading
from contextlib import ExitStack

import pytest

from isolate import HostLacks, LaunchError, SupervisorError, native
from isolate.abi.ops import OpCode, Phase
from isolate.plan.model import Op, Plan, Step
from isolate.supervise import start, steps, template, threads
from isolate.supervise.hostids import HostIds
from isolate.supervise.setup import blob_of, failure, parent_step, watching
from isolate.supervise.start import Shared, check_started, start_plan
from isolate.supervise.steps import Prepared, id_lines, prepare, write_id_maps, write_whole
from isolate.supervise.template import Template, Templates

STEP_READY = 0xFFFFFFFF


def op(code=OpCode.UMASK, about="set umask", **more):
    return Op(code=code, phase=Phase.LIMIT, about=about, origin="asked", **more)


def step(kind, *args, **more):
    return Step(kind=kind, about=f"do {kind}", args=args, origin="asked", **more)


@pytest.fixture
def made():
    with ExitStack() as undo:
        yield Prepared(undo)


def open_fds():
    return len(os.listdir("/proc/self/fd"))


# -- a step of the parent


def test_a_step_that_fails_is_a_launch_error_with_its_cause():
    with pytest.raises(LaunchError) as caught, parent_step("talk to init"):
        raise OSError(errno.EMFILE, "too many")
    error = caught.value
    assert (error.errno, error.op.about, error.step) == (errno.EMFILE, "talk to init", 0)
    assert isinstance(error.__cause__, OSError)
    assert "talk to init" in str(error)
    assert "EMFILE" in str(error)


def test_a_step_that_takes_too_long_says_whom_it_waited_for():
    with pytest.raises(LaunchError, match="didn't answer") as caught, parent_step("talk to init"):
        raise TimeoutError("late")
    assert caught.value.errno == errno.ETIMEDOUT


def test_an_error_of_ours_goes_through_a_step_as_it_is():
    lacks = HostLacks("x", "because")
    for wrapped in (parent_step("a"), watching("b")):
        with pytest.raises(HostLacks) as caught, wrapped:
            raise lacks
        assert caught.value is lacks


def test_other_errors_are_not_hidden():
    with pytest.raises(KeyError), parent_step("a"):
        raise KeyError("a bug")
    with pytest.raises(KeyError), watching("a"):
        raise KeyError("a bug")


def test_what_fails_while_a_program_may_run_is_a_supervisor_error():
    with pytest.raises(SupervisorError, match="counters") as caught, watching("read its counters"):
        raise OSError(errno.EIO, "x")
    assert caught.value.errno == errno.EIO
    with pytest.raises(SupervisorError) as caught, watching("read its counters"):
        raise OSError("without a number")
    assert caught.value.errno == errno.EIO


def test_a_failed_op_is_told_by_its_index():
    ops = (op(), op(OpCode.CHDIR, "chdir /no"))
    error = failure(ops, 1, errno.ENOENT)
    assert (error.op, error.step, error.steps) == (ops[1], 1, 2)
    assert "cwd is a path inside" in error.hint
    assert isinstance(error.__cause__, OSError)


def test_an_index_beyond_the_ops_is_the_last_one_s():
    """A plan that did not end in exec says so by one step more."""
    assert failure((op(), op(OpCode.EXEC, "exec x")), 7, errno.ENOEXEC).op.about == "exec x"


def test_what_the_machine_turned_out_to_lack_is_told_as_that():
    error = failure((op(OpCode.SETHOSTNAME, "set hostname x"),), 0, errno.EPERM)
    assert isinstance(error, HostLacks)
    assert error.what == "hostname"
    assert isinstance(error.__cause__, LaunchError)


def test_the_bytes_of_the_same_ops_are_made_once():
    ops = (op(nums=(1,)),)
    assert blob_of(ops) is blob_of(ops)
    assert blob_of((op(nums=(1,)),)).blob == blob_of(ops).blob


# -- the steps


def test_a_step_that_the_kernel_refuses_names_itself_and_is_undone(made, tmp_path):
    missing = step("open_tree", str(tmp_path / "no"), False, 0, 0, False, False, slot="tree")
    plan = Plan(steps=(step("id_map", (), (), False), missing))
    before = open_fds()
    with pytest.raises(LaunchError) as caught:
        prepare(plan, made)
    error = caught.value
    assert (error.step, error.steps, error.op) == (1, 2, missing)
    assert error.errno in (errno.ENOENT, errno.EPERM)
    assert error.origin == "asked"
    made.undo.close()
    assert open_fds() == before


def test_steps_for_programs_only_are_left_for_later(made):
    """The cgroup is made while init sets the box up."""
    seen = []
    kinds = {"cgroup": lambda s, _: seen.append(s.kind), "id_map": lambda s, _: seen.append(s.kind)}
    plan = Plan(steps=(step("cgroup"), step("id_map")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "KINDS", kinds)
        patch.setattr(steps, "BEFORE", {})
        prepare(plan, made)
        assert seen == ["id_map"]
        prepare(plan, made, meanwhile=True)
    assert seen == ["id_map", "cgroup"]


def test_what_steps_made_is_undone_in_reverse(made):
    order = []
    for name in ("first", "second"):
        made.undo.callback(order.append, name)
    made.undo.close()
    assert order == ["second", "first"]


def test_a_descriptor_that_a_step_keeps_is_closed_by_the_undo(made):
    fd = os.open("/dev/null", os.O_RDONLY)
    steps.keep(step("archive", slot="archive"), made, fd)
    assert made.fds == {"archive": fd}
    made.undo.close()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_an_upper_directory_is_made_once_and_kept(made, tmp_path):
    (tmp_path / "data").mkdir()
    steps.make_upper(step("make_upper", str(tmp_path)), made)
    steps.make_upper(step("make_upper", str(tmp_path)), made)
    assert sorted(os.listdir(tmp_path)) == ["data", "work"]


def test_an_archive_that_is_none_is_told_with_its_step(made, tmp_path):
    file = tmp_path / "x.tar"
    file.write_bytes(b"not a tar")
    with pytest.raises((LaunchError, ValueError, HostLacks)) as caught:
        prepare(Plan(steps=(step("archive", str(file), 1 << 20, slot="a"),)), made)
    assert "x.tar" in str(caught.value) or "archive" in str(caught.value)


# -- id maps


IDS = HostIds(100_000, None)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (((0, 1000, 1),), b"0 1000 1\n"),
        (((0, None, 1),), b"0 100000 1\n"),
        (((0, None, 1), (1000, None, 1)), b"0 100000 1\n1000 100001 1\n"),
        (((0, None, 2), (5, 7, 1), (9, None, 1)), b"0 100000 2\n5 7 1\n9 100002 1\n"),
        ((), b""),
    ],
)
def test_reserved_ids_are_given_out_in_order(lines, text):
    assert id_lines(lines, IDS) == text


def test_reserved_ids_that_nobody_reserved_are_refused():
    with pytest.raises(HostLacks, match="reserved"):
        id_lines(((0, None, 1),), None)
    assert id_lines(((0, 5, 1),), None) == b"0 5 1\n"


def test_a_map_of_a_process_that_is_gone_names_the_namespace(made):
    made.id_map = step("id_map", ((0, 0, 1),), ((0, 0, 1),), True)
    with pytest.raises(LaunchError) as caught:
        write_id_maps(2**22 + 5, made)  # above the kernel's greatest pid
    assert caught.value.errno == errno.ENOENT
    assert caught.value.op is made.id_map


def test_without_a_map_nothing_is_written(made):
    write_id_maps(2**22 + 5, made)


def test_a_short_write_is_an_error(tmp_path):
    file = tmp_path / "x"
    file.touch()
    write_whole(str(file), b"abc")
    assert file.read_bytes() == b"abc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: len(data) - 1)
        with pytest.raises(OSError, match="short write"):
            write_whole(str(file), b"abc")
    with pytest.raises(FileNotFoundError):
        write_whole(str(tmp_path / "no"), b"x")


@pytest.mark.parametrize(
    ("args", "base", "wanted"),
    [
        (None, None, None),
        ((((0, 1000, 1),), ()), None, 1000),
        ((((0, None, 1),), ()), None, None),
        ((((0, None, 1),), ()), 5000, 5000),
    ],
)
def test_init_s_own_id_is_the_first_of_its_map(made, args, base, wanted):
    if args is not None:
        made.id_map = step("id_map", *args, False)
    if base is not None:
        made.ids = HostIds(base, None)
    assert steps.init_id(made) == wanted


def test_an_idmapped_mount_needs_ids_of_the_box_s_own(made):
    with pytest.raises(HostLacks, match="reserved ids"):
        steps.idmap_namespace(made)


# -- threads


def test_a_thread_runs_what_it_is_given():
    ran = threading.Event()
    thread = threads.start_thread("isolate-test", ran.set)
    thread.join(20)
    assert ran.is_set()
    assert thread.daemon
    assert thread.name == "isolate-test"


def test_a_thread_that_the_machine_refuses_is_an_os_error(monkeypatch):
    def full(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    with pytest.raises(OSError, match="can't start new thread") as caught:
        threads.start_thread("isolate-test", print)
    assert caught.value.errno == errno.EAGAIN
    assert isinstance(caught.value.__cause__, RuntimeError)


# -- what every start shares


@pytest.fixture
def shared():
    made = Shared()
    yield made
    for fd in (made.host_fd, made.init_fd, made.null_fd):
        if fd >= 0:
            os.close(fd)


def test_the_shared_descriptors_are_opened_once(shared):
    first = shared.get()
    assert shared.get() == first
    assert all(not os.get_inheritable(fd) for fd in first)
    assert os.readlink(f"/proc/self/fd/{first[1]}").endswith("isolate-init")


def test_after_a_fork_they_are_others_and_the_old_are_closed(shared):
    first = shared.get()
    identity = os.readlink(f"/proc/self/fd/{first[2]}")
    before = open_fds()
    shared.pid = -1  # as in a fork
    second = shared.get()
    assert open_fds() == before
    assert shared.pid == os.getpid()
    assert os.readlink(f"/proc/self/fd/{second[2]}") == identity


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_one_that_can_not_be_opened_leaves_all_as_it_was(shared, monkeypatch, failing):
    first = shared.get()
    shared.pid = -1
    before = open_fds()
    calls = iter(range(3))

    def checked(real):
        def opening(*args):
            if next(calls) == failing:
                raise OSError(errno.EMFILE, "too many")
            return real(*args)

        return opening

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", checked(os.pidfd_open))
        patch.setattr(os, "open", checked(os.open))
        with pytest.raises(OSError, match="too many"):
            shared.get()
    assert open_fds() == before
    assert (shared.host_fd, shared.init_fd, shared.null_fd) == first
    for fd in first:
        os.fstat(fd)
    assert shared.get()  # the next one works


@pytest.mark.parametrize(
    ("records", "errno_", "at"),
    [
        ([], 32, 0),
        ([(0, 13, 0)], 13, 0),
        ([(STEP_READY, 0, 0), (2, 2, 0)], 2, 2),
        ([(STEP_READY, 0, 0), (STEP_READY, 0, 0)], 32, STEP_READY),
    ],
)
def test_a_start_counts_only_with_one_ready_record(records, errno_, at):
    ops, _ = start_plan(0)
    with pytest.raises(LaunchError) as caught:
        check_started(ops, records)
    assert caught.value.errno == errno_
    assert caught.value.step == at
    check_started(ops, [(STEP_READY, 0, 0)])


def test_a_start_keeps_capabilities_only_for_a_new_user_namespace():
    plain, own = start_plan(0)[0], start_plan(0x10000000)[0]
    assert OpCode.CAPSET not in [each.code for each in plain]
    codes = [each.code for each in own]
    assert codes.index(OpCode.CAPSET) < codes.index(OpCode.AMBIENT) < codes.index(OpCode.EXEC)
    for ops in (plain, own):
        codes = [each.code for each in ops]
        assert codes[0] is OpCode.CLOSE_FROM
        assert codes[-2:] == [OpCode.READY, OpCode.EXEC]


def test_a_process_that_could_not_be_left_alone_is_ended(monkeypatch):
    """The signal mask could not be put back: what was cloned is killed and reaped."""
    child = os.fork()
    if child == 0:
        while True:
            threading.Event().wait(60)
    pidfd = os.pidfd_open(child)

    def spawned(blob, size, slots, n, shares, places, out):
        out.pid, out.pidfd, out.entered = child, pidfd, 1
        return -errno.EIO

    class Lib:
        iso_spawn_in = staticmethod(spawned)

    monkeypatch.setattr(native, "lib", Lib)
    with pytest.raises(OSError) as caught:
        native.spawn(b"\0" * 8, [], shares_memory=True)
    assert caught.value.errno == errno.EIO
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)
    with pytest.raises(OSError):
        os.fstat(pidfd)


# -- templates of the mount tree


def bind(path):
    return op(OpCode.BIND, f"bind {path}", strs=(path.encode(), path.encode()))


class Made:
    """Stands for `template.make`: counts, and gives descriptors of nothing."""

    def __init__(self):
        self.count = 0

    def __call__(self, ops):
        self.count += 1
        return Template(ops, os.open("/dev/null", os.O_RDONLY), template.prints(ops))


@pytest.fixture
def making(monkeypatch):
    made = Made()
    monkeypatch.setattr(template, "make", made)
    return made


def test_a_template_is_made_once(making):
    kept, ops = Templates(), (bind("/usr"),)
    assert kept.get(ops) is kept.get(ops)
    assert making.count == 1


def test_equal_ops_of_another_policy_have_the_same_template(making):
    kept = Templates()
    assert kept.get((bind("/usr"),)) is kept.get((bind("/usr"),))
    assert making.count == 1


def test_other_ops_have_another_template(making):
    kept = Templates()
    assert kept.get((bind("/usr"),)) is not kept.get((bind("/bin"),))
    assert making.count == 2


def test_only_the_last_few_are_kept(making):
    kept = Templates()
    every = [(bind(f"/{n}"),) for n in range(template.KEPT + 2)]
    for ops in every:
        kept.get(ops)
    assert len(kept.kept) == template.KEPT
    kept.get(every[-1])
    assert making.count == len(every)
    kept.get(every[0])
    assert making.count == len(every) + 1


def test_a_template_that_nobody_holds_is_closed(making):
    kept = Templates()
    fd = kept.get((bind("/usr"),)).fd
    os.fstat(fd)
    kept.kept.clear()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_template_of_another_file_is_made_anew(making, tmp_path, monkeypatch):
    monkeypatch.setattr(template, "LOOK_SECONDS", 0.0)
    path = tmp_path / "lib"
    path.mkdir()
    kept, ops = Templates(), (bind(str(path)),)
    first = kept.get(ops)
    assert kept.get(ops) is first
    path.rename(tmp_path / "old")
    path.mkdir()
    assert kept.get(ops) is not first
    path.rmdir()
    assert kept.get(ops) is not first
    assert making.count == 3


def test_the_host_is_not_looked_at_for_every_start(making, tmp_path, monkeypatch):
    monkeypatch.setattr(template, "LOOK_SECONDS", 3600.0)
    path = tmp_path / "lib"
    path.mkdir()
    kept, ops = Templates(), (bind(str(path)),)
    first = kept.get(ops)
    path.rmdir()
    assert kept.get(ops) is first


def test_a_fork_has_a_lock_of_its_own():
    lock = start.SHARED.lock
    start.after_fork()
    assert start.SHARED.lock is not lock
