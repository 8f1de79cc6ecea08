"""A stranger's programs against the filter and its supervisor: nothing passes, and it is told.

One C program, `attack.c`, with a word for each trick; each test says what the trick is, what the
program must be told, and what the caller must see.
"""

import os
import resource
import signal
import subprocess
import sys
import threading

import pytest

import isolate
from isolate import Errno, Exited, Killed, Rule, Sandbox, SeccompFilter, Violated
from isolate.abi.syscalls import numbers
from isolate.policy.rules import KILL_PROCESS, Action
from tests.live.helpers import reclaimed

TABLE = numbers(os.uname().machine)
pytestmark = pytest.mark.needs("gcc", "x86_64")

SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[64] = "/aaaa";
static volatile int stop;

static long i386(long n, long b, long c)
{
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(b), "c"(c) : "memory");
	return r;
}

static void say(long got)
{
	printf("%ld %d\n", got, got == -1 ? errno : 0);
	fflush(stdout);
}

static void *flood(void *count)
{
	for (long i = 0; i < (long)count; i++)
		if (syscall(SYS_acct, "/x") != -1 || errno != EPERM)
			abort();
	return NULL;
}

static void *toggle(void *unused)
{
	while (!stop) {
		strcpy(path, "/aaaa");
		strcpy(path, "/bbbb");
	}
	return unused;
}

static void nothing(int unused)
{
	(void)unused;
}

static void hurry(void)
{
	struct sigaction act = {.sa_handler = nothing};
	struct itimerval often = {{0, 50}, {0, 50}};
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

/* Install a filter that answers one call, or all (-1), and allows the rest. */
static long filter(int number, unsigned answer, unsigned flags)
{
	struct sock_filter code[] = {
		{0x20, 0, 0, 0}, {0x15, 0, 1, (unsigned)number}, {6, 0, 0, answer}, {6, 0, 0, 0x7fff0000}};
	struct sock_fprog program = {4, code};
	return syscall(SYS_seccomp, 1, flags, &program);
}

static void child(long (*work)(void))
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		work();
		_exit(7);
	}
	waitpid(pid, &status, 0);
	int by = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	printf("child %d %d\n", by, by ? 0 : WEXITSTATUS(status));
}

static long work80(void)
{
	return i386(20, 0, 0);
}

static long work32(void)
{
	return syscall(0x40000000 | 39);
}

static void *thread80(void *unused)
{
	i386(20, 0, 0);
	return unused;
}

