"""Every op of the table made to fail, by each system call that it makes and by several errnos.

The fault is in isolate-init alone (faults.py), so calls that Python needs, like openat and write,
can fail as well; `test_faults.py` has those of the caller.
"""

import errno
import gc
import io
import os
import socket
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isolate import Arg, HostLacks, LaunchError, Sandbox
from isolate.abi import flags
from isolate.abi.ops import OpCode, OpFlag, Phase
from isolate.plan.model import Op, Vector
from isolate.supervise import archive
from isolate.supervise.setup import set_up
from isolate.supervise.start import start_init
from isolate.supervise.steps import write_whole
from isolate.supervise.template import TEMPLATES
from tests.conftest import state
from tests.live.faults import failing

pytestmark = pytest.mark.needs("gcc", "x86_64")

# What these do needs more than a set-up of init: test_faults_spawned.py.
ELSEWHERE = {OpCode.LEAF, OpCode.REBORN}
ERRNOS = ("EIO", "ENOMEM", "EPERM", "ENOSYS", "EINTR", "ENOSPC")
MOUNT_PHASE = Phase.MOUNT
CLONE = flags.NAMESPACES["user"] | flags.NAMESPACES["mount"] | flags.NAMESPACES["uts"]
NEW_NET = CLONE | flags.NAMESPACES["net"]
NEW_PID = CLONE | flags.NAMESPACES["pid"]
AT_FDCWD = 0xFFFFFF9C
SIGCHLD = 17
STATUS_FD = 6


def op(code, *strs, **more):
    """One op; what it is about names it."""
    return Op(code=code, phase=more.pop("phase", MOUNT_PHASE), about=code.name, strs=strs,
              origin=f"asked {code.name}", **more)  # fmt: skip


ROOT = op(OpCode.ROOT_TMPFS, b"mode=755")
C = OpCode
PRIVATE = op(C.PROPAGATION, b"/", nums=(flags.MS_PRIVATE,))
IN_ROOT = (PRIVATE, ROOT)
FILE = op(C.FILE, b"/file", b"data", nums=(0o644,))
MAKE = OpFlag.MAKE_ANY
RULES = op(C.LANDLOCK_CREATE, slots=(None, "temp:rules"), nums=(1, 0, 0))


def prctl(number):
    return "prctl", (Arg(0, width=32) == number,)


def opened(flag):
    """openat with that flag among the others: init opens /proc by itself."""
    return "openat", (Arg(2, width=32) & flag == flag,)


STATX = ("statx", (Arg(3, width=32) == 1,))  # STATX_TYPE: init asks for the size of its blobs


CHOWN = ["fchownat"] if os.geteuid() == 0 else []  # /usr/share is nobody's to an ordinary user
DEVPTS = (
    *IN_ROOT,
    op(C.MOUNT_NEW, b"devpts", b"ptmxmode=0666", b"/pts", flags=OpFlag.MAKE_DIR),
    op(C.PIVOT_ROOT, phase=Phase.ROOT),
)
FLAG = ("fsconfig", (Arg(1, width=32) == 0,))  # FSCONFIG_SET_FLAG: the overlay's userxattr
# Init's answer goes by sendmsg, too, to the first descriptor that came with the request; the slots'
# are above it and the blob's.
TO_SLOT = ("sendmsg", (Arg(0) > STATUS_FD,))
ALLOW_ALL = b"\x06\0\0\0\0\0\xff\x7f"
NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER
STATX_OWNER = ("statx", (Arg(3, width=32) == 0x1A,))
DIRS = ("mkdirat", (Arg(0, width=32) == AT_FDCWD,))
OPTIONS = b"lowerdir=l0\0upperdir=u\0workdir=w\0userxattr"
SCRATCH = (
    *IN_ROOT,
    op(C.MOUNT_NEW, b"tmpfs", b"mode=711", b"/s", flags=OpFlag.MAKE_DIR),
    op(C.BIND, b"/usr/share", b"/s/l0", flags=MAKE),
)


