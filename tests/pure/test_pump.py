"""The loop over a program's end, its streams and its limits, with pipes of the test."""

import errno
import os
import threading
import time
from contextlib import suppress

import pytest

from isolate import LimitHit, SupervisorError, TimedOut, Violated
from isolate.plan.model import Limits
from isolate.supervise.cgroupfs import Counters
from isolate.supervise.process import End
from isolate.supervise.pump import Pump, Sink

DONE = End(0)
KILLED = End(9)


class Fake:
    """A process that ends when it is told to; readable then."""

    pid = 42
    taken = True

    def __init__(self):
        self.read_fd, self.write_fd = os.pipe()
        self.how = None

    def fileno(self):
        return self.read_fd

    def ends(self, end=DONE):
        if self.how is None:
            self.how = end
            os.write(self.write_fd, b"x")

    def poll(self):
        return self.how

    def kill(self):
        self.ends(KILLED)

    def close(self):
        os.close(self.read_fd)
        os.close(self.write_fd)


@pytest.fixture
def fake():
    made = Fake()
    yield made
    made.close()


class Streams:
    """Pipes that a program would hold the other ends of."""

    def __init__(self):
        self.open = []

    def pipe(self):
        fds = os.pipe()
        self.open += fds
        return fds

    def drop(self, fd):
        self.open.remove(fd)
        os.close(fd)

    def close(self):
        for fd in self.open:
            os.close(fd)


@pytest.fixture
def streams():
    made = Streams()
    yield made
    made.close()


def pump_of(fake, limits=None, sinks=(), counters=None):
    kills = []

    def kill():
        kills.append(time.monotonic())
        fake.ends(KILLED)

    made = Pump(fake, limits or Limits(), kill, counters or Counters, list(sinks))
    return made, kills


def later(what, *args):
    timer = threading.Timer(0.05, what, args)
    timer.start()
    return timer


# -- the end


def test_the_end_is_the_program_s(fake):
    pump, kills = pump_of(fake)
    later(fake.ends, End(7 << 8))
    assert pump.run() == End(7 << 8)
    assert kills == []
    assert pump.verdict is None


def test_a_stream_that_stays_open_doesn_t_hold_the_end_up(fake, streams):
    read_fd, _ = streams.pipe()
    pump, _ = pump_of(fake, sinks=[Sink(read_fd, keep=True)])
    later(fake.ends)
    assert pump.run() == DONE


def test_a_stream_that_ends_first_doesn_t_end_the_run(fake, streams):
    read_fd, write_fd = streams.pipe()
    sink = Sink(read_fd, keep=True)
    pump, _ = pump_of(fake, sinks=[sink])
    os.write(write_fd, b"all")
    streams.drop(write_fd)
    later(fake.ends)
    assert pump.run() == DONE
    assert sink.fd == -1
    assert sink.data == b"all"


def test_a_program_that_has_ended_already_is_not_waited_for(fake):
    fake.ends()
    assert pump_of(fake)[0].run() == DONE


# -- output


def test_what_is_left_in_a_stream_is_drained(fake, streams):
    read_fd, write_fd = streams.pipe()
    sink = Sink(read_fd, keep=True)
    pump, _ = pump_of(fake, sinks=[sink])
    fake.ends()
    pump.run()
    os.write(write_fd, b"late")
    pump.drain()
    assert sink.data == b"late"
    assert pump.written == 4


def test_an_orphan_that_goes_on_writing_is_not_drained_for_ever(fake, streams):
    read_fd, write_fd = streams.pipe()
    os.set_blocking(read_fd, False)
    pump, _ = pump_of(fake, sinks=[Sink(read_fd, keep=False)])
    stop = threading.Event()

    def orphan():
        while not stop.is_set():
            try:
                os.write(write_fd, b"x" * 4096)
            except BrokenPipeError:
                return

    thread = threading.Thread(target=orphan)
    thread.start()
    try:
        pump.drain()
    finally:
        stop.set()
        streams.drop(read_fd)
        thread.join()


def test_output_beyond_its_limit_is_cut_and_the_program_killed(fake, streams):
    read_fd, write_fd = streams.pipe()
    sink = Sink(read_fd, keep=True)
    pump, kills = pump_of(fake, Limits(output=10), [sink])
    os.write(write_fd, b"0123456789ABCDEF")
    assert pump.run() == KILLED
    assert kills
    assert pump.verdict == LimitHit("output", 16, 10)
    assert sink.data == b"0123456789"
    assert pump.written == 10


def test_output_up_to_its_limit_is_no_hit(fake, streams):
    read_fd, write_fd = streams.pipe()
    pump, kills = pump_of(fake, Limits(output=10), [Sink(read_fd, keep=True)])
    os.write(write_fd, b"0123456789")
    later(fake.ends)
    assert pump.run() == DONE
    assert (kills, pump.verdict) == ([], None)


