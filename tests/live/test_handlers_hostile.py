"""Handlers that misbehave, or are misused: every call is refused in time, or answered."""

import fcntl
import os
import pickle
import sys
import threading
import time

import pytest

import isolate
from isolate import (
    Answer,
    Errno,
    HostLacks,
    Killed,
    Policy,
    PolicyError,
    Rule,
    Sandbox,
    SeccompFilter,
)
from isolate.abi.signatures import pointer_free
from isolate.abi.syscalls import numbers

TABLE = numbers(os.uname().machine)
CALL = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    given = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_ulong(a & (1 << 64) - 1)
             for a in args]
    value = libc.syscall(ctypes.c_long(number), *given)
    return value, ctypes.get_errno()
"""
NR = TABLE["mkdirat"]
MKDIRAT = f"print(call({NR}, -100, b'/tmp/made', 0o755), os.path.exists('/tmp/made'))\n"
REFUSED = "(-1, 1) False\n"


def python(script, wanted, **short):
    argv = [sys.executable, "-c", CALL + script]
    box = Sandbox(seccomp=wanted, **short)
    return box.run(argv, capture_output=True, text=True, timeout=60)


def closed_fd():
    """A number that was an open file, and is none any more."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    os.close(write_fd)
    return read_fd


class Unprintable:
    """Its own __repr__ fails."""

    def __repr__(self):
        raise RuntimeError("no words")


def forged(**fields):
    """An answer that no constructor would make."""
    made = Answer.value(0)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


# -- nonsense


@pytest.mark.parametrize(
    "handler",
    [
        lambda _: Answer.fd(closed_fd()),
        lambda _: Answer.fd(0, at=(1 << 31) - 1),
        lambda _: Answer.fd(0, at=1 << 40),
        lambda _: Answer("value", 1 << 70),
        lambda _: Answer("value", "many"),
        lambda _: Answer("fd", None),
        lambda _: Answer("fd", 0, True),
        lambda _: forged(number=1 << 70),
        lambda _: forged(number="many"),
        lambda _: forged(kind="fd", number=1 << 40),
        lambda _: forged(kind="fd", number=closed_fd(), ours=True),
        lambda _: forged(kind="errno", number=1 << 20),
        lambda _: Unprintable(),
        lambda _: Answer,
        lambda _: [Answer.value(0)],
        lambda call: call,
        lambda call: call.read(-1, 8),
        lambda call: call.read(0, 8),
        lambda call: call.read(call.args[1], 1 << 40),
        lambda call: call.read(call.args[1], -8),
        lambda call: call.string(99),
        lambda call: call.nothing,
        lambda: Answer.value(0),
        lambda _: (_ for _ in ()).throw(KeyboardInterrupt),
        lambda _: threading.current_thread().join(),
    ],
)
def test_whatever_else_a_handler_does_refuses(handler):
    done = python(MKDIRAT, SeccompFilter.on("mkdirat", handler, timeout=20))
    assert done.stdout == REFUSED, done
    assert [each.handled for each in done.violations] == [True]


def test_a_handler_that_always_fails_does_not_use_up_the_threads():
    """Each mistake was a thread's end once; after sixteen there was nobody left to ask."""
    asked = []

    def handler(call):
        asked.append(1)
        if len(asked) <= 40:
            return Answer.fd(closed_fd())
        return Answer.value(7)

    script = f"print([call({NR}, -100, b'/tmp/m', 0)[0] for _ in range(42)])"
    done = python(script, SeccompFilter.on("mkdirat", handler, timeout=20))
    assert done.stdout == f"{[-1] * 40 + [7, 7]}\n"
    assert len(asked) == 42


def test_a_descriptor_that_the_box_has_no_room_for_is_refused():
    wanted = SeccompFilter.on("mkdirat", lambda _: Answer.fd(os.open("/dev/null", os.O_RDONLY)))
    before = len(os.listdir("/proc/self/fd"))
    script = f"print([call({NR}, -100, b'/tmp/m', 0) for _ in range(40)][-1])"
    done = python(script, wanted, rlimits={"nofile": 16})
    assert done.stdout == "(-1, 1)\n"
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_listener_itself_is_given_to_nobody():
    """By it a program would answer its own calls: a handler that gives every descriptor that the
    caller has, in turn, gives all but that one."""
    refused = []

    def handler(call):
        fd = call.args[2]
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            return Answer.value(9999)
        if "seccomp" in name:
            refused.append(fd)
        elif fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
            return Answer.value(9999)  # those the kernel gives to nobody
        return Answer.fd(os.dup(fd))

    script = f"""
for n in range(3, 64):
    fd, error = call({NR}, -100, b'/tmp/m', n)
    if fd < 0: print(error)
    elif fd != 9999:
        if 'seccomp' in os.readlink(f'/proc/self/fd/{{fd}}'): print('mine', fd)
        os.close(fd)
"""
    done = python(script, SeccompFilter.on("mkdirat", handler, timeout=20))
    assert refused
    assert done.stdout.splitlines() == ["1"] * len(refused), done