int main(int argc, char **argv)
{
	const char *way = argv[1];
	long n = argc > 2 ? atol(argv[2]) : 0;
	pthread_t t[8];

	if (!strcmp(way, "personality")) {
		say(personality(PER_LINUX32));
		say(personality(ADDR_NO_RANDOMIZE));
		say(personality(0xffffffff));
	} else if (!strcmp(way, "flood")) {
		for (int i = 0; i < 8; i++)
			pthread_create(&t[i], NULL, flood, (void *)n);
		for (int i = 0; i < 8; i++)
			pthread_join(t[i], NULL);
		puts("done");
	} else if (!strcmp(way, "toggle")) {
		long through = 0;
		pthread_create(&t[0], NULL, toggle, NULL);
		for (long i = 0; i < n; i++)
			through += syscall(SYS_chroot, path) != -1;
		stop = 1;
		printf("%ld\n", through);
	} else if (!strcmp(way, "interrupted")) {
		long through = 0;
		hurry();
		for (long i = 0; i < n; i++)
			through += syscall(SYS_acct, "/x") != -1;
		printf("%ld\n", through);
	} else if (!strcmp(way, "interrupted80")) {
		hurry();
		for (long i = 0; i < n; i++)
			if (i386(20, 0, 0) > 0)
				puts("let through");
	} else if (!strcmp(way, "child80")) {
		child(work80);
	} else if (!strcmp(way, "child32")) {
		child(work32);
	} else if (!strcmp(way, "thread80")) {
		pthread_create(&t[0], NULL, thread80, NULL);
		pthread_join(t[0], NULL);
		puts("on");
	} else if (!strcmp(way, "vfork")) {
		int status;
		pid_t pid = vfork();
		if (pid == 0) {
			syscall(SYS_acct, "/x");
			_exit(errno);
		}
		waitpid(pid, &status, 0);
		printf("%d\n", WEXITSTATUS(status));
	} else if (!strcmp(way, "looser")) {
		say(filter(-1, 0x7fff0000, 0));
		say(syscall(SYS_acct, "/x"));
	} else if (!strcmp(way, "trace")) {
		say(filter(SYS_acct, 0x7ff00000, 0));
		say(syscall(SYS_acct, "/x"));
	} else if (!strcmp(way, "log")) {
		say(filter(SYS_acct, 0x7ffc0000, 0));
		say(syscall(SYS_acct, "/x"));
	} else if (!strcmp(way, "milder")) {
		say(filter(SYS_acct, 0x7fc00000, 0)); /* notify, with no listener: ENOSYS */
		say(syscall(SYS_acct, "/x"));
	} else if (!strcmp(way, "listener")) {
		say(filter(SYS_acct, 0x7fc00000, 8));
		say(filter(SYS_acct, 0x7fc00000, 8 | 32));
		say(filter(SYS_acct, 0x7fc00000, 8 | 1 | 16));
		say(syscall(SYS_acct, "/x"));
	} else if (!strcmp(way, "own kill")) {
		filter(SYS_getppid, 0x80000000, 0);
		syscall(SYS_getppid);
		puts("on");
	} else if (!strcmp(way, "own errno")) {
		say(filter(SYS_getppid, 0x00050000 | 77, 0));
		say(syscall(SYS_getppid));
	} else if (!strcmp(way, "user namespace")) {
		say(syscall(SYS_unshare, 0x10000000));
		say(syscall(SYS_clone, 0x10000000 | SIGCHLD, 0, 0, 0, 0));
		say(syscall(435, 0, 0)); /* clone3 */
		say(syscall(SYS_setns, 0, 0x10000000));
		say(syscall(SYS_clone, 0x110000000 | SIGCHLD, 0, 0, 0, 0));
	} else if (!strcmp(way, "sigsys")) {
		raise(SIGSYS);
	} else if (!strcmp(way, "numbers")) {
		for (long number = 462; number < 600; number++)
			if (syscall((int)number, -1, -1, -1, -1, -1, -1) != -1)
				printf("%ld passed\n", number);
		say(syscall(-1 & 0x3fffffff));
	} else if (!strcmp(way, "call")) {
		say(syscall(n, -1, -1, -1, -1, -1, -1));
	}
	fflush(stdout);
	return 0;
}
"""


@pytest.fixture(scope="module")
def attack(tmp_path_factory):
    """The program, where a box may read it."""
    folder = tmp_path_factory.mktemp("attack", numbered=True)
    source, target = folder / "attack.c", folder / "attack"
    source.write_text(SOURCE)
    command = ["gcc", "-O1", "-pthread", "-o", target, source]
    subprocess.run(command, check=True, capture_output=True)
    for each in (folder, *folder.parents):
        if each.stat().st_uid == os.getuid() and each != each.parent and "pytest" in str(each):
            each.chmod(0o755)
    return str(target)


def run(attack, *words, seccomp=None, **short):
    given = {} if seccomp is None else {"seccomp": seccomp}
    box = Sandbox(files={"attack": open(attack, "rb").read()}, **given, **short)
    argv = ["/bin/sh", "-c", 'cp /tmp/attack /tmp/run; chmod 755 /tmp/run; exec /tmp/run "$@"', "-"]
    return box.run([*argv, *words], capture_output=True, text=True, timeout=100)


def counts(done):
    """call -> how often it was refused."""
    found = {}
    for each in done.violations:
        found[each.syscall] = found.get(each.syscall, 0) + each.count
    return found


# -- other ABIs


@pytest.mark.parametrize("way", ["child80", "child32"])
def test_a_child_of_another_abi_ends_alone_and_is_told(attack, way):
    """As by the kernel's own kill: who only tries whether such a program runs goes on."""
    done = run(attack, way)
    assert (done.stdout, done.outcome) == ("child 9 0\n", Exited(0)), done
    (only,) = done.violations
    assert (only.abi, only.syscall) == ("i386" if way == "child80" else "x32", "getpid")
    assert only.action == KILL_PROCESS
    assert str(only).startswith(f"{only.abi}: getpid()")


