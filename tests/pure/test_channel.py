"""What the caller takes from isolate-init: whole records of known kinds, or it counts as gone."""

import os
import select
import signal
import socket
import struct
import subprocess
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import native
from isolate.abi.ops import STEP_READY, Record, Request
from isolate.supervise import channel
from isolate.supervise.channel import RECORD, InitGone, Status, ask, blob_fd, socket_pair
from isolate.supervise.process import End, Process, pid_of

FAIL = struct.Struct("<IiQ")


def a_record(kind=Record.SETUP, **more):
    values = {"pid": 0, "step": 0, "error": 0, "status": 0, "rss": 0, "user": 0, "system": 0}
    values.update(more)
    return RECORD.pack(kind, *values.values(), 5, *range(12))


@pytest.fixture
def pair():
    """(our Status, init's end of the socket)."""
    ours, theirs = socket_pair()
    status = Status(ours.detach())
    yield status, theirs
    status.close()
    theirs.close()


def test_a_record_is_what_c_says_that_it_is():
    assert RECORD.size == native.RECORD_SIZE
    assert native.ffi.sizeof("struct iso_fail") == FAIL.size


def test_a_record_comes_as_it_was_sent(pair):
    status, theirs = pair
    theirs.send(a_record(Record.EXITED, pid=7, status=256, rss=9, user=3, system=4))
    record, fd = status.receive(20)
    assert fd is None
    assert (record.type, record.pid, record.status) == (Record.EXITED, 7, 256)
    assert (record.max_rss_kib, record.user_us, record.system_us, record.at_ns) == (9, 3, 4, 5)
    assert record.phase_ns == tuple(range(12))


def test_a_descriptor_comes_close_on_exec(pair):
    status, theirs = pair
    read_fd, write_fd = os.pipe()
    socket.send_fds(theirs, [a_record(Record.SPAWNED)], [write_fd])
    os.close(write_fd)
    record, fd = status.receive(20)
    assert record.type is Record.SPAWNED
    assert not os.get_inheritable(fd)
    os.write(fd, b"x")
    os.close(fd)
    assert os.read(read_fd, 2) == b"x"
    os.close(read_fd)


def test_an_end_without_a_record_means_gone(pair):
    status, theirs = pair
    theirs.close()
    with pytest.raises(InitGone, match="before it answered"):
        status.receive(20)


@pytest.mark.parametrize("size", [1, 15, RECORD.size - 1])
def test_a_part_of_a_record_means_gone(pair, size):
    status, theirs = pair
    theirs.send(a_record()[:size])
    with pytest.raises(InitGone):
        status.receive(20)


@pytest.mark.parametrize("kind", [0, 6, 255, 0xFFFFFFFF])
def test_a_record_of_no_known_kind_means_gone_and_keeps_nothing(pair, kind):
    status, theirs = pair
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(theirs, [RECORD.pack(kind, *[0] * 20)], [theirs.fileno()])
    with pytest.raises(InitGone, match="no known kind"):
        status.receive(20)
    assert len(os.listdir("/proc/self/fd")) == before


@settings(max_examples=300, deadline=None)
@given(data=st.binary(min_size=1, max_size=300))
def test_any_bytes_are_a_record_or_mean_gone(data):
    ours, theirs = socket_pair()
    status = Status(ours.detach())
    try:
        theirs.send(data)
        try:
            record, fd = status.receive(20)
        except InitGone:
            return
        assert record.type in set(Record)
        assert fd is None
    finally:
        status.close()
        theirs.close()


def test_nobody_is_waited_for_longer_than_asked(pair):
    status, _ = pair
    with pytest.raises(TimeoutError, match=r"within 0\.02 s"):
        status.receive(0.02)