# op -> (what has to be before, the op, the calls that it makes)
TABLE = {
    C.JOIN_CGROUP: ((), op(C.JOIN_CGROUP, slots=("file",)), ["write"]),
    C.UNSHARE: ((), op(C.UNSHARE, nums=(flags.NAMESPACES["uts"],)), ["unshare"]),
    C.SETNS: ((), op(C.SETNS, slots=("ns",), nums=(flags.NAMESPACES["uts"],)), ["setns"]),
    C.WRITE: ((), op(C.WRITE, b"/proc/self/comm", b"x"), ["write", opened(os.O_WRONLY)]),
    C.SETGROUPS: ((), op(C.SETGROUPS, b""), ["setgroups"]),
    C.SETRESGID: ((), op(C.SETRESGID, nums=(0,)), ["setresgid"]),
    C.SETRESUID: ((), op(C.SETRESUID, nums=(0, 1)), ["setresuid", prctl(8)]),
    C.SETHOSTNAME: ((), op(C.SETHOSTNAME, b"x"), ["sethostname"]),
    C.SETDOMAINNAME: ((), op(C.SETDOMAINNAME, b"x"), ["setdomainname"]),
    C.LOOPBACK_UP: ((), op(C.LOOPBACK_UP), [
        "socket",
        ("ioctl", (Arg(1, width=32) == 0x8913,)),
        ("ioctl", (Arg(1, width=32) == 0x8914,)),
    ]),
    C.PROPAGATION: ((), PRIVATE, ["mount"]),
    C.ROOT_TMPFS: ((PRIVATE,), ROOT, ["fsopen", "fsconfig", "fsmount", "move_mount"]),
    C.ROOT_BIND: (
        (PRIVATE,),
        op(C.ROOT_BIND, b"/usr", nums=(flags.MOUNT_ATTR_RDONLY,), flags=OpFlag.RECURSIVE),
        ["openat2", "open_tree", "mount_setattr", "move_mount"],
    ),
    C.MKDIR: (IN_ROOT, op(C.MKDIR, b"/a/b", nums=(0o755,)), ["openat2", "mkdirat"]),
    C.FILE: (IN_ROOT, FILE, ["openat2", opened(os.O_CREAT), "write", "fchmod"]),
    C.SYMLINK: (IN_ROOT, op(C.SYMLINK, b"x", b"/link"), ["openat2", "symlinkat"]),
    C.BIND: (
        IN_ROOT,
        op(C.BIND, b"/usr", b"/u", nums=(flags.MOUNT_ATTR_RDONLY,), flags=MAKE | OpFlag.RECURSIVE),
        ["openat2", "open_tree", "mount_setattr", STATX, "mkdirat"],
    ),
    C.MOUNT_NEW: (
        IN_ROOT,
        op(C.MOUNT_NEW, b"tmpfs", b"mode=755", b"/t", flags=OpFlag.MAKE_DIR),
        ["openat2", "mkdirat"],
    ),
    C.MOUNT_ATTR: (
        IN_ROOT, op(C.MOUNT_ATTR, b"/", nums=(flags.MOUNT_ATTR_RDONLY,)),
        ["openat2", "mount_setattr"],
    ),
    C.MASK: ((*IN_ROOT, FILE), op(C.MASK, b"/file"), [STATX, "open_tree"]),
    C.PIVOT_ROOT: (
        IN_ROOT, op(C.PIVOT_ROOT, phase=Phase.ROOT),
        ["fchdir", "pivot_root", "umount2", "chdir", "getcwd"],
    ),
    C.KEYRING: ((), op(C.KEYRING), ["keyctl"]),
    C.SETSID: ((), op(C.SETSID), ["setsid"]),
    C.CTTY: ((), op(C.CTTY, nums=(0,)), ["ioctl"]),
    C.DUP2: ((), op(C.DUP2, slots=("file",), nums=(9,)), ["dup3"]),
    C.CLOSE_FROM: ((), op(C.CLOSE_FROM, nums=(5,)), ["close_range"]),
    C.RLIMIT: ((), op(C.RLIMIT, nums=(4, 0, 0)), ["prlimit64"]),
    C.UMASK: ((), op(C.UMASK, nums=(0o22,)), ["umask"]),
    C.NICE: ((), op(C.NICE, nums=(1,)), ["setpriority"]),
    C.CHDIR: ((), op(C.CHDIR, b"/"), ["chdir"]),
    C.SECUREBITS: ((), op(C.SECUREBITS, nums=(1,)), [prctl(28)]),
    C.BOUNDING: ((), op(C.BOUNDING, nums=(0,)), [prctl(24)]),
    C.CAPSET: ((), op(C.CAPSET, nums=(0, 0, 0)), ["capset"]),
    C.AMBIENT: ((), op(C.AMBIENT, nums=(0,)), [prctl(47)]),
    C.NO_NEW_PRIVS: ((), op(C.NO_NEW_PRIVS), [prctl(38)]),
    C.DUMPABLE: ((), op(C.DUMPABLE, nums=(0,)), [prctl(4)]),
    C.APPARMOR: ((), op(C.APPARMOR, b"exec x", b"x (enforce)"), [opened(os.O_WRONLY)]),
    C.LANDLOCK_CREATE: ((), RULES, ["landlock_create_ruleset"]),
    C.LANDLOCK_PATH: (
        (RULES,), op(C.LANDLOCK_PATH, b"/usr", slots=("temp:rules",), nums=(1,)),
        ["landlock_add_rule", opened(0o10000000)],
    ),
    C.LANDLOCK_PORT: (
        (RULES,), op(C.LANDLOCK_PORT, slots=("temp:rules",), nums=(1, 80)),
        ["landlock_add_rule"],
    ),
    C.LANDLOCK_RESTRICT: (
        (RULES,), op(C.LANDLOCK_RESTRICT, slots=("temp:rules",), nums=(0,)),
        ["landlock_restrict_self"],
    ),
    C.READY: ((), op(C.READY, slots=("file",)), ["write"]),
    C.SECCOMP: (
        (), op(C.SECCOMP, ALLOW_ALL, nums=(0,)), ["seccomp"]
    ),
    C.EXEC: (
        (), op(C.EXEC, b"/bin/true", Vector((b"x",)), Vector(()), phase=Phase.EXEC), ["execve"]
    ),
    C.PDEATHSIG: ((), op(C.PDEATHSIG, nums=(0,)), [prctl(1)]),
    C.TIMENS: ((), op(C.TIMENS, b"monotonic 1 0\n"), ["write", opened(os.O_WRONLY)]),
    C.IDMAP: (
        (), op(C.IDMAP, b"0 0 1\n", b"0 0 1\n"), ["write", opened(os.O_WRONLY)]
    ),
    C.SETSCHED: ((), op(C.SETSCHED, nums=(0, 0)), ["sched_setscheduler"]),
    C.OVERLAY: (
        SCRATCH, op(C.OVERLAY, OPTIONS, b"/s", nums=(0, 1)),
        [STATX_OWNER, DIRS, *CHOWN, "umount2", "fchdir", FLAG],
    ),
    C.PTY: (
        DEVPTS,
        op(C.PTY, b"/pts/ptmx", phase=Phase.FD, slots=("socket", "temp:tty"),
           nums=(24 << 16 | 80, 1, 1)),
        ["fstatfs", ("ioctl", (Arg(1, width=32) == 0x40045431,)),
         ("ioctl", (Arg(1, width=32) == 0x5441,)), ("ioctl", (Arg(1, width=32) == 0x5414,)),
         "fchown", TO_SLOT],
    ),
    C.UNPACK: (
        IN_ROOT, op(C.UNPACK, slots=("archive",), nums=(1, 1)),
        ["openat2", "mkdirat", opened(os.O_CREAT), "fchmod", "symlinkat", "linkat", "fchownat",
         "write"],
    ),
    C.PLACE: (
        IN_ROOT, op(C.PLACE, b"/usr", b"/u"), ["openat2", STATX, "mkdirat"]
    ),
    C.STEWARD: (
        (), op(C.STEWARD),
        ["pipe2", "capset", ("clone", (Arg(0) == SIGCHLD,)), prctl(1), prctl(36)],
    ),
    C.SECCOMP_NOTIFY: (
        (), op(C.SECCOMP_NOTIFY, ALLOW_ALL, slots=("socket",), nums=(NEW_LISTENER, 0)),
        ["seccomp", TO_SLOT],
    ),
    C.ROOT_HERE: ((), op(C.ROOT_HERE), [opened(0o10200000)]),
    C.ROOT_LEAVE: ((op(C.ROOT_HERE),), op(C.ROOT_LEAVE), ["getcwd"]),
}  # fmt: skip
# Errnos that mean something to an op, so that they are no failure.
MEANT = {
    (C.KEYRING, "keyctl"): {"ENOSYS"},
}
CASES = [(code, call) for code, entry in TABLE.items() for call in entry[2]]


