"""Every system call of a launch made to fail, one at a time, as crun's own suite does it.

What comes of it is a LaunchError that names step, errno, object and primitive; and the caller's
descriptors, children, mounts and cgroups are as before.
"""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isolate import LaunchError, Mount, Namespace, Rlimit, Sandbox, run
from isolate.supervise import launch

FAULTY = Path(__file__).with_name("faulty.py")
EIO = 5
# As root the mount tree is made first, in a process of its own.
FIRST_REQUEST = (
    "make the template of the mount tree"
    if os.geteuid() == 0
    else "have isolate-init set the box up"
)
# call -> (what failed, who asked for it)
OPS = {
    "mount": ("make / private", "Chroot"),
    "fsopen": ("mount tmpfs as root", "Chroot"),
    "fsconfig": ("mount tmpfs as root", "Chroot"),
    "fsmount": ("mount tmpfs as root", "Chroot"),
    "move_mount": ("mount tmpfs as root", "Chroot"),
    "mkdirat": ("bind /", "Chroot"),
    "symlinkat": ("link /", "Chroot"),
    "pivot_root": ("pivot_root", "Chroot"),
    "umount2": ("pivot_root", "Chroot"),
    "fchdir": ("pivot_root", "Chroot"),
    "getcwd": ("pivot_root", "Chroot"),
    "chdir": ("pivot_root", "Chroot"),
    "sethostname": ("set hostname sandbox", "Namespace"),
    "keyctl": ("join a new session keyring", "Identity"),
    "setsid": ("start a session", "launch"),
    "dup3": ("put control at descriptor 3", "launch"),
    "close_range": ("mark descriptors", "launch"),
    "prlimit64": ("set RLIMIT_", "Rlimit"),
    "umask": ("set umask", "Identity"),
    "prctl": ("keep capabilities over exec", "launch"),
    "seccomp": ("install the filter 'default'", "SeccompFilter"),
    "execve": ("exec /bin/true", "launch"),
    "execveat": ("exec isolate-init", "launch"),
    "clone": ("start a process in the box", "launch"),
    "clone3": ("clone3 with", "launch"),
    "memfd_create": (FIRST_REQUEST, "Chroot" if os.geteuid() == 0 else "launch"),
    "sendmsg": (FIRST_REQUEST, "Chroot" if os.geteuid() == 0 else "launch"),
    "recvmsg": (FIRST_REQUEST, "Chroot" if os.geteuid() == 0 else "launch"),
}
ROOT_OPS = {
    "setgroups": ("drop supplementary groups", "Namespace"),
    "setresgid": ("init: set gid 0", "Namespace"),
    "setresuid": ("init: set uid 0", "Namespace"),
    "open_tree": ("open /", "Chroot"),
    "mount_setattr": ("open /", "Chroot"),
    "capset": ("make capabilities inheritable", "launch"),
    "unshare": ("show the box's cgroup as /", "CgroupLimit"),
}
# Calls that nothing here needs, or whose failure has another way to go on.
HARMLESS = ["setdomainname", "dup2", "mknodat", "vfork", "pidfd_open", "setpriority"]


def faulty(name, number=EIO, route="run"):
    """What came of one start."""
    argv = [sys.executable, str(FAULTY), name, str(number), route]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", OPS)
def test_a_failing_call_is_a_launch_error_that_names_it(name):
    found = faulty(name)
    about, origin = OPS[name]
    assert found["left"] == []
    if name == "recvmsg" and found["error"] == "InitGone":
        return  # init needs it too, and has ended before we could look
    assert found["error"] == "LaunchError", found
    assert found["errno"] == EIO
    assert found["about"].startswith(about)
    assert found["origin"].startswith(origin)
    assert isinstance(found["step"], int)
    assert found["left"] == []


@pytest.mark.needs("root")
@pytest.mark.parametrize("name", ROOT_OPS)
def test_a_failing_call_of_root_is_a_launch_error_that_names_it(name):
    found = faulty(name)
    about, origin = ROOT_OPS[name]
    assert (found["error"], found["errno"], found["left"]) == ("LaunchError", EIO, [])
    assert found["about"].startswith(about)
    assert found["origin"].startswith(origin)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_call_that_is_not_needed_may_fail(name):
    found = faulty(name)
    assert found.get("returncode") == 0, found
    assert found["left"] == []


def test_clone3_that_is_not_there_has_a_way_around():
    """Container filters answer ENOSYS."""
    found = faulty("clone3", 38)
    assert found.get("returncode") == 0, found
    assert found["left"] == []


