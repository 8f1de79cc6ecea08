# SPDX-License-Identifier: Apache-2.0
import asyncio
import dataclasses
import os
import pickle
import sys
import threading
import time
from pathlib import Path

import pytest

from isolate import (
    IsolateError,
    LimitExceeded,
    MemoryLimitExceeded,
    RemoteError,
    ReplyError,
    Sandbox,
    TimeLimitExceeded,
)


@pytest.fixture
def box():
    with Sandbox() as live:
        yield live


@dataclasses.dataclass
class Result:
    total: int


def reply_pipes():
    """What hostile code would look for: every pipe that it can write to."""
    return [fd for fd in range(3, 64) if is_pipe(fd)]


def is_pipe(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe")
    except OSError:
        return False


def test_a_function_gives_its_value(box):
    assert box.call(sum, [1, 2, 3]) == 6
    assert box.call(lambda *, a: {a: (1, b"x")}, a="k") == {"k": (1, b"x")}


def test_a_closure_takes_its_values_along(box):
    factor = 7
    assert box.call(lambda x: x * factor, 6) == 42


def test_each_call_is_a_process_of_its_own(box):
    assert box.call(os.getpid) != box.call(os.getpid)

    def remember():
        import builtins

        old = getattr(builtins, "isolate_mark", None)
        builtins.isolate_mark = 1
        return old

    assert box.call(remember) is None
    assert box.call(remember) is None


def test_calls_share_the_files_of_the_box(box):
    def write():
        with open("/tmp/shared", "w") as file:
            file.write("x")

    def read():
        with open("/tmp/shared") as file:
            return file.read()

    box.call(write)
    assert box.call(read) == "x"


def test_built_in_exceptions_come_as_themselves(box):
    with pytest.raises(ZeroDivisionError) as caught:
        box.call(lambda: 1 / 0)
    assert "ZeroDivisionError" in str(caught.value.__cause__)
    with pytest.raises(FileNotFoundError):
        box.call(open, "/no/such")


def test_other_exceptions_are_remote_errors(box):
    class Odd(Exception):
        pass

    def fail():
        raise Odd("why")

    with pytest.raises(RemoteError, match="Odd: why"):
        box.call(fail)
    with pytest.raises(RemoteError, match="SystemExit"):
        box.call(sys.exit, 3)


def test_generators_and_coroutines_are_refused_clearly(box):
    with pytest.raises(TypeError, match="generator"):
        box.call(lambda: (i for i in [1]))

    async def later():
        return 1

    with pytest.raises(TypeError, match="coroutine"):
        box.call(later)
    assert box.call(lambda: asyncio.run(later())) == 1


def test_an_object_without_a_form_is_refused_by_name(box):
    with pytest.raises(TypeError, match=r"result\[1\]\[0\] is a .*Thread"):
        box.call(lambda: [threading.Thread()])


def test_what_is_printed_goes_to_the_caller(box, capfd):
    box.call(print, "hello")
    assert capfd.readouterr().out == "hello\n"


def test_an_argument_that_cannot_go_is_named(box):
    with pytest.raises(IsolateError, match="can't be sent"):
        box.call(len, threading.Lock())


def test_the_callers_memory_is_not_inside(box):
    import isolate

    isolate.canary_secret = "".join(["canary-", "in-the-heap"])

    def look():
        import re

        pattern = re.compile(b"canary-[i]n-the-heap")  # doesn't match itself
        found = 0
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as mem:
            for line in maps:
                if " rw-p " not in line or "[v" in line:
                    continue
                start, end = (int(x, 16) for x in line.split()[0].split("-"))
                mem.seek(start)
                try:
                    found += len(pattern.findall(mem.read(end - start)))
                except OSError:
                    continue
        return found

    assert look() > 0  # the search finds it where it is
    assert box.call(look) == 0
    del isolate.canary_secret


def test_the_server_and_init_are_out_of_reach(box):
    def attack():
        import os
        import signal

        tried = {}
        for pid in (1, os.getppid()):
            for name in ("mem", "environ", "fd", "maps"):
                path = f"/proc/{pid}/{name}"
                try:
                    if name == "fd":
                        os.listdir(path)
                    else:
                        with open(path, "rb") as file:
                            file.read(1)
                    tried[path] = "open"
                except OSError as error:
                    tried[path] = type(error).__name__
        for number in (signal.SIGKILL, signal.SIGTERM):
            try:
                os.kill(1, number)
            except PermissionError:  # as root: another uid
                continue
        return tried

    tried = box.call(attack)
    assert set(tried.values()) == {"PermissionError"}
    assert box.call(sum, [1]) == 1


def test_a_hostile_reply_is_a_reply_error(box):
    for data in (pickle.dumps(len), b"", b"\xdd\xff\xff\xff\xff", b"\x93\x01\x02"):

        def attack(reply=data):
            for fd in reply_pipes():
                try:
                    os.write(fd, reply)
                except OSError:
                    continue
            os._exit(0)

        with pytest.raises(ReplyError):
            box.call(attack)
    assert box.call(sum, [1]) == 1


def test_two_replies_are_a_reply_error(box):
    def attack():
        for fd in reply_pipes():
            try:
                os.write(fd, b"\x92\x00\x92\xa1v\x01")
            except OSError:
                continue
        return 1

    with pytest.raises(ReplyError):
        box.call(attack)


def test_a_flood_of_a_reply_is_bounded():
    def attack():
        block = b"x" * (1 << 20)
        fds = reply_pipes()
        for _ in range(200):
            for fd in fds:
                try:
                    os.write(fd, block)
                except OSError:
                    continue
        os._exit(0)

    with pytest.raises(ReplyError):
        Sandbox(timeout=60).call(attack)


def test_an_orphan_that_holds_the_pipes_is_not_waited_for(box):
    def attack():
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
            os._exit(0)
        return "done"

    began = time.monotonic()
    assert box.call(attack) == "done"
    assert time.monotonic() - began < 30


def test_a_call_that_dies_says_how(box):
    with pytest.raises(ReplyError, match="SIGKILL"):
        box.call(lambda: os.kill(os.getpid(), 9))


def test_a_killed_server_is_started_again():
    with Sandbox() as live:
        with pytest.raises((ReplyError, IsolateError)):
            live.call(lambda: (os.kill(os.getppid(), 9), time.sleep(5)))
        assert live.call(sum, [2]) == 2


def test_a_call_in_the_queue_of_a_dying_server_is_not_lost():
    """At most once: what the server had taken is not repeated, what it had not is."""
    with Sandbox() as live:
        for number in range(15):
            with pytest.raises(IsolateError):
                live.call(lambda: (os.kill(os.getppid(), 9), time.sleep(5)))
            assert live.call(sum, [number]) == number


def test_a_call_that_never_ends_is_timed_out():
    with Sandbox(timeout=0.5) as live:
        with pytest.raises(TimeLimitExceeded) as caught:
            live.call(time.sleep, 60)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.ceiling == 0.5
        assert live.call(sum, [3]) == 3


@pytest.mark.needs("cgroup1")
def test_too_much_memory_is_a_memory_error():
    with Sandbox(pid=True, mem="64M") as live:
        with pytest.raises(MemoryLimitExceeded) as caught:
            live.call(lambda: len(b"x" * (200 << 20)))
        assert isinstance(caught.value, MemoryError)
        assert caught.value.ceiling == 64 << 20
        assert live.call(sum, [4]) == 4


def test_a_fork_bomb_is_held():
    def bomb():
        count = 0
        for _ in range(200):
            try:
                if os.fork() == 0:
                    time.sleep(20)
                    os._exit(0)
            except OSError:
                break
            count += 1
        return count

    with Sandbox(pids=30) as live:
        try:
            limit = None if live.call(bomb) < 30 else "passed"
        except LimitExceeded as error:
            limit = error.limit
        assert limit in (None, "pids")


def test_many_threads_call_at_once(box):
    results = []

    def work(n):
        results.append(box.call(lambda: n * 2))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [n * 2 for n in range(20)]


@pytest.mark.needs("numpy")
def test_numpy_computes_without_a_storm_of_threads():
    def work():
        import numpy

        a = numpy.ones((200, 200))
        return (a @ a).sum(), len(os.listdir("/proc/self/task"))

    weak = set() if os.geteuid() == 0 else {"cpu"}
    with Sandbox(cpu=1, weaken=weak) as live:
        total, threads = live.call(work)
    assert total == 200**3
    assert threads == 1


def test_a_one_shot_call_has_a_fresh_box():
    Sandbox().call(lambda: Path("/tmp/mine").write_text("x"))
    assert not Sandbox().call(os.path.exists, "/tmp/mine")
