"""Refused system calls are reported: what, with what, by whom, how often; and stay refused."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from attrs import evolve

import isolate
from isolate import (
    Arg,
    Errno,
    Exited,
    Rule,
    Sandbox,
    SandboxViolation,
    SeccompFilter,
    Violated,
    Violation,
    allow,
    sandbox,
)
from isolate.abi.syscalls import numbers
from isolate.host.facts import Host
from isolate.policy.rules import KILL_PROCESS, Action
from tests.live.helpers import reclaimed

TABLE = numbers(os.uname().machine)
WHERE = os.path.dirname(os.path.dirname(isolate.__file__))
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
LETHAL = SeccompFilter.default(lethal=True)
ENOSYS = 38
FLOOD = int(os.environ.get("ISOLATE_FLOOD", "200000"))  # 1,000,000 for a release


def python(script, box=None, **options):
    box = box or Sandbox()
    argv = [sys.executable, "-c", CALL + script]
    return box.run(argv, capture_output=True, text=True, timeout=60, **options)


def by_name(violations):
    found = {}
    for each in violations:
        assert isinstance(each, Violation)
        found.setdefault(each.syscall, []).append(each)
    return found


def refused_once():
    """A call that the default refuses, harmless if it were not."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return libc.chroot(b"/nowhere"), ctypes.get_errno()


# -- what a report says


def test_a_refusal_is_reported_with_its_arguments_in_words():
    done = python(f"""
print(call({TABLE["mount"]}, b'none', b'/mnt/x', 0, 0x1001, 0))
print(call({TABLE["unshare"]}, 0x10020000))
print(call({TABLE["socket"]}, 40, 1 | 0o2000000, 0))
print(call({TABLE["ptrace"]}, 16, 1, 0, 0))
print(call({TABLE["ioctl"]}, 0, 0x5412, 0))
""")
    assert done.stdout.splitlines() == ["(-1, 1)"] * 5, done.stderr
    found = by_name(done.violations)
    assert found["mount"][0].decoded[:2] == ("source='none'", "target='/mnt/x'")
    assert found["mount"][0].decoded[3] == "flags=MS_RDONLY|MS_BIND"
    assert found["unshare"][0].decoded == ("flags=CLONE_NEWNS|CLONE_NEWUSER",)
    assert found["socket"][0].decoded[:2] == ("family=AF_VSOCK", "type=SOCK_STREAM|SOCK_CLOEXEC")
    assert found["ptrace"][0].decoded[:2] == ("request=PTRACE_ATTACH", "pid=1")
    assert found["ioctl"][0].decoded[1] == "request=TIOCSTI"
    assert all(each.action == Errno("EPERM") for each in done.violations)
    assert done.outcome == Exited(0)


def test_socket_addresses_are_read():
    closed = SeccompFilter.deny("connect", "bind", action=Errno("EACCES"))
    done = python("""
import socket
for kind, where in [(socket.AF_INET, ('127.0.0.1', 4711)), (socket.AF_INET6, ('::1', 4712)),
                    (socket.AF_UNIX, '/run/x.sock'), (socket.AF_UNIX, b'\\0hidden')]:
    try: socket.socket(kind).connect(where)
    except PermissionError: print('refused')
""", Sandbox(seccomp=closed))  # fmt: skip
    assert done.stdout == "refused\n" * 4
    seen = [each.decoded[1] for each in done.violations]
    assert seen == [
        "addr=127.0.0.1:4711",
        "addr=[::1]:4712",
        "addr=unix:'/run/x.sock'",
        "addr=unix:@'hidden'",
    ]


def test_the_pid_is_the_one_inside_and_equal_calls_are_counted():
    done = python(f"""
print(os.getpid())
for _ in range(7): call({TABLE["chroot"]}, b'/x')
call({TABLE["chroot"]}, b'/y')
""")
    pid = int(done.stdout)
    counts = {each.decoded: (each.count, each.pid) for each in done.violations}
    assert counts == {("path='/x'",): (7, pid), ("path='/y'",): (1, pid)}
    text = f"chroot(path='/x'): errno(EPERM), 7 times, pid {pid}"
    assert str(done.violations[0]).startswith(text)


def test_an_ordinary_program_has_none():
    done = python("import asyncio, json, subprocess, threading; print('ok')")
    assert (done.stdout, done.violations) == ("ok\n", ())