def test_the_limit_is_of_all_streams_together(fake, streams):
    ends = [streams.pipe() for _ in range(2)]
    pump, _ = pump_of(fake, Limits(output=10), [Sink(each, keep=True) for each, _ in ends])
    for _, write_fd in ends:
        os.write(write_fd, b"x" * 6)
    pump.run()
    assert pump.verdict == LimitHit("output", 12, 10)
    assert sum(len(sink.data) for sink in pump.sinks) == 10


def test_a_stream_of_ours_doesn_t_count(fake, streams):
    """A call's reply has a ceiling of its own."""
    read_fd, write_fd = streams.pipe()
    sink = Sink(read_fd, keep=True, limit=8, counted=False)
    pump, kills = pump_of(fake, Limits(output=1), [sink])
    os.write(write_fd, b"x" * 100)
    later(fake.ends)
    assert pump.run() == DONE
    assert (pump.written, kills) == (0, [])
    assert sink.kept == 100


def test_no_more_than_the_limit_of_a_sink_is_kept_by_chunks():
    sink = Sink(-1, keep=True, limit=8)
    for _ in range(5):
        sink.take(b"12345")
    assert sink.data == b"1234512345"  # the chunk that passes it is the last
    assert sink.kept == 25


def test_a_sink_that_keeps_nothing_and_passes_nothing_on_drops_it():
    sink = Sink(-1, keep=False)
    sink.take(b"x")
    assert (sink.data, sink.kept, bytes(sink.pending)) == (b"", 0, b"")


# -- passing on


def test_what_is_passed_on_arrives_in_order(fake, streams):
    read_fd, write_fd = streams.pipe()
    out, to = streams.pipe()
    pump, _ = pump_of(fake, sinks=[Sink(read_fd, keep=False, pass_to=to)])
    data = os.urandom(20000)
    os.write(write_fd, data)
    later(fake.ends)
    pump.run()
    pump.drain()
    assert os.read(out, 65536) == data


def test_a_reader_that_is_gone_doesn_t_stop_the_program(fake, streams):
    read_fd, write_fd = streams.pipe()
    out, to = streams.pipe()
    sink = Sink(read_fd, keep=False, pass_to=to)
    pump, kills = pump_of(fake, sinks=[sink])
    streams.drop(out)
    os.write(write_fd, b"nobody hears this")
    later(fake.ends)
    assert pump.run() == DONE
    pump.drain()
    assert sink.pass_to == -1
    assert kills == []


def test_a_reader_that_stands_still_stops_neither_the_end_nor_us(fake, streams):
    read_fd, write_fd = streams.pipe()
    _, to = streams.pipe()
    os.set_blocking(to, False)
    with suppress(BlockingIOError):
        while os.write(to, b"x" * 65536):
            continue
    os.set_blocking(to, True)
    sink = Sink(read_fd, keep=False, pass_to=to)
    pump, _ = pump_of(fake, sinks=[sink])
    os.write(write_fd, b"waits")
    later(fake.ends)
    assert pump.run() == DONE
    asked = iter([False, True, True, True])
    pump.drain(lambda: next(asked))
    assert bytes(sink.pending) == b"waits"


def test_passing_on_writes_no_more_than_a_pipe_takes_at_once(streams):
    out, to = streams.pipe()
    sink = Sink(-1, keep=False, pass_to=to)
    sink.take(b"x" * 10000)
    sink.pass_on()
    assert len(os.read(out, 65536)) == 4096
    assert len(sink.pending) == 10000 - 4096


# -- input


def test_input_is_fed_whole_and_then_ends(fake, streams):
    read_fd, write_fd = streams.pipe()
    data = os.urandom(300_000)
    pump, _ = pump_of(fake)
    streams.open.remove(write_fd)
    pump.stdin_fd, pump.stdin = write_fd, memoryview(data)
    got = []

    def reader():
        while chunk := os.read(read_fd, 65536):
            got.append(chunk)
        fake.ends()

    thread = threading.Thread(target=reader)
    thread.start()
    assert pump.run() == DONE
    thread.join()
    assert b"".join(got) == data
    assert pump.stdin_fd == -1


def test_a_program_that_reads_no_input_is_not_waited_for(fake, streams):
    read_fd, write_fd = streams.pipe()
    pump, _ = pump_of(fake)
    streams.open.remove(write_fd)
    pump.stdin_fd, pump.stdin = write_fd, memoryview(bytes(300_000))
    streams.drop(read_fd)  # it has closed its stdin
    later(fake.ends)
    assert pump.run() == DONE
    assert pump.stdin_fd == -1


def test_input_that_is_left_is_closed_at_the_end(fake, streams):
    _, write_fd = streams.pipe()
    streams.open.remove(write_fd)
    pump, _ = pump_of(fake)
    pump.stdin_fd, pump.stdin = write_fd, memoryview(bytes(1 << 20))
    fake.ends()
    pump.run()
    pump.close()
    pump.close()
    with pytest.raises(OSError):
        os.fstat(write_fd)