@pytest.mark.parametrize("number", [0, 1, 4095, 1 << 31, (1 << 63) - 1, -4096, -(1 << 63)])
def test_any_value_that_a_call_may_return_comes_back_whole(number):
    script = (
        "libc.syscall.restype = ctypes.c_long\n"
        f"print(libc.syscall(ctypes.c_long({NR}), -100, b'/tmp/m', 0))"
    )
    done = python(script, SeccompFilter.on("mkdirat", lambda _: Answer.value(number)))
    assert done.stdout == f"{number}\n", done


# -- going on


@pytest.mark.parametrize("name", ["arch_prctl", "mkdirat", "openat", "connect", "timer_delete"])
def test_what_has_a_pointer_or_may_have_one_never_goes_on(name):
    if name in TABLE:
        assert not pointer_free(name)


def test_a_handler_can_not_make_going_on_of_a_pretended_answer():
    def handler(_):
        return forged(kind="proceed")

    done = python(MKDIRAT, SeccompFilter.on("mkdirat", handler))
    assert done.stdout == REFUSED


def test_going_on_is_the_call_as_it_was_asked_and_no_other():
    """Registers can't change under it: 200 calls in 4 threads get what they asked for."""
    wanted = SeccompFilter.on("dup", lambda _: Answer.proceed(), timeout=20)
    script = f"""
bad = []
def work(fd):
    for _ in range(50):
        made, _ = call({TABLE["dup"]}, fd)
        if os.fstat(made).st_ino != os.fstat(fd).st_ino: bad.append(made)
        os.close(made)
fds = [os.open('/dev/null', 0), os.open('/proc', 0), os.open('/tmp', 0), os.open('/', 0)]
ts = [threading.Thread(target=work, args=(fd,)) for fd in fds]
[t.start() for t in ts]; [t.join() for t in ts]
print(bad)
"""
    done = python(script, wanted)
    assert done.stdout == "[]\n", done
    assert done.violations == ()


# -- many at once


def test_eight_threads_each_get_their_own_answers():
    """The answer is a function of the argument: one that went to another thread would show."""
    seen = []

    def handler(call):
        seen.append(call.args[2])
        if call.args[2] % 3 == 0:
            return Errno(call.args[2] % 100 + 1)
        return Answer.value(call.args[2] + 5)

    script = f"""
wrong = []
def work(n):
    for i in range(60):
        k = n * 1000 + i
        got = call({NR}, -100, b'/tmp/m', k)
        want = (-1, k % 100 + 1) if k % 3 == 0 else (k + 5, 0)
        if got != want: wrong.append((k, got, want))
ts = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
print(wrong)
"""
    done = python(script, SeccompFilter.on("mkdirat", handler, timeout=30))
    assert done.stdout == "[]\n", done
    assert len(seen) == 480
    assert sum(each.count for each in done.violations) == 160


def test_several_programs_of_a_box_ask_the_same_handler():
    pids = set()

    def handler(call):
        pids.add(call.pid)
        return Answer.value(call.args[2])

    with Sandbox(seccomp=SeccompFilter.on("mkdirat", handler, timeout=20)) as box:
        argv = [sys.executable, "-c", CALL + f"print(call({NR}, -100, b'/m', int(sys.argv[1]))[0])"]
        running = [box.popen([*argv, str(n)], stdout=-1) for n in range(6)]
        got = [each.communicate(timeout=60)[0] for each in running]
    assert got == [b"%d\n" % n for n in range(6)]
    assert len(pids) == 6


def test_a_handler_may_start_boxes_itself():
    inner = Sandbox()

    def handler(call):
        done = inner.run(["/bin/echo", "inner"], capture_output=True)
        return Answer.value(len(done.stdout))

    done = python(MKDIRAT, SeccompFilter.on("mkdirat", handler, timeout=50))
    assert done.stdout == "(6, 0) False\n", done


def test_two_handlers_of_different_calls_do_not_meet():
    both = SeccompFilter.on("mkdirat", lambda _: Answer.value(1)).narrow(
        SeccompFilter.on("unlinkat", lambda _: Answer.value(2))
    )
    script = f"print(call({NR}, -100, b'/m', 0)[0], call({TABLE['unlinkat']}, -100, b'/m', 0)[0])"
    assert python(script, both).stdout == "1 2\n"


# -- ends