def test_what_only_asks_whether_the_kernel_is_newer_is_no_violation():
    three = f"call({TABLE['clone3']}, 0, 0), call(1000), call({TABLE['bpf']}, 0, 0, 0)"
    done = python(f"print({three})")
    assert done.stdout == f"(-1, {ENOSYS}) (-1, {ENOSYS}) (-1, 1)\n"
    assert [each.syscall for each in done.violations] == ["bpf"]


def test_a_string_that_is_not_there_is_no_reason_to_let_anything_pass():
    done = python(f"print(call({TABLE['chroot']}, 8), call({TABLE['chroot']}, 2**64 - 4096))")
    assert done.stdout == "(-1, 1) (-1, 1)\n"
    assert sum(each.count for each in done.violations) == 2


def test_a_hostile_string_ends_no_line():
    done = python(f"call({TABLE['chroot']}, b'\\x1b[2J\\n\\xff' + b'a' * 5000)")
    (only,) = done.violations
    assert "\n" not in str(only)
    assert "\x1b" not in str(only)
    assert len(str(only)) < 600


PLACES = """\
import ctypes, os, socket, threading
libc = ctypes.CDLL(None)
def here():
    return socket.socket(40, 1, 0)
try: here()
except OSError: pass
def thread():
    libc.chroot(b'/thread')
t = threading.Thread(target=thread); t.start(); t.join()
pid = os.fork()
if pid == 0:
    libc.chroot(b'/child'); os._exit(0)
os.waitpid(pid, 0)
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="from 3.11 on")
def test_the_python_line_is_told_in_threads_and_children_too():
    box = Sandbox(files={"evil.py": PLACES})
    done = box.run([sys.executable, "/tmp/evil.py"], capture_output=True, timeout=60)
    found = {each.decoded[0]: each.where for each in done.violations}
    assert found == {
        "family=AF_VSOCK": "/tmp/evil.py:4",  # not the library's own line
        "path='/thread'": "/tmp/evil.py:8",
        "path='/child'": "/tmp/evil.py:12",
    }, done
    done = Sandbox().run(["/bin/sh", "-c", "chroot /tmp true"], capture_output=True)
    assert [each.where for each in done.violations] in ([None], [])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="from 3.11 on")
def test_a_call_tells_its_line():
    with Sandbox() as box:
        box.call(refused_once)
        (only,) = box.violations
    name, _, line = only.where.rpartition(":")
    assert os.path.basename(name) in (os.path.basename(__file__), "<dynamic-code>")
    assert "chroot" in Path(__file__).read_text().splitlines()[int(line) - 1]


# -- where it is seen


def test_popen_and_box_have_them_too():
    with Sandbox() as box:
        argv = [sys.executable, "-c", CALL + f"call({TABLE['chroot']}, b'/p'); input()"]
        program = box.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        end = time.monotonic() + 30
        while not program.violations and time.monotonic() < end:
            time.sleep(0.01)
        assert program.poll() is None  # seen while it runs
        assert [each.syscall for each in program.violations] == ["chroot"]
        program.communicate(b"\n", timeout=30)
        done = python(f"call({TABLE['swapon']}, b'/s', 0)", box)
        assert [each.syscall for each in done.violations] == ["swapon"]
        assert box.call(refused_once) == (-1, 1)
        assert sorted(each.syscall for each in box.violations) == ["chroot", "chroot", "swapon"]
    assert len(box.violations) == 3  # also after its end
    assert [each.syscall for each in program.violations] == ["chroot"]


def test_an_error_of_a_call_carries_them():
    def denied():
        refused_once()
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        Sandbox().call(denied)
    assert [each.syscall for each in caught.value.violations] == ["chroot"]


def test_what_orphans_are_refused_is_seen_by_the_box():
    with Sandbox() as box:
        code = CALL + f"import time; time.sleep(0.3); call({TABLE['acct']}, b'/late')"
        script = '"$0" -c "$1" & exit 0'
        done = box.run(["/bin/sh", "-c", script, sys.executable, code], capture_output=True)
        assert done.violations == ()
        end = time.monotonic() + 30
        while not any(each.decoded for each in box.violations) and time.monotonic() < end:
            time.sleep(0.01)  # counted at once, described a moment later
        assert [each.decoded for each in box.violations] == [("path='/late'",)]


def test_threads_are_reported_by_their_process():
    done = python(f"""
