"""The default filter and others, in real boxes, against programs that try."""

import os
import signal
import subprocess
import sys

import pytest

import isolate
from isolate import (
    Arg,
    Errno,
    HostLacks,
    Killed,
    PolicyError,
    Rule,
    Sandbox,
    SeccompFilter,
    Violated,
    allow,
    run,
)
from isolate.abi.syscalls import numbers
from isolate.policy.rules import KILL_PROCESS
from isolate.policy.seccomp_default import REFUSED

CALL = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    value = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(a & (1 << 64) - 1) for a in args))
    return value, ctypes.get_errno()
"""
TABLE = numbers(os.uname().machine)


def python(script, sandbox=None, **options):
    sandbox = sandbox or Sandbox()
    argv = [sys.executable, "-c", CALL + script]
    return sandbox.run(argv, capture_output=True, text=True, timeout=60, **options)


def test_every_call_that_the_default_refuses_is_refused():
    """With arguments that do nothing if it is let through: EPERM comes before the kernel looks."""
    wanted = {
        name: TABLE[name]
        for calls, _ in REFUSED.values()
        for name in calls.split()
        if name in TABLE
    }
    script = f"for name, nr in {wanted!r}.items(): print(name, *call(nr, -1, -1, -1, -1, -1, -1))"
    done = python(script)
    assert done.stderr == ""
    answers = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert answers == dict.fromkeys(wanted, "-1 1")
    assert len(answers) > 70


def test_arguments_are_looked_at():
    lines = {
        "clone(CLONE_NEWUSER)": (TABLE["clone"], [0x10000000 | 17, 0, 0, 0, 0], 1),
        "clone3": (TABLE["clone3"], [0, 0], 38),
        "TIOCSTI": (TABLE["ioctl"], [0, 0x5412, 0], 1),
        "TIOCSTI with upper bits": (TABLE["ioctl"], [0, 0x5412 | 1 << 32, 0], 1),
        "TIOCLINUX": (TABLE["ioctl"], [0, 0x541C, 0], 1),
        "AF_PACKET": (TABLE["socket"], [17, 3, 0], 1),
        "AF_ALG": (TABLE["socket"], [38, 5, 0], 1),
        "AF_VSOCK": (TABLE["socket"], [40, 1, 0], 1),
        "NETLINK_AUDIT": (TABLE["socket"], [16, 3, 9], 1),
        "SCTP": (TABLE["socket"], [2, 1, 132], 1),
        "personality(ADDR_NO_RANDOMIZE)": (TABLE["personality"], [0x40000], 1),
        "a number of the future": (1000, [], 38),
    }
    calls = {name: (nr, args) for name, (nr, args, _) in lines.items()}
    script = f"for name, (nr, a) in {calls!r}.items(): print(name, *call(nr, *a), sep='|')"
    done = python(script)
    found = {line.split("|")[0]: line.split("|")[1:] for line in done.stdout.splitlines()}
    assert found == {name: ["-1", str(code)] for name, (_, _, code) in lines.items()}, done.stderr


def test_status_says_that_a_filter_is_there():
    text = python("print(open('/proc/self/status').read())").stdout
    assert "Seccomp:\t2" in text
    assert "NoNewPrivs:\t1" in text


INT80 = r"""
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	long got = 0;
	if (argc > 1)
		got = syscall(0x40000000 | 39); /* getpid by x32 */
	else
		__asm__ volatile("int $0x80" : "=a"(got) : "a"(20)); /* i386 getpid */
	printf("let through: %ld\n", got);
	return 0;
}
"""


@pytest.mark.needs("gcc", "x86_64")
@pytest.mark.parametrize("way", [[], ["x32"]])
def test_foreign_calls_are_killed(way):
    """And told, where somebody listens; else the kernel kills without a word about the call."""
    script = f"gcc -o /tmp/foreign /tmp/foreign.c && exec /tmp/foreign {' '.join(way)}"
    for silent in (False, True):
        only = SeccompFilter.default(silent=silent)
        box = Sandbox(files={"foreign.c": INT80}, seccomp=only)
        done = box.run(["/bin/sh", "-c", script], capture_output=True, timeout=60)
        assert done.stdout == b"", done
        assert done.returncode == -signal.SIGSYS
        assert done.outcome == Violated(None if silent else "getpid", (), "seccomp")
        seen = [(each.abi, each.syscall, each.action) for each in done.violations]
        told = ("x32" if way else "i386", "getpid", KILL_PROCESS)
        assert seen == ([] if silent else [told])


WORK = {
    "threads": """
import threading
t = threading.Thread(target=print, args=('ok',)); t.start(); t.join()
""",
    "subprocess": "import subprocess; subprocess.run(['/bin/echo', 'ok'], check=True)",
    "asyncio": """
import asyncio
async def main():
    server = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1', 0)
    await asyncio.open_connection(*server.sockets[0].getsockname())
    p = await asyncio.create_subprocess_exec('/bin/true')
    assert await p.wait() == 0
    print('ok')
asyncio.run(main())
""",
    "unix sockets": """
import socket
a, b = socket.socketpair(); a.send(b'ok'); print(b.recv(9).decode())
""",
    "names": """
