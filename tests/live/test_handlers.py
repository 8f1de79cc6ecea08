"""Functions of the caller that decide for a system call, and programs that are learnt from."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import isolate
from isolate import (
    Answer,
    Arg,
    Errno,
    Exited,
    IsolateError,
    Notified,
    PolicyConflict,
    PolicyError,
    Rule,
    Sandbox,
    SeccompFilter,
)
from isolate.abi.syscalls import numbers

TABLE = numbers(os.uname().machine)
CALL = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    given = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_ulong(a & (1 << 64) - 1)
             for a in args]
    value = libc.syscall(ctypes.c_long(number), *given)
    return value, ctypes.get_errno()
"""
MKDIRAT = f"print(call({TABLE['mkdirat']}, -100, b'/tmp/made', 0o755), os.path.exists('/tmp/made'))"
REFUSED = "(-1, 1) False\n"


def python(script, wanted, **short):
    argv = [sys.executable, "-c", CALL + script]
    box = Sandbox(seccomp=wanted, **short)
    return box.run(argv, capture_output=True, text=True, timeout=60)


# -- what a handler may answer


def test_a_handler_sees_the_call_and_may_give_an_errno():
    seen = []

    def handler(call):
        seen.append((call, call.string(1)))
        return Answer.deny("EROFS")

    done = python(MKDIRAT, SeccompFilter.on("mkdirat", handler))
    assert done.stdout == "(-1, 30) False\n"
    (call, path), = seen
    assert isinstance(call, Notified)
    assert (call.syscall, path) == ("mkdirat", b"/tmp/made")
    assert call.decoded == ("dirfd=AT_FDCWD", "path='/tmp/made'", "mode=0o755")
    assert [(each.syscall, str(each.action), each.handled) for each in done.violations] == [
        ("mkdirat", "errno(EROFS)", True)
    ]


def test_a_handler_may_give_a_value_without_the_call_being_made():
    done = python(MKDIRAT, SeccompFilter.on("mkdirat", lambda call: Answer.value(42)))
    assert done.stdout == "(42, 0) False\n"
    assert done.violations == ()


def test_a_handler_may_act_on_behalf_and_hand_in_a_descriptor():
    """The program asks for a file that its root has not; it gets another one, read-only."""

    def handler(call):
        read_fd, write_fd = os.pipe()
        os.write(write_fd, b"from outside: " + call.string(1))
        os.close(write_fd)
        return Answer.fd(read_fd)

    before = os.listdir("/proc/self/fd")
    wanted = SeccompFilter.on(Rule("openat2"), handler)
    done = python(
        f"fd, _ = call({TABLE['openat2']}, -100, b'/secret', 0, 0)\n"
        "print(os.read(fd, 99), os.get_inheritable(fd))",
        wanted,
    )
    assert done.stdout == "b'from outside: /secret' False\n", done
    assert len(os.listdir("/proc/self/fd")) == len(before)  # the number was ours, and is closed


def test_a_descriptor_may_have_a_place_and_stay_the_handlers():
    with open("/etc/hostname") as file:
        wanted = SeccompFilter.on("openat2", lambda call: Answer.fd(file, at=77, cloexec=False))
        done = python(
            f"print(call({TABLE['openat2']}, -100, b'/x', 0, 0), os.get_inheritable(77))", wanted
        )
        assert done.stdout == "(77, 0) True\n"
        assert file.read()


def test_a_connection_is_made_by_the_caller():
    """connect() of a box without network: the handler connects, and the program gets the socket."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def handler(call):
        if f"addr=127.0.0.1:{port}" not in call.decoded:
            return Answer.deny("ECONNREFUSED")
        fd = socket.create_connection(("127.0.0.1", port)).detach()
        return Answer.fd(fd, at=call.args[0])

    script = """
import socket
s = socket.socket(); t = socket.socket()
try: t.connect(('127.0.0.1', 1))
except ConnectionRefusedError: print('refused')
print(call(NR, s.fileno(), ctypes.addressof(buffer), 16)[0] == s.fileno())
s.send(b'hello')
""".replace("NR", str(TABLE["connect"]))
    address = f"""