import threading
def work(n): call({TABLE["acct"]}, b'/t%d' % n)
ts = [threading.Thread(target=work, args=(n,)) for n in range(20)]
[t.start() for t in ts]; [t.join() for t in ts]
print(os.getpid())
""")
    assert len(done.violations) == 20
    assert {each.pid for each in done.violations} == {int(done.stdout)}


def test_programs_at_the_same_time_have_their_own():
    found = {}
    with Sandbox() as box:

        def work(n):
            script = f"for _ in range({n}): call({TABLE['acct']}, b'/{n}')"
            found[n] = python(script, box).violations

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    seen = {n: [(each.decoded, each.count) for each in mine] for n, mine in found.items()}
    assert seen == {n: [((f"path='/{n}'",), n)] for n in range(1, 9)}


def test_a_fork_of_the_caller_leaves_the_supervisor_alone():
    with Sandbox() as box:
        python(f"call({TABLE['acct']}, b'/a')", box)
        pid = os.fork()
        if pid == 0:
            assert box.violations == ()
            box.session.supervisor.notifier.state = None  # what the end of the process does
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        python(f"call({TABLE['acct']}, b'/b')", box)
        assert {each.decoded[0] for each in box.violations} == {"path='/a'", "path='/b'"}


def test_a_box_that_lives_long_keeps_no_log_of_each_program():
    with Sandbox() as box:
        for number in range(150):
            assert box.run(["/bin/true"]).violations == ()
            if number % 50 == 0:
                python(f"call({TABLE['acct']}, b'/{number}')", box)
        logs = box.session.supervisor.logs
        assert len(logs) <= 70
        assert len(box.violations) == 3
    assert len(box.violations) == 3


# -- floods


@pytest.mark.parametrize("same", [True, False])
def test_a_flood_costs_bounded_memory_and_is_counted(same, tmp_path):
    """Of the same kind, and of kinds that all differ."""
    total = FLOOD if same else FLOOD // 4
    path = "b'/x'" if same else "b'/%d' % n"
    script = f"""
chroot = libc.chroot
for n in range({total}): chroot({path})
print('done')
"""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ticks = []
    stop = threading.Event()


    def tick():
        while not stop.wait(0.05):
            ticks.append(1)

    clock = threading.Thread(target=tick)
    clock.start()
    argv = [sys.executable, "-c", CALL + script]
    done = Sandbox().run(argv, capture_output=True, text=True, timeout=110)
    stop.set()
    clock.join()
    assert done.stdout == "done\n", done
    assert sum(each.count for each in done.violations) == total
    assert len(done.violations) == (1 if same else 257)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
    assert len(ticks) > 5  # the caller's other threads went on


# -- silence


def test_silence_is_asked_for_by_name():
    script = f"print(call({TABLE['chroot']}, b'/x'), call({TABLE['acct']}, b'/y'))"
    quiet = Sandbox(seccomp=SeccompFilter.default(silent=["chroot"]))
    done = python(script, quiet)
    assert done.stdout == "(-1, 1) (-1, 1)\n"
    assert [each.syscall for each in done.violations] == ["acct"]
    mute = Sandbox(seccomp=SeccompFilter.default(silent=True))
    done = python(script, mute)
    assert (done.stdout, done.violations) == ("(-1, 1) (-1, 1)\n", ())
    assert "reports" not in [each.name for each in done.guarantees]


# -- policies that end the program


def test_a_lethal_policy_names_the_call_that_ended_it():
    done = python(f"call({TABLE['acct']}, b'/x'); print('on')", Sandbox(seccomp=LETHAL))
    assert isinstance(done.outcome, Violated)
    assert (done.outcome.syscall, done.outcome.mechanism) == ("acct", "seccomp")
    assert done.stdout == ""
    assert done.returncode == -signal.SIGSYS
    assert [(each.decoded, each.action) for each in done.violations] == [
        (("path='/x'",), KILL_PROCESS)
    ]


def test_a_lethal_policy_does_not_mind_questions():
    done = python(f"print(call({TABLE['clone3']}, 0, 0))", Sandbox(seccomp=LETHAL))
    assert (done.stdout, done.outcome) == (f"(-1, {ENOSYS})\n", Exited(0))


def test_a_child_that_violates_ends_the_program():
    script = '"$0" -c "$1"; echo went on'
    code = CALL + f"call({TABLE['acct']}, b'/x')"
    argv = ["/bin/sh", "-c", script, sys.executable, code]
    done = Sandbox(seccomp=LETHAL).run(argv, capture_output=True, text=True, timeout=60)
    assert isinstance(done.outcome, Violated)
    assert done.stdout == ""


def test_a_popen_that_violates_says_so():
    argv = [sys.executable, "-c", CALL + f"call({TABLE['acct']}, b'/')"]
    program = Sandbox(seccomp=LETHAL).popen(argv)
    assert program.wait(60) == -signal.SIGSYS
    assert program.outcome.syscall == "acct"


def grandchild():
    pid = os.fork()
    if pid == 0:
        refused_once()
        os._exit(0)
    time.sleep(20)


@pytest.mark.parametrize("function", [refused_once, grandchild])
def test_a_call_that_violates_raises(function):
    with Sandbox(seccomp=LETHAL) as box:
        with pytest.raises(SandboxViolation, match="chroot") as caught:
            box.call(function)
        assert [each.syscall for each in caught.value.violations] == ["chroot"]
        assert box.call(len, [1, 2]) == 2  # the next one is not concerned


def test_a_killing_rule_wins_over_a_mild_one_and_is_named():
    rule = Rule("acct", KILL_PROCESS)
    both = SeccompFilter.deny(rule).narrow(SeccompFilter.deny("acct", action=Errno("EROFS")))
    done = python(f"call({TABLE['acct']}, b'/x')", Sandbox(seccomp=both))
    assert isinstance(done.outcome, Violated)
    assert done.outcome.syscall == "acct"


def test_a_trap_stays_the_kernels():
    trap = SeccompFilter.deny(Rule("sync", Action("trap")), Rule("acct", KILL_PROCESS))
    script = """