@pytest.mark.parametrize("name", ["wait4", "ppoll"])
def test_an_init_that_can_not_work_ends_the_box(name):
    found = faulty(name)
    ended = found.get("returncode") == -9 or found["error"] in ("InitGone", "LaunchError")
    assert ended, found
    assert "bare" not in found
    assert found["left"] == []


@pytest.mark.parametrize("name", ["clone", "execve", "socket", "seccomp"])
def test_a_call_fails_as_a_run_does(name):
    found = faulty(name, route="call")
    assert found["error"] in ("LaunchError", "ReplyError"), found
    assert "bare" not in found
    assert found["left"] == []


@pytest.mark.parametrize("number", [EIO, errno.ENOMEM])
def test_a_poll_that_fails_while_a_program_runs_ends_it(number):
    found = faulty("poll", number, "late")
    assert found["error"] == "SupervisorError", found
    assert found["errno"] == number
    assert "watch process" in found["text"]
    assert "the program was killed" in found["text"]
    assert found["alive"] == []
    assert found["left"] == []


def test_an_init_that_is_stopped_does_not_stop_the_caller(monkeypatch):
    monkeypatch.setattr(launch, "ANSWER_SECONDS", 0.3)
    with Sandbox() as box:
        os.kill(box.pid, signal.SIGSTOP)
        with pytest.raises(LaunchError, match="didn't answer") as caught:
            box.run(["/bin/true"])
        assert caught.value.errno == errno.ETIMEDOUT


# -- impossible policies


def expect(about, origin, start):
    with pytest.raises(LaunchError) as caught:
        start()
    error = caught.value
    assert about in str(error)
    assert type(error.origin).__name__ == origin or error.origin == origin
    assert error.errno
    assert isinstance(error.step, int)


def test_impossible_mounts_name_themselves():
    box = Sandbox(Mount.symlink("/", "/proc/x"))
    expect("/proc/x", "Mount", lambda: box.run(["/bin/true"]))
    box = Sandbox(Mount.bind("/no/such/file", "/x"))
    expect("/no/such/file", "Mount", lambda: box.run(["/bin/true"]))
    box = Sandbox(Mount.bind("/etc/passwd", "/usr/x"))
    expect("/usr/x", "Mount", lambda: box.run(["/bin/true"]))


IMPOSSIBLE = {
    "a tmpfs on a file": ([Mount.tmpfs("/etc/passwd")], "/etc/passwd"),
    "a file that is there": ([Mount.file("/etc/passwd", b"x")], "write /etc/passwd"),
    "a directory below a file": ([Mount.dir("/etc/passwd/x")], "make /etc/passwd/x"),
    "a link that is there": ([Mount.symlink("x", "/etc/passwd")], "link /etc/passwd"),
    "a link to a directory that is there": ([Mount.symlink("x", "/tmp")], "link /tmp"),
    "a file below a read-only tree": ([Mount.file("/usr/no/such/x", b"x")], "write /usr/no/such"),
    "a directory on a file": ([Mount.bind("/usr", "/etc/passwd")], "/etc/passwd"),
    "a full tmpfs": ([Mount.tmpfs("/t", "8K"), Mount.file("/t/x", b"x" * 65536)], "write /t/x"),
    "a name that is too long": ([Mount.dir("/" + "x" * 300)], "make /xxx"),
    "a path that is too long": ([Mount.dir("/x" * 2100)], "make /x/x"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_can_not_be_made_names_itself(name):
    mounts, about = IMPOSSIBLE[name]
    expect(about, "Mount", lambda: Sandbox(*mounts).run(["/bin/true"]))


def test_impossible_programs_name_themselves():
    for argv, about in [
        (["/no/such"], "exec /no/such"),
        (["no-such-anywhere"], "exec no-such-anywhere"),
        (["/etc/passwd"], "exec /etc/passwd"),
        (["/tmp"], "exec /tmp"),
    ]:
        expect(about, "launch", lambda argv=argv: Sandbox().run(argv))
    expect("chdir /no", "launch", lambda: Sandbox().run(["/bin/true"], cwd="/no"))


def test_a_limit_above_the_callers_own_is_the_callers_own():
    """Never wider, and no failure: a Sandbox' limits must hold on hosts with lower ones."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with Rlimit(nofile=(hard + 1, hard + 1)):
        done = run(["/bin/sh", "-c", "ulimit -Hn; ulimit -Sn"], capture_output=True)
    assert done.stdout.split() == [str(hard).encode()] * 2


@pytest.mark.needs("unprivileged")
def test_a_namespace_that_needs_privilege_names_itself():
    with Namespace(net=True), pytest.raises(Exception, match="net"):
        run(["/bin/true"])