def test_a_wait_goes_on_after_a_signal(pair):
    """PEP 475: the handler runs, and the record is taken all the same."""
    status, theirs = pair
    seen = []
    old = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    timer = threading.Timer(0.2, lambda: theirs.send(a_record()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        timer.start()
        record, _ = status.receive(20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        timer.join()
        signal.signal(signal.SIGALRM, old)
    assert record.type is Record.SETUP
    assert seen


def test_a_handler_that_raises_ends_the_wait(pair):
    status, _ = pair

    def handler(*_):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            status.receive(20)
    finally:
        signal.signal(signal.SIGALRM, old)


def test_closing_twice_closes_once(pair):
    status, _ = pair
    fd = status.fileno()
    status.close()
    other = os.open("/dev/null", os.O_RDONLY)  # takes the lowest number: perhaps the same
    status.close()
    os.fstat(other)
    os.close(other)
    assert status.fileno() == -1
    with pytest.raises(OSError):
        os.fstat(fd) if fd != other else os.fstat(other)


# -- requests


def test_a_request_brings_its_status_socket_its_plan_and_its_slots():
    ours, theirs = socket_pair()
    read_fd, write_fd = os.pipe()
    status = ask(ours, Request.SPAWN, [write_fd], flags=5, serial=9, blob=b"a plan")
    data, fds, _, _ = socket.recv_fds(theirs, 64, 8)
    assert struct.unpack("<4I", data) == (Request.SPAWN, 5, 3, 9)
    assert len(fds) == 3
    assert os.pread(fds[1], 64, 0) == b"a plan"
    os.write(fds[2], b"slot")
    assert os.read(read_fd, 8) == b"slot"
    os.write(fds[0], a_record(Record.ENDED))
    assert status.receive(20)[0].type is Record.ENDED
    status.close()
    for fd in (*fds, read_fd, write_fd):
        os.close(fd)
    ours.close()
    theirs.close()


def test_a_request_to_nobody_means_gone():
    ours, theirs = socket_pair()
    theirs.close()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InitGone, match="the box has ended"):
        ask(ours, Request.END)
    assert len(os.listdir("/proc/self/fd")) == before
    ours.close()


def test_a_request_with_a_closed_slot_is_an_error_and_keeps_nothing():
    ours, theirs = socket_pair()
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError) as caught:
        ask(ours, Request.SPAWN, [500 + fd], blob=b"x")
    assert caught.value.errno == 9
    assert len(os.listdir("/proc/self/fd")) == before
    ours.close()
    theirs.close()


@pytest.mark.parametrize("size", [0, 1, 65536, 300_000])
def test_a_blob_s_memfd_holds_all_of_it(size):
    data = os.urandom(size)
    fd = blob_fd(data)
    try:
        assert os.fstat(fd).st_size == size
        assert os.pread(fd, size + 1, 0) == data
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


# -- the record pipe


def told(data, most=8):
    read_fd, write_fd = os.pipe()
    os.write(write_fd, data)
    os.close(write_fd)
    try:
        return native.told(read_fd, 20, most)
    finally:
        os.close(read_fd)


def test_a_record_pipe_tells_what_was_written():
    assert told(b"") == []
    assert told(FAIL.pack(STEP_READY, 0, 5)) == [(STEP_READY, 0, 5)]
    assert told(FAIL.pack(3, 2, 7) + FAIL.pack(4, 1, 8)) == [(3, 2, 7), (4, 1, 8)]


def test_a_record_pipe_that_stays_open_is_not_waited_for():
    read_fd, write_fd = os.pipe()
    os.write(write_fd, FAIL.pack(STEP_READY, 0, 5))
    with pytest.raises(TimeoutError):
        native.told(read_fd, 0.05)
    os.close(write_fd)
    assert native.told(read_fd, 0.05) == [(STEP_READY, 0, 5)]
    os.close(read_fd)


# -- a program, by its status socket and its pidfd


@pytest.fixture
def process():
    """A real child, and init's end of its status socket."""
    ours, theirs = socket_pair()
    child = subprocess.Popen(["/bin/sleep", "60"])
    made = Process(child.pid, os.pidfd_open(child.pid), Status(ours.detach()), 4)
    yield made, theirs, child
    made.close()
    theirs.close()
    child.kill()
    child.wait()


def test_a_program_has_not_ended_before_its_record(process):
    made, _, _ = process
    assert made.poll() is None
    assert made.wait(0.01) is None
    assert made.end is None


def test_a_program_s_end_is_its_record_s(process):
    made, theirs, _ = process
    theirs.send(a_record(Record.EXITED, status=3 << 8, rss=10, user=1_500_000, system=250_000))
    assert made.wait(20) == End(3 << 8, user=1.5, system=0.25, max_rss=10240)
    assert made.poll() is made.poll()  # told once, kept


@pytest.mark.parametrize("last", ["nothing", "another record"])
def test_an_end_that_is_told_by_nobody_is_a_lost_one(process, last):
    made, theirs, _ = process
    if last == "another record":
        theirs.send(a_record(Record.SETUP))
    theirs.close()
    assert made.wait(20) == End(int(signal.SIGKILL), lost=True)


def test_a_program_is_ready_for_poll_when_it_has_ended(process):
    made, theirs, _ = process
    poller = select.poll()
    poller.register(made.fileno(), select.POLLIN)
    assert poller.poll(0) == []
    theirs.send(a_record(Record.EXITED))
    assert poller.poll(20000)


def test_a_signal_goes_by_the_pidfd(process):
    made, _, child = process
    assert pid_of(made.pidfd) == child.pid
    made.send_signal(signal.SIGTERM)
    assert child.wait(20) == -signal.SIGTERM
    made.kill()  # it is gone: nothing happens
    made.close()
    made.kill()  # closed: nothing either
    made.close()
    assert made.pidfd == -1


def test_a_pidfd_of_a_reaped_process_has_no_pid():
    with subprocess.Popen(["/bin/true"]) as child:
        fd = os.pidfd_open(child.pid)
    try:
        assert pid_of(fd) == -1
    finally:
        os.close(fd)


def test_a_program_without_a_log_has_no_violations(process):
    assert process[0].violations == ()


def test_the_flags_of_a_request_are_those_of_the_contract():
    lib = native.lib
    assert channel.SPAWN_LAST == lib.ISO_SPAWN_LAST
    assert channel.SPAWN_CGROUP == lib.ISO_SPAWN_CGROUP
    assert channel.SPAWN_KEPT == lib.ISO_SPAWN_KEPT
    assert set(Record) == {
        lib.ISO_REC_SETUP, lib.ISO_REC_SPAWNED, lib.ISO_REC_EXITED, lib.ISO_REC_ENDED,
        lib.ISO_REC_REFUSED,
    }  # fmt: skip