import struct
data = struct.pack('=H', 2) + struct.pack('!H', {port}) + bytes((127, 0, 0, 1)) + bytes(8)
buffer = ctypes.create_string_buffer(data, len(data))
"""
    done = python(address + script, SeccompFilter.on("connect", handler, timeout=5))
    assert done.stdout == "refused\nTrue\n", done
    connection, _ = server.accept()
    assert connection.recv(9) == b"hello"
    connection.close()
    server.close()


def test_a_call_without_pointers_may_go_on():
    done = python("print(os.getppid())", SeccompFilter.on("getppid", lambda _: Answer.proceed()))
    assert done.stdout == "1\n"
    some = SeccompFilter.on("getppid", lambda _: Errno("ESRCH"))
    assert python(f"print(call({TABLE['getppid']}))", some).stdout == "(-1, 3)\n"


def test_a_call_with_pointers_never_goes_on():
    done = python(MKDIRAT, SeccompFilter.on("mkdirat", lambda _: Answer.proceed()))
    assert done.stdout == REFUSED
    unknown = SeccompFilter.on("timer_delete", lambda _: Answer.proceed())
    assert python(f"print(call({TABLE['timer_delete']}, 5))", unknown).stdout == "(-1, 1)\n"


def test_conditions_select_what_is_asked():
    asked = []

    def handler(call):
        asked.append(call.args[1])
        return Answer.deny("ENOENT")

    wanted = SeccompFilter.on(Rule("kill", conditions=(Arg(1, width=32) == 9,)), handler)
    done = python(f"print(call({TABLE['kill']}, 1, 0)[0], call({TABLE['kill']}, 1, 9))", wanted)
    assert done.stdout in ("0 (-1, 2)\n", "-1 (-1, 2)\n")
    assert asked == [9]


# -- what denies


def boom(_):
    raise RuntimeError("handlers fail")


def leave(_):
    sys.exit(3)


@pytest.mark.parametrize(
    "handler",
    [
        boom,
        leave,
        lambda _: None,
        lambda _: True,
        lambda _: 0,
        lambda _: "allow",
        lambda _: Answer("proceed"),
        lambda _: Answer("nothing-known"),
        lambda _: Answer("errno", 0),
        lambda _: Answer("fd", 99999),
        lambda _: isolate.Action("allow"),
        lambda _: Answer.value(-1),
    ],
)
def test_failure_and_nonsense_refuse(handler):
    done = python(MKDIRAT, SeccompFilter.on("mkdirat", handler))
    assert done.stdout == REFUSED, done
    assert [each.handled for each in done.violations] == [True]


def test_a_handler_that_hangs_refuses_within_its_time_and_others_go_on():
    release = threading.Event()

    def handler(call):
        release.wait(30)
        return Answer.value(0)

    script = MKDIRAT + f"\nprint(call({TABLE['chroot']}, b'/'))"
    wanted = SeccompFilter.on("mkdirat", handler, timeout="300ms")
    began = time.monotonic()
    try:
        done = python(script, wanted)
    finally:
        release.set()
    assert done.stdout == REFUSED + "(-1, 1)\n"
    assert 0.3 <= time.monotonic() - began < 20
    assert {each.syscall for each in done.violations} == {"mkdirat", "chroot"}
    end = time.monotonic() + 10
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(0.01)


def test_more_calls_than_handlers_are_refused_in_time():
    release = threading.Event()
    script = f"""
