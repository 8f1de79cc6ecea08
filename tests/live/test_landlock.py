# SPDX-License-Identifier: Apache-2.0
"""Landlock in real boxes: each right where it is granted and where it is not, and the tricks."""

import os
import socket
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from attrs import evolve

from isolate import (
    HostLacks,
    Landlock,
    Namespace,
    Policy,
    PolicyError,
    Sandbox,
    allow,
)
from isolate.abi.landlock import FS
from isolate.abi.ops import OpCode
from isolate.host.probe import probe
from isolate.plan.compile import compile_box
from isolate.policy.ambient import collected
from isolate.running import RunOptions, run_in
from isolate.sandbox import run
from isolate.supervise.launch import Session

LEVEL = probe().landlock

# Every right of Landlock as one try, below a directory that is there.
TRIES = """
import ctypes, errno, fcntl, os, socket, stat, sys
libc = ctypes.CDLL(None, use_errno=True)

def word(fn, *args):
    try:
        fn(*args)
        return "yes"
    except OSError as error:
        return errno.errorcode[error.errno]

def opened(path, flags):
    os.close(os.open(path, flags))

def bound(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)

def ran(path):
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(path, [path])
        except OSError as error:
            os._exit(100 + error.errno)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code >= 100:
        raise OSError(code - 100, "execv")

def tries(d):
    return {
        "read_file": word(opened, d + "/file", os.O_RDONLY),
        "read_dir": word(os.listdir, d),
        "write_file": word(opened, d + "/file", os.O_WRONLY),
        "truncate": word(os.truncate, d + "/file", 0),
        "make_reg": word(opened, d + "/new", os.O_CREAT | os.O_WRONLY | os.O_EXCL),
        "make_dir": word(os.mkdir, d + "/newdir"),
        "make_sym": word(os.symlink, "x", d + "/link"),
        "make_fifo": word(os.mkfifo, d + "/fifo"),
        "make_sock": word(bound, d + "/sock"),
        "remove_file": word(os.unlink, d + "/old"),
        "remove_dir": word(os.rmdir, d + "/olddir"),
        "refer": word(os.rename, d + "/file", d + "/sub/file"),
        "execute": word(ran, d + "/prog"),
    }
"""


def furnished(path):
    """A directory on which every try of TRIES works for its owner."""
    (path / "sub").mkdir(parents=True)
    (path / "olddir").mkdir()
    (path / "file").write_text("text")
    (path / "old").write_text("")
    (path / "prog").write_bytes(open("/bin/true", "rb").read())
    (path / "prog").chmod(0o755)
    for each in (path, path / "sub", path / "olddir"):
        each.chmod(0o777)
    return path


def python(script, *items, **options):
    """A script under bare primitives; its last printed value."""
    done = bare(items, [sys.executable, "-c", TRIES + script], **options)
    assert done.returncode == 0, done.stderr
    return eval(done.stdout, {})  # our own script printed it


def bare(items, argv, **options):
    policy = Policy(*items)
    for item in policy:
        item.__enter__()
    try:
        return run(argv, capture_output=True, text=True, timeout=60, **options)
    finally:
        for item in reversed(collected()):
            item.__exit__(None, None, None)


@pytest.mark.needs("landlock")
def test_each_right_is_held_where_nothing_grants_it(tmp_path):
    inner, outer = furnished(tmp_path / "in"), furnished(tmp_path / "out")
    rules = Landlock(
        read=["/usr", "/lib", "/lib64", "/etc", "/proc", sys.prefix, sys.base_prefix, inner],
        execute=["/usr", "/lib", "/lib64", sys.base_prefix, inner],
        write=[inner, "/dev/null"],
        level=min(LEVEL, 5),
    )
    script = f"print((tries({str(inner)!r}), tries({str(outer)!r})))"
    granted, refused = python(script, rules)
    late = {name for name, (_, since) in FS.items() if since > LEVEL}
    assert {name: word for name, word in granted.items() if word != "yes"} == {}
    expected = {name: "yes" if name in late else "EACCES" for name in refused}
    assert refused == expected


@pytest.mark.needs("landlock")
def test_without_it_the_same_tries_all_work(tmp_path):
    """The positive control: it is Landlock that refuses above."""
    outer = furnished(tmp_path / "out")
    script = f"print(tries({str(outer)!r}))"
    assert set(python(script, Namespace(uts=True, user=os.geteuid() != 0)).values()) == {"yes"}


@pytest.mark.needs("landlock")
@pytest.mark.parametrize("field", ["read", "write", "execute"])
def test_each_field_rules_its_own_rights_alone(tmp_path, field):
    where = furnished(tmp_path / "in")
    rules = Landlock(**{field: GROUND[field]}, level=min(LEVEL, 5))
    found = python(f"print(tries({str(where)!r}))", rules)
    # The kernel opens a program for reading, too, to start it.
    rights = {"read": {"read_file", "read_dir", "execute"}, "execute": {"execute"}}
    ruled = rights.get(field, set(found) - {"read_file", "read_dir", "execute"})
    ruled = {name for name in ruled if FS[name][1] <= LEVEL}
    assert {name for name, word in found.items() if word != "yes"} == ruled