import signal
signal.signal(signal.SIGSYS, lambda *_: (print('trapped', flush=True), os._exit(3)))
"""
    done = python(script + "os.sync()", Sandbox(seccomp=trap))
    assert (done.stdout, done.outcome) == ("trapped\n", Exited(3))
    done = python(script + f"call({TABLE['acct']}, 0)", Sandbox(seccomp=trap))
    assert done.outcome == Violated(None, (), "seccomp")


# -- filters that refuse what the launch itself calls


SHUT = ["sendmsg", "write", "seccomp", "recvmsg"]


@pytest.mark.parametrize("names", [["sendmsg"], ["write"], ["seccomp"], SHUT])
def test_a_filter_may_refuse_what_hands_over_the_listener(names):
    shut = SeccompFilter.deny(*names)
    nrs = [TABLE[name] for name in names]
    script = f"os._exit(sum(call(nr, 99, 0, 0)[1] == 1 for nr in {nrs}))"
    done = python(script, Sandbox(seccomp=shut))
    assert done.outcome == Exited(len(names)), done
    assert {each.syscall for each in done.violations} >= set(names)


def test_the_way_of_the_launch_is_closed_when_the_program_runs():
    """The upper half of an int argument is the key of set-up: here it opens nothing."""
    key = 0x69736F64 << 32
    script = f"""
import struct
r, w = os.pipe()
print(call({TABLE["sendmsg"]}, 1, 0, key), call({TABLE["seccomp"]}, 1 | key, 0, 0), flush=True)
""".replace("key", str(key))
    done = python(script, Sandbox(seccomp=SeccompFilter.deny("sendmsg", "seccomp")))
    assert done.stdout == "(-1, 1) (-1, 1)\n"


def test_an_allow_list_without_write_reports_and_refuses():
    """exec is the last that set-up does; a failed one must not wait for anybody."""
    names = "execve exit_group brk mmap munmap mprotect openat close read pread64 newfstatat "
    names += "fstat access arch_prctl set_tid_address set_robust_list rseq prlimit64 "
    names += "getrandom lseek futex"
    only = SeccompFilter.allow(*(name for name in names.split() if name in TABLE))
    done = Sandbox(seccomp=only).run(["/bin/echo", "x"], capture_output=True, timeout=30)
    assert done.stdout == b""
    assert "write" in {each.syscall for each in done.violations}
    began = time.monotonic()
    absent = Sandbox(seccomp=only).run(["/absent/program"], timeout=30)
    assert absent.outcome == Exited(127)  # its report is lost, since it may not write
    with pytest.raises(isolate.LaunchError):
        Sandbox(seccomp=SeccompFilter.deny("sendmsg")).run(["/absent/program"])
    assert time.monotonic() - began < 30


def test_a_program_with_few_descriptors_can_be_watched():
    done = Sandbox(rlimits={"nofile": 8}).run(["/bin/echo", "x"], capture_output=True)
    assert done.stdout == b"x\n"


def test_the_listener_is_not_inside():
    look = "os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]"
    done = python(f"print([{look}])")
    assert "seccomp" not in done.stdout
    assert "[" in done.stdout


# -- who might listen instead


LISTENER = """
import struct
def listener(action=0x7fc00000, nr=None, flags=8):
    # everything is allowed but `nr`, which gets `action`
    code = struct.pack('=HBBI', 0x20, 0, 0, 0) + struct.pack('=HBBI', 0x15, 0, 1, nr or 0xffff)
    code += struct.pack('=HBBI', 6, 0, 0, action) + struct.pack('=HBBI', 6, 0, 0, 0x7fff0000)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack('@HP', 4, ctypes.addressof(buffer))
    given = ctypes.create_string_buffer(program, len(program))
    return call(NR_seccomp, 1, flags, ctypes.addressof(given))