def name_of(case):
    code, call = case
    return f"{code.name}-{call if isinstance(call, str) else call[0]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a box's ids may read and execute the stand-in."""
    path = tmp_path_factory.mktemp("faults")
    for each in (path, *path.parents):
        if each.stat().st_uid == os.geteuid() and each != each.parent:
            each.chmod(each.stat().st_mode | 0o111)
    return str(path)


@pytest.fixture(autouse=True, scope="module")
def no_templates():
    """Those of other tests, before anybody counts descriptors."""
    TEMPLATES.kept.clear()
    gc.collect()


def write_maps(pid):
    """Id 0 inside is the caller's own."""
    if os.geteuid() != 0:
        write_whole(f"/proc/{pid}/setgroups", b"deny")
    write_whole(f"/proc/{pid}/uid_map", f"0 {os.geteuid()} 1".encode())
    write_whole(f"/proc/{pid}/gid_map", f"0 {os.getegid()} 1".encode())


def tar_in(folder):
    """An archive with one entry of each kind."""
    path = os.path.join(folder, "x.tar")
    if not os.path.exists(path):
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo("d/file")
            info.size = 4
            tar.addfile(info, io.BytesIO(b"data"))
            for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "d/file"
                tar.addfile(info)
    return path


def attempt(case, number, folder):
    """Run the op with the call failing. What came of it."""
    code, call = case
    before, wanted, _ = TABLE[code]
    name, tests = (call, ()) if isinstance(call, str) else call
    ops = (*before, wanted)
    kinds = NEW_NET if code is C.LOOPBACK_UP else NEW_PID
    file_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    ns_fd = os.open("/proc/self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    archive_fd = archive.entries(tar_in(folder), 1 << 20)
    fds = {"file": file_fd, "ns": ns_fd, "archive": archive_fd, "socket": theirs.fileno()}
    try:
        with failing(folder, name, number, tests):
            init = start_init(kinds)
            try:
                write_maps(init.pid)
                set_up(init, ops, fds)
            finally:
                init.close()
    finally:
        os.close(file_fd)
        os.close(ns_fd)
        os.close(archive_fd)
        ours.close()
        theirs.close()


def check(case, word, folder):
    """The fault is told as what it is, and nothing is left."""
    code, call = case
    number = getattr(errno, word)
    seen = state()
    name = call if isinstance(call, str) else call[0]
    if word in MEANT.get((code, name), ()):
        attempt(case, number, folder)
    else:
        with pytest.raises((LaunchError, HostLacks)) as caught:
            attempt(case, number, folder)
        error = caught.value
        if isinstance(error, HostLacks):  # what a container's filter answers has its own advice
            assert word in ("EPERM", "ENOSYS")
            assert f"{name} is refused" in str(error)
            return
        assert error.op.code is code, error
        assert error.errno == number
        assert error.origin == f"asked {code.name}"
        assert error.step == len(TABLE[code][0])
        assert code.name in str(error)
        assert isinstance(error.__cause__, OSError)
    assert state() == seen


def test_every_op_is_in_the_table():
    """Whoever adds an op says by which calls it may fail, or this does."""
    assert set(OpCode) == set(TABLE) | ELSEWHERE
    assert not set(TABLE) & ELSEWHERE
    assert all(wanted.code is code and calls for code, (_, wanted, calls) in TABLE.items())


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_failing_call_names_the_op_that_made_it(case, folder):
    check(case, "EIO", folder)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=st.sampled_from(CASES), word=st.sampled_from(ERRNOS))