# -- limits


def test_the_wall_limit_kills_and_is_the_verdict(fake):
    pump, kills = pump_of(fake, Limits(wall=0.05))
    assert pump.run() == KILLED
    assert pump.verdict == TimedOut(0.05)
    assert kills


def test_the_account_of_processor_time_kills(fake):
    used = iter([1.0, 1.2, 1.4, 1.6] + [9.0] * 1000)
    pump, kills = pump_of(fake, Limits(cpu_time=0.5), counters=lambda: Counters(cpu=next(used)))
    assert pump.run() == KILLED
    assert kills
    hit = pump.verdict
    assert (hit.limit, hit.ceiling) == ("cpu_time", 0.5)
    assert hit.used == pytest.approx(0.6)  # what came before the start is not its own


def test_time_that_nobody_counts_kills_nobody(fake):
    pump, kills = pump_of(fake, Limits(cpu_time=0.01), counters=Counters)
    later(fake.ends)
    assert pump.run() == DONE
    assert kills == []


def test_an_oom_kill_during_the_run_is_a_memory_hit(fake):
    before, after = Counters(oom_kills=2), Counters(oom_kills=3, memory_peak=64 << 20)
    seen = iter([before, before, after])
    pump, kills = pump_of(fake, Limits(memory=64 << 20), counters=lambda: next(seen, after))
    assert pump.run() == KILLED
    assert pump.verdict == LimitHit("memory", 64 << 20, 64 << 20)
    assert kills


def test_an_oom_kill_before_the_run_is_not_its_own(fake):
    pump, kills = pump_of(fake, Limits(memory=1 << 20), counters=lambda: Counters(oom_kills=2))
    later(fake.ends)
    assert pump.run() == DONE
    assert kills == []


def test_counters_that_were_read_before_are_the_base(fake):
    pump, _ = pump_of(fake, Limits(memory=1 << 20), counters=lambda: Counters(oom_kills=2))
    pump.base = Counters(oom_kills=1)
    assert pump.run() == KILLED


def test_the_first_verdict_stays(fake):
    pump, kills = pump_of(fake)
    pump.stop(TimedOut(1.0))
    pump.stop(LimitHit("output", 2, 1))
    assert pump.verdict == TimedOut(1.0)
    assert len(kills) == 2  # who was told once may have to be told twice


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        (Limits(), 60.0),
        (Limits(wall=5.0), 5.0),
        (Limits(memory=1), 0.1),
        (Limits(wall=0.05, memory=1), 0.05),
        (Limits(wall=0.0), 0.001),
    ],
)
def test_nobody_sleeps_past_a_limit(fake, limits, most):
    pump, _ = pump_of(fake, limits)
    assert 0.001 <= pump.patience() <= most


def test_who_was_killed_is_looked_at_again(fake):
    pump, _ = pump_of(fake)
    pump.verdict = TimedOut(1.0)
    assert pump.patience() <= 1.0


# -- what goes wrong


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM])
def test_a_watch_that_fails_kills_and_says_so(fake, number):
    def broken():
        raise OSError(number, os.strerror(number))

    pump, kills = pump_of(fake, counters=broken)
    with pytest.raises(SupervisorError, match="watch process 42") as caught:
        pump.run()
    assert caught.value.errno == number
    assert isinstance(caught.value.__cause__, OSError)
    assert kills


def test_an_interrupt_kills_and_goes_on_up(fake):
    def interrupted():
        raise KeyboardInterrupt

    pump, kills = pump_of(fake, counters=interrupted)
    with pytest.raises(KeyboardInterrupt):
        pump.run()
    assert kills


def test_a_last_read_that_fails_is_an_error_of_ours(fake, streams):
    read_fd, _ = streams.pipe()
    pump, _ = pump_of(fake, sinks=[Sink(read_fd, keep=True)])
    streams.drop(read_fd)
    with pytest.raises(SupervisorError, match="what the program has written") as caught:
        pump.drain()
    assert caught.value.errno == errno.EBADF


# -- refused calls


class Log:
    def __init__(self):
        self.tell = None

    def when_killed(self, callback):
        self.tell = callback


class Refused:
    syscall, args = "mount", (1, 2)


def test_a_refused_call_that_is_lethal_is_the_verdict(fake):
    pump, kills = pump_of(fake)
    log = Log()
    pump.obey(log)
    log.tell(Refused, 5, False)
    assert pump.verdict == Violated("mount", (1, 2), "seccomp")
    assert kills
    assert fake.poll() == KILLED


def test_without_a_log_nothing_is_obeyed(fake):
    pump, kills = pump_of(fake)
    pump.obey(None)
    assert kills == []