""".replace("NR_seccomp", str(TABLE["seccomp"]))


def test_a_program_can_have_no_listener_that_lets_calls_go_on():
    """The youngest listener decides (linux/seccomp.h): a second one would undo ours."""
    done = python(LISTENER + f"""
print(listener(nr={TABLE["acct"]}))
print(listener(nr={TABLE["acct"]}, flags=8 | 32))
print(listener(0x7ff00000, {TABLE["acct"]}, flags=0), call({TABLE["acct"]}, b'/x'))
print(listener(0x7fc00000, {TABLE["acct"]}, flags=0), call({TABLE["acct"]}, b'/x'))
""")  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:2] == ["(-1, 16)", "(-1, 16)"], done.stderr  # EBUSY
    assert lines[2] == "(0, 0) (-1, 1)"  # a trace action is weaker than ours
    assert lines[3] == f"(0, 0) (-1, {ENOSYS})"  # nobody listens to that one: refused


HOST = """
import sys
sys.path.insert(0, {where!r})
from isolate import Sandbox
box = Sandbox(write=[{folder!r}])
code = {code!r}
program = box.popen([sys.executable, "-c", code])
program.wait(60)
"""
TRYING = LISTENER + """
log = open({path!r}, 'a', buffering=1)
print('begun', file=log)
seen = set()
while True:
    for name, got in (('chroot', call({chroot}, b'/')), ('listener', listener(nr={chroot}))):
        if (name, *got) not in seen:
            seen.add((name, *got))
            print(name, *got, file=log)
"""


def test_when_the_supervisor_is_killed_nothing_is_let_through_and_the_box_dies(tmp_path):
    path = tmp_path / "log"
    os.chmod(tmp_path, 0o777)
    code = CALL + TRYING.format(path=str(path), chroot=TABLE["chroot"])
    script = HOST.format(where=WHERE, folder=str(tmp_path), code=code)
    host = subprocess.Popen([sys.executable, "-c", script])
    end = time.monotonic() + 60
    while not (path.exists() and "listener" in path.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    host.send_signal(signal.SIGKILL)
    host.wait()
    size = -1
    end = time.monotonic() + 30
    mine = [sys.executable.encode(), str(path).encode()]
    while time.monotonic() < end:
        living = [
            each
            for each in Path("/proc").glob("[0-9]*/cmdline")
            if all(part in (each.read_bytes() if each.exists() else b"") for part in mine)
        ]
        if not living:
            break
        time.sleep(0.05)
    assert not living
    size = path.stat().st_size
    time.sleep(0.2)
    assert path.stat().st_size == size
    lines = set(path.read_text().splitlines())
    assert "begun" in lines
    assert lines - {"begun"} <= {
        "chroot -1 1",
        f"chroot -1 {ENOSYS}",  # the kernel's own answer, once the listener is closed
        "listener -1 16",
    }
    reclaimed()


# -- machines that have no listeners


def test_without_listeners_refusals_hold_and_the_guarantee_says_so(monkeypatch):
    real = sandbox.this_host()
    older = evolve(real, seccomp_flags=(), seccomp_why="this kernel is old")
    monkeypatch.setattr(sandbox, "this_host", lambda: older)
    done = python(f"print(call({TABLE['acct']}, b'/x'))")
    assert (done.stdout, done.violations) == ("(-1, 1)\n", ())
    told = {each.name: (each.verdict, each.by) for each in done.guarantees}
    assert told["reports"] == ("weakened", "this kernel is old")
    assert told["seccomp"][0] == "enforced"
    kill = SeccompFilter.deny(Rule("acct", KILL_PROCESS))
    done = python(f"call({TABLE['acct']}, b'/x')", Sandbox(seccomp=kill))
    assert done.outcome == Violated(None, (), "seccomp")
    with pytest.raises(isolate.HostLacks, match="old"):
        Sandbox(seccomp=SeccompFilter.on("acct", print)).run(["/bin/true"])


def test_under_a_listener_of_somebody_else_the_machine_is_seen_to_have_none():
    script = CALL + LISTENER + f"""