GROUND = {
    "read": ["/usr", "/lib", "/lib64", "/etc", "/proc", sys.prefix, sys.base_prefix],
    "write": ["/dev/null"],
    "execute": ["/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix],
}


@pytest.mark.needs("landlock")
def test_symlink_rename_hard_link_and_proc_tricks_do_not_get_out(tmp_path):
    inner, outer = furnished(tmp_path / "in"), furnished(tmp_path / "out")
    (outer / "secret").write_text("secret")
    (inner / "way").symlink_to(outer)
    rules = Landlock(read=[*GROUND["read"], inner], write=[inner], level=min(LEVEL, 5))
    script = f"""
i, o = {str(inner)!r}, {str(outer)!r}
def link_and_read():
    os.link(o + "/secret", i + "/mine")
    open(i + "/mine").read()
def move_in():
    os.rename(o + "/secret", i + "/moved")
def move_out():
    os.rename(i + "/file", o + "/moved")
def up():
    open(i + "/../out/secret").read()
def by_cwd():
    os.chdir(o)
    open("secret").read()
def by_path_fd():
    fd = os.open(o + "/secret", os.O_PATH)
    open(f"/proc/self/fd/{{fd}}").read()
def by_dir_fd():
    fd = os.open(o, os.O_PATH | os.O_DIRECTORY)
    os.close(os.open("secret", os.O_RDONLY, dir_fd=fd))
def by_root():
    open("/proc/self/root" + o + "/secret").read()
def swap():
    RENAME_EXCHANGE = 2
    r = libc.renameat2(-100, (i + "/old").encode(), -100, (o + "/secret").encode(), RENAME_EXCHANGE)
    if r:
        raise OSError(ctypes.get_errno(), "renameat2")
print({{f.__name__: word(f) for f in (link_and_read, move_in, move_out, up, by_cwd, by_path_fd,
        by_dir_fd, by_root, swap)}} | {{"symlink": word(opened, i + "/way/secret", os.O_RDONLY)}})
"""
    found = python(script, rules)
    assert set(found.values()) <= {"EACCES", "EXDEV"}, found
    assert len(found) == 10
    assert (outer / "secret").read_text() == "secret"
    assert sorted(os.listdir(inner)) == ["file", "old", "olddir", "prog", "sub", "way"]


@pytest.mark.needs("landlock")
def test_a_child_and_a_thread_are_held_as_well(tmp_path):
    outer = furnished(tmp_path / "out")
    script = f"""
import threading
found = []
t = threading.Thread(target=lambda: found.append(word(os.listdir, {str(outer)!r})))
t.start(); t.join()
pid = os.fork()
if pid == 0:
    os._exit(0 if word(os.listdir, {str(outer)!r}) == "EACCES" else 1)
found.append(os.waitpid(pid, 0)[1])
print(found)
"""
    assert python(script, Landlock(read=GROUND["read"])) == ["EACCES", 0]


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Thread(target=accept_all, args=(server,))
        stop.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    stop.join()


def accept_all(server):
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


@pytest.mark.needs("landlock4")
def test_tcp_ports_are_held(listener):
    script = f"""
def connect(port):
    with socket.create_connection(("127.0.0.1", port), 5): pass
def bind(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
print([word(connect, {listener}), word(connect, {listener} ^ 1), word(bind, 0), word(bind, 40007)])
"""
    rules = Landlock(tcp_connect=[listener], tcp_bind=[0])
    assert python(script, rules) == ["yes", "EACCES", "yes", "EACCES"]


@pytest.mark.needs("landlock6")
def test_signals_and_abstract_sockets_stay_inside():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0isolate-test-landlock-" + str(os.getpid()))
        server.listen()
        script = f"""
import signal
def connect():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect({server.getsockname()!r})
def own():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
print([word(connect), word(os.kill, {os.getpid()}, 0), word(own)])
"""
        scoped = Landlock(scope=["signal", "abstract_unix_socket"])
        assert python(script, scoped) == ["EPERM", "EPERM", "yes"]
        assert python(script, Landlock(scope=["signal"])) == ["yes", "EPERM", "yes"]


@pytest.mark.needs("landlock7")
def test_log_flags_are_taken():
    done = bare([Landlock(scope=["signal"], log=["same_exec_off", "new_exec_on"])], ["true"])
    assert done.returncode == 0


@pytest.mark.needs("landlock")
def test_a_sandbox_is_held_by_both(tmp_path):
    """The guarantee is there, and the domain is: a mount made by root of the box is refused."""
    done = Sandbox().run(["true"])
    assert ("landlock", "enforced") in {(g.name, g.verdict) for g in done.guarantees}
    nested = compile_box(Sandbox(read=[tmp_path]).policy, probe()).guarantees
    [told] = [g.by for g in nested if g.name == "landlock"]
    alone = told.partition("mounts alone keep from writing: ")[2].split(", ")
    assert str(tmp_path) in alone  # beside it a checkout below /var/tmp, which is /tmp inside
    script = "mount -t tmpfs none /tmp 2>/dev/null && echo mounted"
    powers = {"caps": ["SYS_ADMIN"], "seccomp": False}
    tokens = [allow.Capabilities(), allow.SystemCalls()]
    held = Sandbox(**powers, allow=tokens)
    free = Sandbox(**powers, landlock=False, allow=[*tokens, allow.Unlocked()])
    assert held.run(["sh", "-c", script], capture_output=True).stdout == b""
    assert free.run(["sh", "-c", script], capture_output=True).stdout == b"mounted\n"


@pytest.fixture
def elsewhere():
    """A directory that is not below /tmp, which is writable inside."""
    checkout = Path(__file__).parents[2]
    if str(checkout).startswith(("/tmp/", "/var/tmp/")):
        pytest.skip("needs a checkout that is not below /tmp or /var/tmp")
    with tempfile.TemporaryDirectory(dir=checkout, prefix="build-") as name:
        Path(name).chmod(0o755)  # the box's ids pass it
        yield Path(name)


def with_a_lost_flag(plan, path, locked):
    """The plan with the mount of `path` writable by mistake; and, unless locked, no Landlock."""
    steps = tuple(
        evolve(step, args=(*step.args[:2], 0, *step.args[3:])) if step.args[:1] == (path,) else step
        for step in plan.steps
    )
    setup = [
        evolve(op, nums=(0,)) if op.code is OpCode.BIND and op.about == f"bind {path} on {path}"
        and op.nums else op for op in plan.setup
    ]  # fmt: skip
    kept = [op for op in setup if locked or not op.code.name.startswith("LANDLOCK")]
    return evolve(plan, steps=steps, setup=tuple(kept))


@pytest.mark.needs("landlock")
def test_landlock_holds_where_a_mount_has_lost_its_flag(elsewhere):
    """The second lock, alone; and without it the same write works."""
    shown = elsewhere
    box = Sandbox(read=[shown])
    host = probe()
    for locked in (True, False):
        session = Session(with_a_lost_flag(compile_box(box.policy, host), str(shown), locked))
        session.start()
        try:
            argv = ["sh", "-c", f"echo x > {shown}/new"]
            done = run_in(
                session, box.policy, host, argv,
                RunOptions(capture_output=True, text=True), box.env, box.cwd, last=True,
            )  # fmt: skip
        finally:
            session.close()
        assert ("Permission denied" in done.stderr) is locked, done.stderr
        assert os.listdir(shown) == ([] if locked else ["new"])


@pytest.mark.needs("landlock")
def test_programs_of_one_box_are_in_one_domain():
    with Sandbox() as box:
        sleeper = box.popen(["sleep", "60"])
        inside = box.run(["pgrep", "-x", "sleep"], capture_output=True, text=True).stdout.split()
        assert inside
        box.run(["kill", *inside], check=True)
        assert sleeper.wait(20) == -15


@pytest.mark.needs("landlock")
def test_a_sandbox_takes_rules_of_its_own(elsewhere):
    shown = elsewhere
    (shown / "a").write_text("a")
    box = Sandbox(
        read=[shown],
        landlock=Landlock(read=["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/proc"]),
    )
    done = box.run(["cat", shown / "a"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert Sandbox(read=[shown]).run(["cat", shown / "a"], capture_output=True).stdout == b"a"


def test_what_needs_more_than_the_host_is_refused_by_name():
    old = evolve(probe(), landlock=2)
    with pytest.raises(HostLacks, match="not enforced: truncate, ioctl_dev") as caught:
        compile_box(Policy(Landlock(write=["/tmp"])), old)
    assert caught.value.what == "landlock"
    weak = compile_box(Policy(Landlock(write=["/tmp"], scope="signal"), weaken={"landlock"}), old)
    [held] = [g for g in weak.guarantees if g.name == "landlock"]
    assert held.verdict == "weakened"
    assert held.by.endswith("not enforced: truncate, ioctl_dev, signal")


@pytest.mark.needs("landlock")
def test_a_program_is_started_with_the_files_it_needs_alone(tmp_path):
    rules = Landlock.for_program("/bin/cat", read=[tmp_path], level=min(LEVEL, 5))
    (tmp_path / "text").write_text("shown")
    assert bare([rules], ["/bin/cat", tmp_path / "text"]).stdout == "shown"
    refused = bare([rules], ["/bin/cat", "/etc/passwd"])
    assert (refused.returncode, "Permission denied" in refused.stderr) == (1, True)
    assert "/etc" not in rules.read


@pytest.mark.needs("landlock")
def test_a_script_brings_its_interpreter(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho here\n")
    script.chmod(0o755)
    rules = Landlock.for_program(script, level=min(LEVEL, 5))
    assert bare([rules], [script]).stdout == "here\n"
    (tmp_path / "text").write_text("text")
    with pytest.raises(PolicyError, match="neither"):
        Landlock.for_program(tmp_path / "text")


def test_the_machine_is_asked_for_its_level():
    assert (LEVEL > 0) is not bool(probe().landlock_why)