import threading
found = []
def work(): found.append(call({TABLE["mkdirat"]}, -100, b'/tmp/m', 0))
ts = [threading.Thread(target=work) for _ in range(40)]
[t.start() for t in ts]; [t.join() for t in ts]
print(set(found), len(found))
"""
    wanted = SeccompFilter.on("mkdirat", lambda _: release.wait(30), timeout="500ms")
    try:
        done = python(script, wanted)
    finally:
        release.set()
    assert done.stdout == "{(-1, 1)} 40\n"
    assert sum(each.count for each in done.violations) == 40


def test_a_box_may_end_while_a_handler_thinks():
    started, release = threading.Event(), threading.Event()

    def handler(call):
        started.set()
        release.wait(30)
        return Answer.value(0)

    box = Sandbox(seccomp=SeccompFilter.on("mkdirat", handler, timeout=30)).open()
    try:
        program = box.popen([sys.executable, "-c", CALL + MKDIRAT])
        assert started.wait(30)
    finally:
        box.close()
        release.set()
    assert program.wait(30) == -9


def test_what_another_filter_refuses_no_handler_gives_back():
    wanted = SeccompFilter.on("chroot", lambda _: Answer.value(0))
    done = python(f"print(call({TABLE['chroot']}, b'/'))", wanted)
    assert done.stdout == "(-1, 1)\n"
    assert [each.handled for each in done.violations] == [False]


def test_memory_of_a_call_that_is_over_is_not_read():
    kept = []

    def handler(call):
        kept.append(call)
        return Answer.deny()

    def late():
        try:
            kept[0].string(1)
        except (ProcessLookupError, FileNotFoundError) as error:
            return type(error)

    python(MKDIRAT, SeccompFilter.on("mkdirat", handler))
    assert late() in (ProcessLookupError, FileNotFoundError)


def test_a_handler_works_for_calls_too():
    def ask():
        import os

        try:
            os.mkdir("/tmp/x", 0o700)
        except OSError as error:
            return error.errno

    name = "mkdir" if "mkdir" in TABLE else "mkdirat"
    with Sandbox(seccomp=SeccompFilter.on(name, lambda _: Answer.deny("EDQUOT"))) as box:
        assert box.call(ask) == 122
        assert ("path='/tmp/x'", True) in [
            (each.decoded[-2], each.handled) for each in box.violations
        ]


@pytest.mark.parametrize("name", ["execve", "exit_group", "rt_sigreturn"])
def test_what_the_launch_rests_on_has_no_handler(name):
    with pytest.raises(PolicyError, match=name):
        SeccompFilter.on(name, lambda _: None)


def test_two_functions_for_one_call_are_a_conflict():
    one, two = SeccompFilter.on("mkdir", len), SeccompFilter.on("mkdir", print)
    with pytest.raises(PolicyConflict):
        one.narrow(two)
    assert one.narrow(one) == one


# -- learning


def needed(wanted, target, **options):
    """Run under the learnt filter alone with the default; its outcome, and what was refused."""
    done = Sandbox(seccomp=wanted).run(target, capture_output=True, text=True, **options)
    return done.outcome, done.violations


@pytest.mark.parametrize(
    "target",
    [
        ["/bin/ls", "-l", "/usr"],
        ["/bin/sh", "-c", "echo a | cat > /tmp/x; wc -c < /tmp/x"],
        [sys.executable, "-c", "import json, threading, subprocess as s; s.run(['/bin/true'])"],
        [
            sys.executable,
            "-c",
            "import threading as t; x = t.Thread(target=print); x.start(); x.join()",
        ],
    ],
)
def test_a_second_run_passes_under_what_was_learnt(target):
    wanted = SeccompFilter.learn(target, runs=2, capture_output=True)
    assert needed(wanted, target) == (Exited(0), ())


def test_what_was_not_done_is_refused_after_learning():
    wanted = SeccompFilter.learn([sys.executable, "-c", "import socket"], capture_output=True)
    assert wanted.evaluate("socket", 2, 1, 0).action == Errno("EPERM")
    assert wanted.evaluate("execve").action.name == "allow"
    outcome, violations = needed(wanted, [sys.executable, "-c", "import socket; socket.socket()"])
    assert outcome != Exited(0)
    assert "socket" in {each.syscall for each in violations}


def test_few_arguments_become_conditions():
    script = "import socket; socket.socket(socket.AF_UNIX).close()"
    wanted = SeccompFilter.learn([sys.executable, "-c", script], capture_output=True)
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    assert wanted.evaluate("socket", socket.AF_UNIX, kind, 0).action.name == "allow"
    assert wanted.evaluate("socket", socket.AF_INET, kind, 0).action == Errno("EPERM")


def test_what_the_box_refuses_is_not_learnt():
    script = CALL + f"print(call({TABLE['chroot']}, b'/tmp')); call({TABLE['getpid']})"
    wanted = SeccompFilter.learn([sys.executable, "-c", script], runs=1, capture_output=True)
    assert wanted.evaluate("chroot").action == Errno("EPERM")
    assert wanted.evaluate("getpid").action.name == "allow"


def test_a_function_is_learnt_with_its_arguments():
    def work(count):
        import json

        return json.dumps(list(range(count)))

    wanted = SeccompFilter.learn(work, 3, runs=2)
    assert Sandbox(seccomp=wanted).call(work, 4) == "[0, 1, 2, 3]"


def test_a_run_that_fails_teaches_nothing():
    with pytest.raises(IsolateError, match="Exited"):
        SeccompFilter.learn(["/bin/false"])
    with pytest.raises(PolicyError):
        SeccompFilter.learn(["/bin/true"], runs=0)
    box = Sandbox(seccomp=SeccompFilter.on("mkdir", len))
    with pytest.raises(PolicyError, match="handlers"):
        SeccompFilter.learn(["/bin/true"], sandbox=box)


def test_a_learnt_filter_is_a_value_like_any_other():
    wanted = SeccompFilter.learn(["/bin/true"], runs=1)
    text = isolate.Policy(wanted).dumps()
    assert isolate.Policy.loads(text).get(SeccompFilter) == wanted
    assert subprocess.run(["/bin/true"]).returncode == 0


def test_confine_watches_nobody_and_says_so():
    script = """
from isolate import HostLacks, SeccompFilter
from isolate.confine import confine
try: confine(SeccompFilter.on("mkdir", len))
except HostLacks as error: print(error.what)
held = {each.name: each.verdict for each in confine(SeccompFilter.deny("chroot"))}
print(held["seccomp"], held["reports"])
import os
try: os.chroot("/")
except PermissionError: print("refused")
"""
    argv = [sys.executable, "-c", script]
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(isolate.__file__))}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)
    assert done.stdout.splitlines() == ["handlers", "enforced weakened", "refused"], done.stderr


def test_the_command_writes_what_it_learns(tmp_path):
    pytest.importorskip("click")
    path = tmp_path / "learnt.toml"
    learn = ["seccomp", "learn", "--runs", "1", "--output", str(path), "--", "/bin/ls", "/usr"]
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(isolate.__file__))}
    argv = [sys.executable, "-m", "isolate", *learn]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, env=env)
    assert done.returncode == 0, done.stderr
    wanted = isolate.Policy.load(path).get(SeccompFilter)
    assert needed(wanted, ["/bin/ls", "/usr"]) == (Exited(0), ())
    assert wanted.evaluate("socket", 1, 1, 0).action == Errno("EPERM")