def test_any_errno_is_told_as_it_is(case, word, folder):
    check(case, word, folder)


# -- the same calls in a whole start

WHOLE = {
    "socket": ("bring lo up", "Network", ()),
    "ioctl": ("bring lo up", "Network", ()),
    "write": ("write /etc/", "Chroot", (Arg(2, width=32) > 8,)),
    "fchmod": ("write /etc/", "Chroot", ()),
    "openat2": ("bind /", "Chroot", ()),
    "sethostname": ("set hostname", "Namespace", ()),
    "capset": ("set capabilities", "CapabilitySet", ()),
    "close_range": ("close descriptors", "launch", ()),
    "dup3": ("put stdin", "launch", ()),
    "execve": ("exec /bin/true", "launch", ()),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_start_tells_what_failed_and_who_asked(name, folder):
    about, origin, tests = WHOLE[name]
    TEMPLATES.kept.clear()
    gc.collect()
    seen = state()
    with failing(folder, name, errno.EIO, tests), pytest.raises(LaunchError) as caught:
        Sandbox(files={"x": b"12345678901234567890"}).run(["/bin/true"])
    TEMPLATES.kept.clear()
    error = caught.value.with_traceback(None)  # its frames hold the template
    del caught
    gc.collect()
    assert error.errno == errno.EIO
    assert error.op.about.startswith(about), error
    assert str(error.origin).startswith(origin)
    assert state() == seen
    del error  # its causes' frames hold a template, in cycles
    gc.collect()
    assert Sandbox().run(["/bin/true"]).returncode == 0