def test_a_program_that_is_killed_while_its_handler_thinks_is_over():
    started, release = threading.Event(), threading.Event()

    def handler(_):
        started.set()
        release.wait(30)
        return Answer.value(0)

    with Sandbox(seccomp=SeccompFilter.on("mkdirat", handler, timeout=30)) as box:
        program = box.popen([sys.executable, "-c", CALL + MKDIRAT])
        assert started.wait(30)
        program.kill()
        assert program.wait(30) == -9
        release.set()
        done = box.run(["/bin/echo", "on"], capture_output=True, timeout=30)
        assert done.stdout == b"on\n"


def test_a_box_of_which_many_wait_for_handlers_ends_at_once():
    """Its threads hang in calls that nobody will answer; the end of the block ends them."""
    started, release = threading.Semaphore(0), threading.Event()

    def handler(_):
        started.release()
        release.wait(60)
        return Answer.value(0)

    script = f"""
def work(): call({NR}, -100, b'/tmp/m', 0)
ts = [threading.Thread(target=work) for _ in range(30)]
[t.start() for t in ts]; [t.join() for t in ts]
"""
    box = Sandbox(seccomp=SeccompFilter.on("mkdirat", handler, timeout=60)).open()
    began = time.monotonic()
    try:
        program = box.popen([sys.executable, "-c", CALL + script])
        for _ in range(4):
            assert started.acquire(timeout=30)
    finally:
        box.close()
        release.set()
    assert program.wait(30) == -9
    assert time.monotonic() - began < 50
    end = time.monotonic() + 20
    while any(t.name == "isolate-handler" for t in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_timeout_of_the_run_ends_a_program_that_waits_for_its_handler():
    release = threading.Event()
    wanted = SeccompFilter.on("mkdirat", lambda _: release.wait(60), timeout=60)
    box = Sandbox(seccomp=wanted, timeout=1)
    try:
        done = box.run([sys.executable, "-c", CALL + MKDIRAT], capture_output=True)
    finally:
        release.set()
    assert done.outcome == isolate.TimedOut(1.0)
    assert done.stdout == b""


# -- where handlers go


def plugin(call):
    """A function with a name, which pickle can find again."""
    return Answer.deny("EROFS")


def test_a_policy_with_a_named_handler_can_be_pickled_and_decides_as_before():
    wanted = SeccompFilter.on("mkdirat", plugin)
    copy = pickle.loads(pickle.dumps(wanted))
    assert copy == wanted
    assert hash(copy) == hash(wanted)
    assert python(MKDIRAT, copy).stdout == "(-1, 30) False\n"
    box = pickle.loads(pickle.dumps(Sandbox(seccomp=wanted)))
    done = box.run([sys.executable, "-c", CALL + MKDIRAT], capture_output=True, text=True)
    assert done.stdout == "(-1, 30) False\n"


def test_a_policy_with_a_nameless_handler_can_not_and_says_so():
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(SeccompFilter.on("mkdirat", lambda _: None))
    with pytest.raises(PolicyError, match="handler"):
        Policy(SeccompFilter.on("mkdirat", plugin)).dumps()


def test_blocks_within_blocks_ask_the_handler_of_the_outer_one():
    with SeccompFilter.on("mkdirat", lambda _: Answer.value(3)), Sandbox() as box:
        done = box.run([sys.executable, "-c", CALL + MKDIRAT], capture_output=True, text=True)
    assert done.stdout == "(3, 0) False\n"


NESTED = """
import sys
sys.path.insert(0, {where!r})
from isolate import Answer, HostLacks, Sandbox, SeccompFilter
try: Sandbox(seccomp=SeccompFilter.on("mkdirat", lambda _: Answer.value(0))).run(["/bin/true"])
except HostLacks as lack: print("lacks", lack.what)
"""


def test_a_box_in_a_box_has_no_handlers_and_says_so():
    """One listener a tree (EBUSY): the inner policy is refused, and never runs without it."""
    where = os.path.dirname(os.path.dirname(isolate.__file__))
    argv = [sys.executable, "-c", NESTED.format(where=where)]
    done = Sandbox(read=[where]).run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("lacks"), done


def test_a_handler_sees_only_what_its_rule_selects_and_the_rest_is_the_boxs():
    rule = Rule("kill", conditions=())
    done = python("os.kill(os.getpid(), 9)", SeccompFilter.on(rule, lambda _: Answer.proceed()))
    assert done.outcome == Killed(9)


def test_without_a_listener_a_handler_is_refused_by_name():
    from attrs import evolve

    from isolate import sandbox

    older = evolve(sandbox.this_host(), seccomp_flags=(), seccomp_why="too old")
    wanted = SeccompFilter.on("mkdirat", plugin)
    from isolate.plan.compile import compile_box

    with pytest.raises(HostLacks, match="too old"):
        compile_box(Sandbox(seccomp=wanted).policy, older)