def test_under_a_lethal_policy_such_a_child_ends_the_program(attack):
    done = run(attack, "child80", seccomp=SeccompFilter.default(lethal=True))
    assert done.stdout == ""
    assert done.outcome == Violated("getpid", (), "seccomp")


def test_where_the_kernel_kills_a_child_dies_of_the_same_and_nothing_is_told(attack):
    trap = SeccompFilter.deny(Rule("sync", Action("trap")))
    done = run(attack, "child80", seccomp=trap)
    assert (done.stdout, done.outcome) == (f"child {signal.SIGSYS.value} 0\n", Exited(0))
    assert done.violations == ()


def test_a_thread_of_another_abi_takes_its_process_along(attack):
    done = run(attack, "thread80")
    assert done.stdout == ""
    assert done.outcome == Violated("getpid", (), "seccomp")


def test_signals_do_not_get_a_foreign_call_through(attack):
    """A timer of 50 us: the call may be interrupted before anybody looked, and is made by none."""
    done = run(attack, "interrupted80", "2000")
    assert "let through" not in done.stdout
    assert done.outcome in (Violated("getpid", (), "seccomp"), Exited(0))


def test_a_call_by_x32_ends_a_python_call_and_is_named():
    def cross():
        import ctypes

        return ctypes.CDLL(None).syscall(0x40000000 | 39)

    def apart():
        import subprocess
        import sys

        code = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 39)"
        return subprocess.run([sys.executable, "-c", code]).returncode

    with Sandbox() as box:
        with pytest.raises(isolate.SandboxViolation, match="getpid"):
            box.call(cross)
        assert box.call(apart) == -signal.SIGKILL  # that process, and not who asked for it
        assert box.call(len, [1]) == 1
        seen = {(each.abi, each.syscall) for each in box.violations}
    assert seen == {("x32", "getpid")}


def test_personalities_that_change_the_abi_or_the_layout_are_refused(attack):
    done = run(attack, "personality")
    assert done.stdout == "-1 1\n-1 1\n0 0\n"
    assert [each.decoded for each in done.violations] == [
        ("persona=0x8",),
        ("persona=0x40000",),
    ]


def test_numbers_that_no_kernel_of_ours_knows_are_unknown(attack):
    done = run(attack, "numbers")
    known = {name for name, number in TABLE.items() if number >= 462}
    assert "passed" not in done.stdout
    assert done.stdout.endswith("-1 38\n")
    assert set(counts(done)) <= known | {"others"}  # questions about newer kernels are no refusals


# -- floods and memory that changes


def test_eight_threads_that_are_refused_cost_the_caller_nothing_that_grows(attack):
    first = run(attack, "flood", "100")  # what the first one makes stays
    assert first.stdout == "done\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = run(attack, "flood", "10000")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert done.stdout == "done\n", done
    assert counts(done) == {"acct": 80000}
    assert len(done.violations) == 1
    assert grown < 8000, grown  # KiB


def test_a_path_that_another_thread_changes_is_refused_whatever_it_is(attack):
    done = run(attack, "toggle", "3000")
    assert done.stdout == "0\n"
    assert counts(done) == {"chroot": 3000}


def test_signals_do_not_get_a_refused_call_through(attack):
    """Calls that are interrupted before the supervisor looked are not counted; none is made."""
    done = run(attack, "interrupted", "3000")
    assert done.stdout == "0\n"
    assert 0 < counts(done)["acct"] <= 3000


def test_a_handler_that_reads_a_changing_path_decides_by_its_own_copy(attack):
    """It denies one name and gives a value for the other: the call is never made for either."""
    seen = set()

    def handler(call):
        path = call.string(0)
        seen.add(path)
        return isolate.Answer.value(0) if path == b"/aaaa" else isolate.Answer.deny()

    wide = isolate.allow.SystemCalls()
    wanted = SeccompFilter.on("chroot", handler, timeout=20)
    done = run(attack, "toggle", "300", seccomp=wanted, allow=[wide])
    assert 0 <= int(done.stdout) <= 300
    assert seen & {b"/aaaa", b"/bbbb"}
    assert all(len(each) <= 63 for each in seen)
    told = sum(each.count for each in done.violations if each.handled)
    assert told == 300 - int(done.stdout)


# -- filters of the program's own


