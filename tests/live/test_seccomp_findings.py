"""What the linter says of Docker's profile, tried in boxes: it gets through, and not by ours."""

import errno
import os
import sys

import pytest
from attrs import evolve

from isolate import Errno, Exited, Sandbox, SeccompFilter, Violated, allow
from isolate.abi.syscalls import numbers
from isolate.policy.rules import Action
from tests.documented import DOCUMENTED

ARCH = os.uname().machine
TABLE = numbers(ARCH)
REFUSED = 200  # no errno of the kernel's: what the filters under test refuse with
CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    value = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(a) for a in args))
    return ctypes.get_errno() if value == -1 else 0
"""


def marked(wanted):
    """The same filter, whose refusals can be told from the kernel's own."""

    def told(action):
        return Errno(REFUSED) if action == Errno("EPERM") else action

    return SeccompFilter(
        evolve(
            layer,
            default=told(layer.default),
            rules=tuple(evolve(rule, action=told(rule.action)) for rule in layer.rules),
        )
        for layer in wanted.layers
    )


def errnos(wanted, calls):
    """Each call's errno (0: it was done) in a box under a filter alone."""
    box = Sandbox(seccomp=marked(wanted), allow=[allow.SystemCalls()])
    script = f"{CALL}\nfor each in {calls!r}: print(call(*each))"
    done = box.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return [int(line) for line in done.stdout.split()]


def test_every_finding_of_dockers_profile_is_right():
    docker = SeccompFilter.docker()
    found = [f for f in docker.lint() if f.arch == ARCH and f.example]
    assert len(found) > 8
    calls = [(f.example.number, *f.example.args) for f in found]
    let_in = dict(zip(map(str, found), errnos(docker, calls), strict=True))
    assert REFUSED not in let_in.values(), let_in
    assert set(errnos(SeccompFilter.default(), calls)) == {REFUSED}


def test_every_call_of_a_finding_is_let_in_by_docker_and_not_by_the_default():
    docker = SeccompFilter.docker()
    names = sorted({
        call for f in docker.lint() if f.arch == ARCH and f.kind == "surface" for call in f.calls
    } - {"ioctl", "socket"})  # fmt: skip
    calls = [(TABLE[name], *[(1 << 64) - 1] * 6) for name in names]
    assert REFUSED not in errnos(docker, calls)
    assert set(errnos(SeccompFilter.default(), calls)) == {REFUSED}


@pytest.mark.needs("x86_64")
def test_a_family_with_an_upper_half_passes_by_dockers_profile_and_not_by_ours():
    """AF_VSOCK and AF_ALG: 38 and 40 are refused; with a bit that the kernel drops they aren't."""
    plain = [(TABLE["socket"], family, 1, 0) for family in (38, 40)]
    upper = [(number, family | 1 << 32, *rest) for number, family, *rest in plain]
    assert errnos(SeccompFilter.docker(), plain) == [REFUSED, REFUSED]
    assert REFUSED not in errnos(SeccompFilter.docker(), upper)
    assert set(errnos(SeccompFilter.default(), plain + upper)) == {REFUSED}


SOCKETCALL = r"""
#include <stdio.h>
static int arguments[3] = {40, 1, 0}; /* AF_VSOCK */
int main(void)
{
	int got;
	__asm__ volatile("int $0x80" : "=a"(got) : "a"(102), "b"(1), "c"(arguments) : "memory");
	printf("%d\n", got);
	return 0;
}
"""


@pytest.mark.needs("gcc", "x86_64")
def test_i386s_socketcall_passes_by_dockers_profile_and_not_by_ours():
    script = "gcc -no-pie -o /tmp/s /tmp/s.c && exec /tmp/s"
    box = Sandbox(
        seccomp=marked(SeccompFilter.docker()),
        allow=[allow.SystemCalls()],
        files={"s.c": SOCKETCALL},
    )
    done = box.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert int(done.stdout) not in (-REFUSED, -errno.EPERM), done
    ours = Sandbox(files={"s.c": SOCKETCALL})
    done = ours.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""


FOREIGN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		long got, number = atol(argv[i]);
		if (!strcmp(argv[1], "x32"))
			got = syscall(0x40000000 | number, 0, 0, 0, 0, 0);
		else
			__asm__ volatile("int $0x80" : "=a"(got)
				: "a"(number), "b"(0), "c"(0), "d"(0), "S"(0), "D"(0) : "memory");
		printf("%d\n", (int)got);
		fflush(stdout);
	}
	return 0;
}
"""


def foreign(wanted, way, names, arch):
    """What a C program gets that makes calls by another ABI, in a box under a filter alone."""
    box = Sandbox(seccomp=marked(wanted), allow=[allow.SystemCalls()], files={"foreign.c": FOREIGN})
    words = " ".join(str(numbers(arch)[name]) for name in names)
    script = f"gcc -o /tmp/foreign /tmp/foreign.c && exec /tmp/foreign {way} {words}"
    done = box.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split(), done.outcome


@pytest.mark.needs("gcc", "x86_64")
def test_int_0x80_and_x32_cannot_call_what_is_denied():
    """Docker's profile lets i386 in, and refuses by i386's numbers; x32 is killed by both."""
    denied = (
        "mount umount2 unshare setns bpf keyctl init_module reboot perf_event_open userfaultfd "
        "io_uring_setup pivot_root swapon"
    ).split()
    found, outcome = foreign(SeccompFilter.docker(), "int80", denied, "i386")
    assert found == [str(-REFUSED)] * len(denied)
    assert outcome == Exited(0)
    assert foreign(SeccompFilter.docker(), "int80", ["getpid"], "i386")[0] != ["-200"]
    for name, args in (("mount", (0,) * 5), ("getpid", ())):
        killed = ([], Violated(name, args, "seccomp"))  # told by its name, whatever the ABI
        assert foreign(SeccompFilter.docker(), "x32", [name], ARCH) == killed
        assert foreign(SeccompFilter.default(), "x32", [name], ARCH) == killed
        assert foreign(SeccompFilter.default(), "int80", [name], "i386") == killed


def test_what_docker_documents_as_blocked_is_refused_in_a_box():
    names = [name for name in DOCUMENTED if name in TABLE]
    calls = [(TABLE[name], *[(1 << 64) - 1] * 6) for name in names]
    answers = dict(zip(names, errnos(SeccompFilter.docker(), calls), strict=True))
    assert answers == dict.fromkeys(names, REFUSED)
    assert len(names) > 40
    some = [
        (TABLE["clone"], 0x10000000 | 17, 0, 0, 0, 0),
        (TABLE["personality"], 0x40000),
        (TABLE["socket"], 40, 1, 0),
    ]
    assert errnos(SeccompFilter.docker(), some) == [REFUSED] * 3
    assert errnos(SeccompFilter.docker(), [(TABLE["clone3"], 0, 0)]) == [errno.ENOSYS]


def test_reading_a_filter_changes_nothing():
    """disassemble, lint and compare are about the value; the box under it is as before."""
    wanted = SeccompFilter.deny("mkdir", "mkdirat", action=Errno("EROFS"))
    assert "mkdir" in wanted.disassemble()
    assert wanted.lint()
    assert wanted.compare(SeccompFilter.default())
    assert Action("errno", errno.EROFS) in {rule.action for rule in wanted.layers[0].rules}
    script = "import os\ntry: os.mkdir('/tmp/x')\nexcept OSError as e: print(e.errno)"
    done = Sandbox(seccomp=wanted).run([sys.executable, "-c", script], capture_output=True)
    assert done.stdout == b"30\n"
