"""Programs with a terminal: of the box's own, theirs to control, and nothing of the host's."""

import fcntl
import io
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

import isolate
from isolate import (
    Chroot,
    Exited,
    HostLacks,
    Killed,
    Mount,
    Namespace,
    PolicyError,
    Sandbox,
    TimedOut,
    allow,
)

WAIT = 20.0


def until(terminal, pattern, seen=b""):
    """Read until the pattern is there; all that was read."""
    end = time.monotonic() + WAIT
    while not re.search(pattern, seen):
        left = end - time.monotonic()
        assert left > 0, seen
        if select.select([terminal], [], [], left)[0]:
            data = terminal.read(4096)
            assert data, seen
            seen += data
    return seen


def everything(terminal):
    """Read to the end."""
    seen = b""
    while data := terminal.read(4096):
        seen += data
    return seen


def output(script, pty=True, **options):
    """What a script writes to its terminal; lines."""
    with Sandbox(**options).popen(["/bin/sh", "-c", script], pty=pty) as program:
        seen = everything(program.pty)
        assert program.wait(WAIT) == 0, seen
    return seen.decode().replace("\r\n", "\n").split("\n")[:-1]


def test_all_three_streams_are_the_terminal():
    lines = output("for n in 0 1 2; do test -t $n && readlink /proc/self/fd/$n; done; tty")
    assert lines == ["/dev/pts/0"] * 4


def test_an_interactive_shell_takes_what_is_typed():
    with Sandbox(env={"PS1": "> "}).popen(["/bin/sh", "-i"], pty=True) as program:
        until(program.pty, rb"> ")
        program.pty.write(b"echo $((6 * 7))\n")
        until(program.pty, rb"\n42\r\n> ")
        program.pty.write(b"stty size\n")
        until(program.pty, rb"\n24 80\r\n> ")
        program.pty.write(b"exit 5\n")
        assert program.wait(WAIT) == 5
        assert program.outcome == Exited(5)
        assert everything(program.pty).endswith(b"exit 5\r\n")


def test_job_control_works_so_the_terminal_controls_it():
    """An interactive shell would say "can't access tty; job control turned off"."""
    with Sandbox(env={"PS1": "> "}).popen(["/bin/bash", "--norc", "-i"], pty=True) as program:
        seen = until(program.pty, rb"> ")
        assert b"job control" not in seen
        program.pty.write(b"sleep 60\n")
        time.sleep(0.3)
        program.pty.write(b"\x1a")  # Ctrl-Z
        until(program.pty, rb"Stopped +sleep 60")
        program.pty.write(b"fg\n")
        time.sleep(0.3)
        program.pty.write(b"\x03")  # Ctrl-C
        program.pty.write(b"echo code $?\n")
        until(program.pty, rb"code 130[\s\S]*?> ")  # the prompt: only then it reads keys
        program.pty.write(b"\x04")  # Ctrl-D
        assert program.wait(WAIT) == 130 or program.returncode == 0


def test_control_c_is_a_signal_for_the_program():
    with Sandbox().popen(["/bin/sleep", "60"], pty=True) as program:
        time.sleep(0.2)
        program.pty.write(b"\x03")
        assert program.wait(WAIT) == -signal.SIGINT
        assert program.outcome == Killed(signal.SIGINT)


@pytest.mark.parametrize(("pty", "size"), [(True, "24 80"), ((50, 132), "50 132"), ([1, 1], "1 1")])
def test_the_window_has_the_size_that_was_asked_for(pty, size):
    assert output("stty size", pty) == [size]


def test_a_new_size_is_told_by_a_signal():
    script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    with Sandbox().popen(["/bin/sh", "-c", script], pty=(10, 20)) as program:
        until(program.pty, rb"ready")
        assert program.pty.size == (10, 20)
        program.resize(33, 44)
        until(program.pty, rb"33 44\r\n")
        assert program.pty.size == (33, 44)
        assert program.wait(WAIT) == 0


def test_the_program_owns_its_terminal():
    assert output("stat -c %u:%g /dev/pts/0; echo x > /dev/tty; echo y > /dev/pts/0") == [
        "1000:1000" if os.geteuid() == 0 else output("stat -c %u:%g /dev/pts/0")[0],
        "x",
        "y",
    ]


def test_two_programs_of_a_box_have_two_terminals():
    with Sandbox() as box, box.popen(["/bin/cat"], pty=True) as first:
        with box.popen(["/bin/sh", "-c", "tty; ls /dev/pts"], pty=True) as second:
            assert everything(second.pty).split() == [b"/dev/pts/1", b"0", b"1", b"ptmx"]
        first.pty.write(b"typed\n")
        until(first.pty, rb"typed\r\ntyped\r\n")


def test_the_terminal_is_not_the_hosts():
    before = sorted(os.listdir("/dev/pts"))
    with Sandbox().popen(["/bin/cat"], pty=True) as program:
        assert sorted(os.listdir("/dev/pts")) == before
        assert os.fstat(program.pty.fileno()).st_dev != os.stat("/dev/pts").st_dev
        assert not os.get_inheritable(program.pty.fileno())


def test_typing_into_a_terminal_from_inside_is_refused():
    """TIOCSTI: what is pushed there would be read as typed, by whoever reads the terminal next."""
    script = (
        "import fcntl, termios\n"
        "for number in (termios.TIOCSTI, 0x541C, 0x5423):\n"
        "    try:\n"
        "        fcntl.ioctl(0, number, b'x' * 8)\n"
        "        print('done')\n"
        "    except OSError as error:\n"
        "        print(error.errno)\n"
    )
    with Sandbox().popen([sys.executable, "-c", script], pty=True) as program:
        assert everything(program.pty).split() == [b"1"] * 3