import sys
sys.path.insert(0, {WHERE!r})
libc.prctl(38, 1, 0, 0, 0)
fd, error = listener()
assert fd >= 0, error
from isolate import Sandbox
from isolate.host.probe import probe
host = probe()
print(host.seccomp_flags, host.seccomp_why)
argv = [sys.executable, "-c", {CALL!r} + "print(call({TABLE["acct"]}, b'/x'))"]
done = Sandbox().run(argv, capture_output=True, text=True)
verdicts = [each.verdict for each in done.guarantees if each.name == "reports"]
print(done.stdout.strip(), done.violations, verdicts)
"""  # fmt: skip
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("('tsync', 'spec_allow') a filter that this process is under"), done
    assert lines[1] == "(-1, 1) () ['weakened']", done


def test_the_probe_leaves_this_process_as_it_was():
    before = Path("/proc/self/status").read_text()
    from isolate.host import seccomp

    table = numbers(os.uname().machine)
    assert seccomp.try_listener(table["seccomp"], table["prctl"]) in ("", seccomp.NESTED)
    after = Path("/proc/self/status").read_text()
    for field in ("Seccomp:", "Seccomp_filters:", "NoNewPrivs:"):
        mine = [line for line in before.splitlines() if line.startswith(field)]
        assert mine == [line for line in after.splitlines() if line.startswith(field)]


def test_flags_are_facts_of_the_host():
    host = sandbox.this_host()
    assert Host.from_json(host.to_json()) == host
    assert set(host.seccomp_flags) <= {"tsync", "spec_allow", "new_listener", "wait_killable_recv"}


# -- other programs and sockets go on


def test_signals_do_not_disturb_a_refusal():
    """One that comes before the supervisor has looked interrupts the call: that passes neither."""
    done = python(f"""
import signal
hits = []
signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
answers = {{call({TABLE["acct"]}, b'/x') for _ in range(3000)}}
signal.setitimer(signal.ITIMER_REAL, 0)
print((-1, 1) in answers and answers <= {{(-1, 1), (-1, 4)}}, len(hits) > 0)
""")
    assert done.stdout == "True True\n", done
    assert 1000 < sum(each.count for each in done.violations) <= 3000


def test_a_bare_filter_reports_as_well():
    with SeccompFilter.deny(Rule("sync", Errno("EROFS"))):
        done = isolate.run([sys.executable, "-c", CALL + f"print(call({TABLE['sync']}))"],
                           capture_output=True, text=True)  # fmt: skip
    assert done.stdout in ("(-1, 30)\n", "(0, 0)\n")
    assert done.stdout == "(-1, 30)\n"
    assert [str(each.action) for each in done.violations] == ["errno(EROFS)"]


def test_argument_rules_are_reported_with_what_they_refused():
    rule = Rule("kill", Errno("ESRCH"), (Arg(1, width=32) == 9,))
    done = python("""
try: os.kill(os.getpid(), 9)
except ProcessLookupError: os.kill(os.getpid(), 0); print('on')
""", Sandbox(seccomp=SeccompFilter.deny(rule)))  # fmt: skip
    assert done.stdout == "on\n"
    assert [each.decoded[1] for each in done.violations] == ["sig=SIGKILL"]


def test_without_filters_there_is_no_supervisor():
    with Sandbox(seccomp=False, allow=[allow.SystemCalls()]) as box:
        assert box.session.supervisor is None
        assert box.violations == ()
    assert socket.socketpair()
