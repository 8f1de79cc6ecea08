# SPDX-License-Identifier: Apache-2.0
"""Hostile callables: what they write in the place of their answer, and whom they signal.

Each ends in one of the library's own errors, in time, and the box serves the next call.
"""

import os
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress

import cloudpickle
import msgspec
import pytest

from isolate import (
    IsolateError,
    LimitExceeded,
    OutputLimitExceeded,
    RemoteError,
    ReplyError,
    Sandbox,
    TimeLimitExceeded,
)

pytestmark = pytest.mark.needs("userns", "pidns")
LIMITS = {"timeout": 30, "output": "1M"}


@pytest.fixture(scope="module", autouse=True)
def sent_as_they_are():
    """Else each call would import this module, and pytest with it, inside."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def box():
    """One that serves on afterwards."""
    with Sandbox(**LIMITS) as made:
        yield made
        assert made.call(sum, [1, 2, 3]) == 6
        assert made.run(["true"]).returncode == 0


def reply_fd():
    """Inside: the pipe that the answer goes to, which is the last one."""
    pipes = []
    for fd in range(3, 64):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                pipes.append(fd)
        except OSError:
            continue
    return pipes[-1]


def answering(data):
    def hostile():
        fd, left = reply_fd(), memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os._exit(0)

    return hostile


pack = msgspec.msgpack.encode
FORGED = {
    "nothing": b"",
    "a byte": b"\xc1",
    "text": b"Traceback (most recent call last):\n",
    "pickle": b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.",
    "half a list": b"\xdd\xff\xff\xff\xff",
    "a long string that ends early": b"\xdb\xff\xff\xff\xffabc",
    "nested": b"\x91" * 500_000,
    "nested replies": b"\x92\x00\x91" * 300_000,
    "a million lists": b"\xdd\x00\x40\x00\x00" + b"\x90" * (4 << 20),
    "neither value nor error": pack([0, ["z", 1]]),
    "a value of no tag": pack([0, ["v", [99, []]]]),
    "a class by number": pack([0, ["v", [20, [0, [1, 2]]]]]),
    "an enum by number": pack([0, ["v", [19, [0, "A"]]]]),
    "an error without text": pack([0, ["x", "builtins.ValueError", None, 5, 6]]),
    "an array of objects": pack([0, ["v", [15, ["|O8", [1], b"\x01" * 8]]]]),
    "an array of another size": pack([0, ["v", [15, ["<f8", [1 << 40], b"\x01" * 8]]]]),
    "members that collide": pack(
        [0, ["v", [2, [[5, hex(((1 << 61) - 1) * (i + 9))] for i in range(50_000)]]]]
    ),
    "two answers": pack([0, ["v", 1]]) * 2,
    "an answer and a tail": pack([0, ["v", 1]]) + b"\xc0",
}


def test_each_forged_answer_is_one_error(box):
    for what, data in FORGED.items():
        try:
            got = box.call(answering(data))
        except ReplyError:
            continue
        pytest.fail(f"{what} was taken: {got!r}")
    assert box.run(["test", "-e", "/tmp/pwned"]).returncode == 1


def test_an_answer_that_is_forged_well_is_only_an_answer(box):
    """What is inside may say what it likes: it is data."""
    assert box.call(answering(pack([0, ["v", "forged"]]))) == "forged"


NAMES = ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "eval", "int", "type", "nosuch"]


def test_no_name_in_an_answer_is_looked_up_but_those_of_exceptions(box):
    names = ["os.system", "isolate.Sandbox", *(f"builtins.{name}" for name in NAMES)]
    for name in names:
        data = pack([0, ["x", name, [1, [1]], "text", "trace"]])
        with pytest.raises(RemoteError) as caught:
            box.call(answering(data))
        assert caught.value.type_name == name


def test_an_endless_answer_is_cut_off_and_its_call_ends_in_time():
    def endless():
        fd = reply_fd()
        while True:
            os.write(fd, b"\xc0" * 65536)

    with Sandbox(timeout=1.5) as box, pytest.raises(TimeLimitExceeded):
        box.call(endless)


def test_an_answer_over_the_bound_is_refused(box):
    with pytest.raises(ReplyError, match="at most"):
        box.call(answering(b"\xc6" + struct.pack(">I", 65 << 20) + bytes(65 << 20)))


def test_a_closed_pipe_is_no_answer(box):
    def closes():
        os.closerange(3, 256)

    with pytest.raises(IsolateError, match="without an answer"):
        box.call(closes)


def test_an_orphan_that_holds_the_pipe_delays_nothing(box):
    def leaves_one():
        if os.fork() == 0:
            os.setsid()
            time.sleep(3600)
        return "answer"

    began = time.monotonic()
    assert box.call(leaves_one) == "answer"
    assert time.monotonic() - began < 20


def test_an_orphan_cannot_answer_for_a_later_call(box):
    def lies_in_wait():
        fd = reply_fd()
        if os.fork() == 0:
            os.setsid()
            time.sleep(0.2)
            for _ in range(100):
                time.sleep(0.005)
                os.write(fd, b"\xc0")
            os._exit(0)

    assert box.call(lies_in_wait) is None
    for i in range(10):
        assert box.call(abs, -i) == i


# ---- signals -----------------------------------------------------------------------------


def to(pid, number):
    def hostile():
        os.kill(os.getppid() if pid == "keeper" else pid, number)
        time.sleep(0.05)
        return "alive"

    return hostile


@pytest.mark.parametrize("whom", ["keeper", 1, -1, 0])
def test_signals_hurt_at_most_the_call(box, whom):
    for number in (signal.SIGTERM, signal.SIGRTMIN, signal.SIGINT, signal.SIGKILL):
        try:
            told = box.call(to(whom, number))
        except (IsolateError, PermissionError, ProcessLookupError):
            told = "refused"
        assert told in ("alive", "refused")


def test_a_stopped_keeper_ends_with_its_call_s_time():
    def stops():
        os.kill(os.getppid(), signal.SIGSTOP)
        time.sleep(3600)

    began = time.monotonic()
    with Sandbox(timeout=1) as box:
        with pytest.raises(LimitExceeded):
            box.call(stops)
        assert box.call(len, "abc") == 3
    assert time.monotonic() - began < 60


def test_who_stops_everything_does_not_hold_up_a_start_for_longer_than_its_time():
    script = (
        "import os, signal\n"
        "print('at work', flush=True)\n"
        "while True:\n"
        "  for name in os.listdir('/proc'):\n"
        "    if name.isdigit() and int(name) != os.getpid():\n"
        "      try: os.kill(int(name), signal.SIGSTOP)\n"
        "      except OSError: pass\n"
    )
    with Sandbox() as box, box.popen([sys.executable, "-Ic", script], stdout=-1) as hostile:
        assert hostile.stdout.readline() == b"at work\n"
        began = time.monotonic()
        for _ in range(3):
            with suppress(IsolateError):
                box.run(["true"], timeout=0.5)
        assert time.monotonic() - began < 45  # a start alone may take 60 s
        box.kill()


# ---- floods ------------------------------------------------------------------------------


def test_a_hundred_processes_that_write_are_cut_off_together():
    def flood():
        for _ in range(100):
            if os.fork() == 0:
                while True:
                    os.write(1, b"x" * 65536)
        time.sleep(3600)

    with open(os.devnull, "w") as null, Sandbox(timeout=60, output="2M") as box:
        stdout, sys.stdout = sys.stdout, null
        try:
            with pytest.raises(OutputLimitExceeded):
                box.call(flood)
        finally:
            sys.stdout = stdout


def test_calls_that_end_at_once_by_the_hundred_are_all_told(box):
    def ends():
        os._exit(7)

    for _ in range(50):
        with pytest.raises(ReplyError, match=r"Exited\(code=7\)"):
            box.call(ends)


def test_hostile_and_honest_calls_side_by_side(box):
    wrong = []

    def honest(i):
        for n in range(5):
            if box.call(pow, i, n) != i**n:
                wrong.append(i)

    threads = [threading.Thread(target=honest, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for data in (b"", b"\xc1", b"\x91" * 1000):
        with pytest.raises(ReplyError):
            box.call(answering(data))
    for thread in threads:
        thread.join()
    assert not wrong


def test_descriptors_sent_to_nobody_are_no_burden(box):
    def sends():
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        left.setblocking(False)
        sent = 0
        try:
            for _ in range(1000):
                socket.send_fds(left, [b"x"], [0] * 200)
                sent += 200
        except OSError:
            return sent
        return sent

    assert box.call(sends) >= 0
    assert len(os.listdir("/proc/self/fd")) < 200


def test_a_payload_that_is_mapped_and_cut_hurts_only_itself(box):
    def cuts():
        import mmap

        fd = os.memfd_create("mine")
        os.ftruncate(fd, 1 << 20)
        view = mmap.mmap(fd, 1 << 20)
        os.ftruncate(fd, 0)
        return view[0]  # SIGBUS

    with pytest.raises(ReplyError, match="SIGBUS"):
        box.call(cuts)