import socket
assert socket.if_nameindex(); socket.getaddrinfo('127.0.0.1', 80); print('ok')
""",
    "files": """
import os, tempfile, shutil, mmap, fcntl
d = tempfile.mkdtemp(); p = d + '/x'; open(p, 'w').write('x')
os.chmod(p, 0o600); os.link(p, p + 'y')
with open(p, 'r+b') as f: fcntl.flock(f, fcntl.LOCK_EX); mmap.mmap(f.fileno(), 1)
os.mkfifo(d + '/fifo'); shutil.rmtree(d); print('ok')
""",
    "resource": "import resource; resource.prlimit(0, resource.RLIMIT_NOFILE); print('ok')",
}


@pytest.mark.parametrize("name", WORK)
def test_ordinary_work_passes(name):
    done = python(WORK[name])
    assert (done.stdout, done.stderr) == ("ok\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_passes(method):
    script = f"""
import multiprocessing, sys
def square(n): return n * n
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool: print(pool.map(square, range(4)))
"""
    box = Sandbox(files={"main.py": script})
    done = box.run([sys.executable, "/tmp/main.py"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 1, 4, 9]\n", "")


def test_a_filter_of_ones_own_adds_to_the_default():
    box = Sandbox(seccomp=SeccompFilter.deny("mkdir", "mkdirat", action=Errno("EROFS")))
    script = f"""
import os
try: os.mkdir('/tmp/x')
except OSError as error: print(error.errno)
print(call({TABLE["mount"]}, 0, 0, 0, 0, 0))
"""
    assert python(script, box).stdout == "30\n(-1, 1)\n"


def test_a_killing_rule_is_told_as_a_violation():
    box = Sandbox(seccomp=SeccompFilter.deny(Rule("sync", KILL_PROCESS)))
    done = python("import os; os.sync(); print('not reached')", box)
    assert done.outcome == Violated("sync", (), "seccomp")
    assert done.stdout == ""


def test_an_argument_rule_decides():
    quiet = SeccompFilter.deny(Rule("kill", Errno("ESRCH"), (Arg(1, width=32) == 9,)))
    script = """
import os
os.kill(os.getpid(), 0)
try: os.kill(os.getpid(), 9)
except ProcessLookupError: print('refused')
os.kill(os.getpid(), 15)
"""
    done = python(script, Sandbox(seccomp=quiet))
    assert done.stdout == ""  # SIGTERM came before a flush
    assert done.outcome == Killed(15)
    flushed = python(script.replace("print('refused')", "print('refused', flush=True)"),
                     Sandbox(seccomp=quiet))  # fmt: skip
    assert flushed.stdout == "refused\n"


def test_a_bare_filter_does_just_that():
    with SeccompFilter.deny("uname", action=Errno("EPERM")):
        done = run(["/bin/uname"], capture_output=True)
    assert done.returncode == 1
    with SeccompFilter.deny("mkdir"):
        done = run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True)
    assert "Seccomp_filters:\t1" in done.stdout
    assert f"Uid:\t{os.getuid()}\t" in done.stdout


def test_without_the_default_needs_its_token():
    with pytest.raises(PolicyError, match="SystemCalls"):
        Sandbox(seccomp=False)
    with pytest.raises(PolicyError, match="SeccompFilter"):
        Sandbox(seccomp="docker")
    box = Sandbox(seccomp=False, allow=[allow.SystemCalls()])
    assert "Seccomp:\t0" in python("print(open('/proc/self/status').read())", box).stdout


def test_a_call_is_under_the_filter_too():
    def attempt():
        try:
            os.unshare(0x10000000)  # Python 3.12 has it
        except AttributeError:
            import ctypes

            libc = ctypes.CDLL(None, use_errno=True)
            libc.unshare(0x10000000)
            return ctypes.get_errno()
        except OSError as error:
            return error.errno

    assert Sandbox().call(attempt) == 1


def test_guarantees_say_so():
    done = Sandbox().run(["/bin/true"])
    assert [each.verdict for each in done.guarantees if each.name == "seccomp"] == ["enforced"]


def test_a_thousand_refusals_cost_nothing():
    script = f"for _ in range(100_000): call({TABLE['bpf']}, 0, 0, 0)\nprint('done')"
    assert python(script).stdout == "done\n"


def test_a_nested_box_says_what_is_missing():
    """Inside a box no further one can be made: a clear error, never a bare EPERM."""
    where = os.path.dirname(os.path.dirname(isolate.__file__))
    script = f"""
import sys; sys.path.insert(0, {where!r})
from isolate import Sandbox, IsolateError
try: Sandbox().run(['/bin/true'])
except IsolateError as error: print(type(error).__name__, error)
"""
    argv = [sys.executable, "-c", script]
    done = Sandbox().run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(("LaunchError", HostLacks.__name__)), done
    assert "namespace" in done.stdout


def test_the_callers_own_process_has_no_filter():
    with SeccompFilter.deny("mkdir"):
        run(["/bin/true"])
    text = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
    own = open("/proc/self/status").read()
    assert text.split("Seccomp:")[1].split()[0] == own.split("Seccomp:")[1].split()[0]
