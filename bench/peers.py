# SPDX-License-Identifier: Apache-2.0
"""Other ways to run one program in a box, each brought as near to ours as it gets."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from bench.harness import Bench
from bench.oci import bundle
from bench.ways import sandbox, static_true
from isolate.abi.ops import OpCode
from isolate.machine import this_host
from isolate.plan.bpf.assemble import assemble
from isolate.plan.compile import compile_plan
from isolate.plan.model import Op
from isolate.policy.command import Command
from isolate.policy.seccomp_default import default_layer

__all__ = ["Peer", "peers"]

UNIFIED = "/sys/fs/cgroup/unified"
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 1 << 18, 2
FILTER_FD = 9
PIDS = "no limit on processes"
COUNT = itertools.count()
CORE = ["prlimit", "--core=0", "--nofile=4096:4096"]


@frozen
class Peer:
    """One tool.

    Attributes:
        run: runs a program (bwrap: with its arguments) to its end, and returns what it printed.
        cannot: what the check can't see, and it does not do.
    """

    name: str
    run: Callable[..., str]
    cannot: tuple[str, ...] = ()


def start(argv: list[str], filter_file: str = "", env: dict[str, str] | None = None) -> str:
    """By posix_spawn, as cheap as a caller can: stdout to a pipe, the rest to /dev/null."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, write_fd, 1),
    ]
    if filter_file:
        actions.append((os.POSIX_SPAWN_OPEN, FILTER_FD, filter_file, os.O_RDONLY, 0))
    try:
        pid = os.posix_spawnp(argv[0], argv, env or {"PATH": os.defpath}, file_actions=actions)
    finally:
        os.close(write_fd)
    text = b""
    with open(read_fd, "rb", buffering=0) as stream:
        while chunk := stream.read(65536):
            text += chunk
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{argv[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return text.decode("utf-8", "replace")


def ops() -> tuple[Op, ...]:
    """What our box does, from which theirs are written."""
    box = sandbox()
    plan = compile_plan(box.policy, Command([static_true()], box.env, box.cwd), this_host())
    return (*plan.template, *plan.setup, *plan.program)


def texts(op: Op) -> list[str]:
    """Its strings."""
    return [os.fsdecode(item) if isinstance(item, bytes) else "" for item in op.strs]


def trees() -> list[str]:
    """What our box binds of the host, outside of /dev and /proc."""
    found = [texts(op)[1] for op in ops() if op.code is OpCode.BIND]
    return [path for path in found if not path.startswith(("/dev", "/proc")) and path != "/"]


def links() -> list[tuple[str, str]]:
    """(text, path) of its links, outside of /dev."""
    found = [texts(op)[:2] for op in ops() if op.code is OpCode.SYMLINK]
    return [(text, path) for text, path in found if not path.startswith("/dev")]


def masks(kind: Callable[[str], bool] = os.path.exists) -> list[str]:
    """What it hides of /proc, as far as this machine has it."""
    return [texts(op)[0] for op in ops() if op.code is OpCode.MASK and kind(texts(op)[0])]


def read_only() -> list[str]:
    """What of /proc it can't write."""
    found = [texts(op)[0] for op in ops() if op.code is OpCode.BIND]
    return [path for path in found if path.startswith("/proc") and os.path.exists(path)]


def bwrap(bench: Bench) -> Peer:
    """Debian's bubblewrap, with our own filter."""
    program = assemble(default_layer(), os.uname().machine)  # ours, without a supervisor
    folder = bench.stack.enter_context(tempfile.TemporaryDirectory(prefix="isolate-bench-"))
    filter_file = Path(folder) / "filter"
    filter_file.write_bytes(program)
    argv = [
        *CORE, "bwrap", "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000",
        "--hostname", "sandbox", "--die-with-parent", "--new-session", "--clearenv",
        "--cap-drop", "ALL", "--seccomp", str(FILTER_FD),
    ]  # fmt: skip
    for path in trees():
        argv += ["--ro-bind", path, path]
    for text, path in links():
        argv += ["--symlink", text, path]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/dev/shm"]
    for path in masks(os.path.isfile):
        argv += ["--ro-bind", "/dev/null", path]
    for path in read_only():
        argv += ["--ro-bind", path, path]
    argv += ["--remount-ro", "/", "--chdir", "/tmp", "--"]
    return Peer("bwrap", lambda *program: start([*argv, *program], str(filter_file)), (PIDS,))


def runtime(bench: Bench, name: str) -> Peer:
    """crun or runc, with a bundle each for the programs that are asked for."""
    top = Path(bench.stack.enter_context(tempfile.TemporaryDirectory(prefix="isolate-bench-")))
    top.chmod(0o755)
    bundles: dict[str, Path] = {}

    def run(program: str) -> str:
        if program not in bundles:
            bundles[program] = top / f"bundle{len(bundles)}"
            bundle(bundles[program], program, trees(), links(), masks(), read_only())
        own = f"isolate-bench-{os.getpid()}-{next(COUNT)}"
        argv = [name, "--root", str(top / "state"), "run", "--bundle"]
        return start([*argv, str(bundles[program]), own])

    return Peer(name, run)


def without_unified() -> None:
    """crun refuses a machine with v1 and v2: hide v2 from this process, in a namespace of its own.

    Raises: OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    calls = [
        lambda: libc.unshare(CLONE_NEWNS),
        lambda: libc.mount(b"none", b"/", None, MS_PRIVATE | MS_REC, None),
        lambda: libc.umount2(UNIFIED.encode(), MNT_DETACH),
    ]
    for call in calls:
        if call():
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), UNIFIED)


def crun(bench: Bench) -> Peer:
    """As runc."""
    if os.path.ismount(UNIFIED):
        without_unified()
    return runtime(bench, "crun")


def firejail(bench: Bench) -> Peer:
    """Debian's firejail, without a profile: every option by name."""
    argv = [
        *CORE, "firejail", "--quiet", "--noprofile", "--net=none", "--caps.drop=all",
        "--nonewprivs", "--seccomp=unshare,setns,io_uring_setup,clone3", "--ipc-namespace",
        "--hostname=sandbox", "--private-tmp",
        "--private-dev", "--private", "--private-cwd=/tmp", "--read-only=/", "--read-write=/tmp",
        "--nogroups", "--disable-mnt", "--rlimit-nofile=4096", "--blacklist=/sys",
        "--blacklist=/etc/shadow", "--blacklist=/proc/keys", "--blacklist=/proc/iomem",
        "--blacklist=/proc/vmallocinfo", "--blacklist=/proc/timer_list", "--",
    ]  # fmt: skip
    return Peer("firejail", lambda program: start([*argv, program]), (PIDS,))


def unshare(bench: Bench) -> Peer:
    """util-linux: namespaces by unshare, privileges by setpriv."""
    argv = [
        *CORE, "unshare", "--user", "--map-root-user", "--mount", "--uts", "--ipc", "--net",
        "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc", "setpriv",
        "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--",
    ]  # fmt: skip
    return Peer("unshare", lambda program: start([*argv, program]), (PIDS,))


def sandlock(bench: Bench) -> Peer:
    """PyPI's: Landlock and a filter, no namespaces; called from here, as ours is."""
    import sandlock as package

    box = package.Sandbox(
        fs_readable=[*trees(), "/bin", "/lib", "/lib64", "/proc", "/dev"],
        fs_writable=["/tmp", "/dev/null"],
        max_processes=256,
        clean_env=True,
        no_coredump=True,
    )

    def run(program: str) -> str:
        done = box.run([program])
        if not done.success:
            raise RuntimeError(f"sandlock: {done}")
        return bytes(done.stdout).decode("utf-8", "replace")

    return Peer("sandlock", run)


def nsjail(bench: Bench) -> Peer:
    """The binary that ISOLATE_BENCH_NSJAIL names."""
    argv = [
        os.environ["ISOLATE_BENCH_NSJAIL"], "-Mo", "-Q", "-q", "--user", "1000:1073741825:1",
        "--group", "1000:1073741825:1", "--hostname", "sandbox", "--cwd", "/tmp",
        "--rlimit_core", "0", "--cgroup_pids_max", "256", "-T", "/tmp", "-T", "/dev/shm",
    ]  # fmt: skip
    for path in trees():
        argv += ["-R", path]
    for text, path in links():
        argv += ["-s", f"{text}:{path}"]
    for path in ("/dev/null", "/dev/zero", "/dev/urandom"):
        argv += ["-B", path]
    return Peer("nsjail", lambda program: start([*argv, "--", program]), ("our filter",))


def peers(bench: Bench) -> tuple[list[Peer], list[str]]:
    """(what is installed here, a line for each that is not)."""
    makers: dict[str, Callable[[Bench], Peer]] = {
        "bwrap": bwrap,
        "crun": crun,
        "runc": lambda bench: runtime(bench, "runc"),
        "firejail": firejail,
        "unshare": unshare,
    }
    there, absent = [], []
    for name, make in makers.items():
        if shutil.which(name):
            there.append(make(bench))
        else:
            absent.append(f"{name}: not installed; `make bench` installs it as root")
    if importlib.util.find_spec("sandlock"):
        there.append(sandlock(bench))
    else:
        absent.append("sandlock: not installed; pip install '.[bench]'")
    if os.environ.get("ISOLATE_BENCH_NSJAIL"):
        there.append(nsjail(bench))
    else:
        absent.append("nsjail: no package in this distribution; ISOLATE_BENCH_NSJAIL names one")
    return there, absent