@pytest.mark.parametrize(
    ("way", "answers"),
    [
        ("looser", "0 0\n-1 1\n"),
        ("trace", "0 0\n-1 1\n"),
        ("log", "0 0\n-1 1\n"),
        ("milder", "0 0\n-1 38\n"),
        ("own errno", "0 0\n-1 77\n"),
    ],
)
def test_a_filter_of_its_own_only_narrows(attack, way, answers):
    done = run(attack, way)
    assert done.stdout == answers
    assert done.outcome == Exited(0)


def test_a_listener_of_its_own_is_refused_whatever_the_flags(attack):
    done = run(attack, "listener")
    assert done.stdout == "-1 16\n-1 16\n-1 16\n-1 1\n"


def test_what_a_filter_of_its_own_kills_is_a_violation_without_a_name(attack):
    done = run(attack, "own kill")
    assert done.stdout == ""
    assert done.outcome == Violated(None, (), "seccomp")


def test_no_user_namespace_by_any_way(attack):
    done = run(attack, "user namespace")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["-1 1", "-1 1"]
    assert lines[2] == "-1 38"  # clone3 is not there
    assert lines[3] == "-1 1"
    assert lines[4] == "-1 1"  # an upper half that the kernel drops changes nothing
    assert counts(done) == {"unshare": 1, "clone": 2, "setns": 1}


def test_a_child_of_vfork_is_refused_and_told(attack):
    done = run(attack, "vfork")
    assert done.stdout == "1\n"
    (only,) = done.violations
    assert only.syscall == "acct"


# -- the supervisor ends first

HOST = """
import sys, threading, time
sys.path.insert(0, {where!r})
from isolate import Answer, Sandbox, SeccompFilter

def think(call):
    print("asked", flush=True)
    time.sleep(60)
    return Answer.value(0)

box = Sandbox(seccomp=SeccompFilter.on("mkdirat", think, timeout=60))
code = '''
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
got = libc.mkdirat(-100, b"/tmp/made", 0o755)
print("answer", got, ctypes.get_errno(), os.path.exists("/tmp/made"), flush=True)
'''
box.run([sys.executable, "-c", code], timeout=60)
"""


def test_a_call_that_waits_when_the_supervisor_is_killed_is_never_made():
    """Its listener closes: the kernel says ENOSYS, if the box's end leaves it the time to hear."""
    where = os.path.dirname(os.path.dirname(isolate.__file__))
    argv = [sys.executable, "-c", HOST.format(where=where)]
    host = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(60, host.kill)
    watchdog.start()
    try:
        assert host.stdout.readline() == "asked\n"
        host.send_signal(signal.SIGKILL)
        rest = host.stdout.read()  # to its end: everybody who could write is dead
    finally:
        watchdog.cancel()
        host.wait()
        host.stdout.close()
    assert rest in ("", "answer -1 38 False\n")
    reclaimed()


# -- outcomes


def test_a_signal_of_that_name_that_it_sends_itself_is_told_as_what_it_looks_like(attack):
    """Nothing tells it from a filter's: SIGSYS means a refused system call."""
    assert run(attack, "sigsys").outcome == Violated(None, (), "seccomp")


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        (KILL_PROCESS, Violated("acct", (0xFFFFFFFF,), "seccomp")),
        (Action("kill_thread"), Violated(None, (), "seccomp")),
        (Action("trap"), Violated(None, (), "seccomp")),
        (Errno("EROFS"), Exited(0)),
        (Errno("ENOSYS"), Exited(0)),
        (Action("log"), Exited(0)),
    ],
)
def test_each_action_ends_as_it_says(attack, action, outcome):
    number = str(TABLE["acct"])
    only = SeccompFilter.deny(Rule("acct", action))
    done = run(attack, "call", number, seccomp=only, allow=[isolate.allow.SystemCalls()])
    assert done.outcome == outcome  # -1, as the C compiler passes an int
    reported = action in (KILL_PROCESS, Errno("EROFS"))
    assert counts(done) == ({"acct": 1} if reported else {})


def test_a_killed_program_is_not_taken_for_a_violator(attack):
    done = Sandbox().run(["/bin/sh", "-c", "kill -9 $$"])
    assert done.outcome == Killed(signal.SIGKILL)
    assert done.violations == ()