def test_the_end_of_the_block_hangs_up():
    with Sandbox() as box:
        with box.popen(["/bin/sleep", "60"], pty=True) as program:
            assert program.poll() is None
        assert program.returncode == -signal.SIGHUP
        assert program.pty.closed
        assert box.run(["/bin/true"]).returncode == 0


def test_a_timeout_ends_a_program_with_a_terminal():
    with Sandbox().popen(["/bin/cat"], pty=True, timeout=0.5) as program:
        assert program.wait(WAIT) == -9
        assert program.outcome == TimedOut(0.5)
        assert everything(program.pty) == b""


def test_a_program_that_ends_at_once_still_has_its_output():
    for _ in range(10):
        with Sandbox().popen(["/bin/echo", "last words"], pty=True) as program:
            assert program.wait(WAIT) == 0
            assert everything(program.pty) == b"last words\r\n"


def test_our_end_is_a_file():
    with Sandbox().popen(["/bin/cat"], pty=True) as program:
        assert isinstance(program.pty, io.RawIOBase)
        assert program.pty.isatty()
        assert program.pty.readable()
        assert program.pty.writable()
        settings = termios.tcgetattr(program.pty.fileno())
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(program.pty.fileno(), termios.TCSANOW, settings)
        program.pty.write(b"once\n")
        assert until(program.pty, rb"once\r\n") == b"once\r\n"
        assert (program.stdin, program.stdout, program.stderr) == (None, None, None)
    with pytest.raises(ValueError, match="closed"):
        program.pty.fileno()
    program.pty.close()


def test_a_large_output_comes_whole():
    count = 20_000
    with Sandbox().popen(["/usr/bin/seq", str(count)], pty=True) as program:
        seen = everything(program.pty)
    assert seen.replace(b"\r\n", b"\n").split() == [str(n).encode() for n in range(1, count + 1)]


def test_named_descriptors_go_along_with_a_terminal():
    read_fd, write_fd = os.pipe()
    try:
        argv = [sys.executable, "-c", f"import os; os.write({write_fd}, os.ttyname(0).encode())"]
        with Sandbox().popen(argv, pty=True, pass_fds=[write_fd]) as program:
            assert program.wait(WAIT) == 0
        assert os.read(read_fd, 100) == b"/dev/pts/0"
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_the_module_popen_has_terminals_too():
    with Sandbox(), isolate.Popen(["/bin/sh", "-c", "tty"], pty=True) as program:
        assert everything(program.pty) == b"/dev/pts/0\r\n"


def test_a_type_is_set_unless_the_caller_sets_it():
    assert output("echo $TERM") == ["xterm"]
    assert output("echo $TERM", env={"TERM": "vt100"}) == ["vt100"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pty": True, "stdin": subprocess.PIPE}, "stdin"),
        ({"pty": True, "stdout": subprocess.PIPE}, "stdout"),
        ({"pty": True, "stderr": subprocess.STDOUT}, "stderr"),
        ({"pty": True, "text": True}, "text"),
        ({"pty": True, "encoding": "utf-8"}, "encoding"),
        ({"pty": 3}, "rows"),
        ({"pty": (0, 80)}, "rows"),
        ({"pty": (24, 65536)}, "rows"),
        ({"pty": (24.0, 80)}, "rows"),
        ({"pty": "24x80"}, "rows"),
    ],
)
def test_what_does_not_go_with_a_terminal_is_refused(options, words):
    with pytest.raises(PolicyError, match=words):
        Sandbox().popen(["/bin/true"], **options)


def test_output_can_not_be_counted_through_a_terminal():
    with pytest.raises(PolicyError, match="output="):
        Sandbox(output="1M").popen(["/bin/true"], pty=True)


def test_a_program_without_a_terminal_has_none_to_resize():
    with Sandbox().popen(["/bin/true"]) as program:
        assert program.pty is None
        with pytest.raises(PolicyError, match="pty="):
            program.resize(1, 1)


def test_a_box_without_a_devpts_of_its_own_has_no_terminals():
    bare = Namespace(user=os.geteuid() != 0, uts=True)
    with bare, pytest.raises(HostLacks, match=r"Mount\.dev"):
        isolate.Popen(["/bin/true"], pty=True)
    root = Chroot("/", mounts=[Mount.tmpfs("/tmp")])
    with pytest.raises(HostLacks, match=r"Mount\.dev"):
        Sandbox(root).popen(["/bin/true"], pty=True)


@pytest.mark.needs("root")
def test_a_box_that_shares_the_hosts_mounts_has_no_terminals():
    box = Sandbox(mount=False, allow=[allow.HostMount()])
    with pytest.raises(HostLacks, match="devpts"):
        box.popen(["/bin/true"], pty=True)


def test_a_closed_terminal_is_the_programs_end_of_input():
    with Sandbox() as box:
        program = box.popen(["/bin/sh", "-c", "trap '' HUP; cat; echo x; exit 7"], pty=True)
        until_started = time.monotonic() + WAIT
        program.pty.write(b"a\n")
        until(program.pty, rb"a\r\na\r\n")
        assert time.monotonic() < until_started
        program.pty.close()
        assert program.wait(WAIT) in (7, 1, 2)


def test_the_masters_of_others_stay_out_of_reach():
    """A program sees no descriptor of a master, of its own terminal or another's."""
    with Sandbox() as box, box.popen(["/bin/cat"], pty=True) as other:
        argv = ["/bin/sh", "-c", "for f in /proc/[0-9]*/fd/*; do readlink $f; done"]
        with box.popen(argv, pty=True) as program:
            assert b"ptmx" not in everything(program.pty)
        assert fcntl.fcntl(other.pty.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
