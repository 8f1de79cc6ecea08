# SPDX-License-Identifier: Apache-2.0
"""A plan of the library as a job for the floor: the same kernel work, one line a step.

What the floor has no step for is refused by name, so that it can't quietly do less than the plan.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from isolate.abi.cgroup import ACCOUNTS
from isolate.abi.ops import OpCode, OpFlag
from isolate.plan.model import Op, Plan, Step, Vector
from isolate.supervise.cgroup_v1 import controller, mounts

__all__ = ["job_text", "remove_groups"]

PHASES = """
    cgroup clone maps trees ids init names network mount root landlock session limits caps filter
    start run end remove
""".split()
EARLY, BOX, PROGRAM = range(3)
COUNT = itertools.count()
SKIPPED = {OpCode.READY, OpCode.EXEC}  # our own report; the exec is the floor's last step anyway
IMPLIED = {OpCode.SETGROUPS, OpCode.ROOT_HERE}  # with the gid; with a template
LANDLOCK_FILE = 0xC007  # what a file can be granted: execute, write, read, truncate, ioctl_dev
LANDLOCK = {
    OpCode.LANDLOCK_CREATE: "ruleset",
    OpCode.LANDLOCK_PATH: "allow_path",
    OpCode.LANDLOCK_PORT: "allow_port",
    OpCode.LANDLOCK_RESTRICT: "restrict",
}


def line(
    code: str,
    phase: str,
    part: int,
    *strs: bytes,
    nums: tuple[int, ...] = (),
    fresh: int = 0,
) -> str:
    """One step as text."""
    numbers = [*nums, 0, 0, 0][:3]
    texts = [item.hex() or "-" for item in [*strs, b"", b"", b""][:3]]
    fields = [code, PHASES.index(phase), part, fresh, *numbers, *texts]
    return "step " + " ".join(map(str, fields))


def below(path: bytes) -> bytes:
    """A path of the new root, relative to it."""
    return path.lstrip(b"/")


class Job:
    """Collects the lines; directories and files that the library makes on its way come first."""

    def __init__(self, plan: Plan, base: int) -> None:
        self.plan = plan
        self.base = base
        self.lines: list[str] = []
        self.fresh = True  # the ops that every box does; not those of the template
        self.made: set[bytes] = {b""}
        self.bound: list[bytes] = []
        self.trees: dict[str, Step] = {
            step.slot: step for step in plan.steps if step.kind == "open_tree" and step.slot
        }

    def add(self, code: str, phase: str, part: int, *strs: bytes, **more: object) -> None:
        """One more step."""
        fresh = int(part == BOX and self.fresh)
        self.lines.append(line(code, phase, part, *strs, fresh=fresh, **more))  # type: ignore[arg-type]

    def there(self, path: bytes) -> bool:
        """Whether it was made, or is in a tree that is bound by now."""
        return path in self.made or any(path.startswith(each + b"/") for each in self.bound)

    def directory(self, path: bytes, mode: int = 0o755) -> None:
        """mkdir -p, as far as nothing is there."""
        if self.there(path):
            return
        self.directory(os.path.dirname(path))
        self.made.add(path)
        self.add("dir", "mount", BOX, path, nums=(mode,))

    def empty_file(self, path: bytes) -> None:
        """A mount point that is a file."""
        self.directory(os.path.dirname(path))
        if not self.there(path):
            self.made.add(path)
            self.add("file", "mount", BOX, path, b"", nums=(0o644,))

    def bind(self, op: Op) -> None:
        """A host tree, or a part of the new root on itself."""
        target = below(op.strs[1])  # type: ignore[arg-type]
        if op.flags & OpFlag.FROM_ROOT:
            self.add("rebind", "mount", BOX, target, nums=(op.nums[0],))
            return
        if op.slots and op.slots[0]:
            path, recursive, attr, _, _, idmap = self.trees[op.slots[0]].args
            if idmap:
                raise NotImplementedError(f"the floor makes no idmapped mount: {op.about}")
            source = os.fsencode(path)
        else:
            source, attr = op.strs[0], op.nums[0]  # type: ignore[assignment]
            recursive = bool(op.flags & OpFlag.RECURSIVE)
        if not os.path.exists(source):
            if op.flags & OpFlag.OPTIONAL:
                return
            raise FileNotFoundError(source)
        if stat.S_ISDIR(os.stat(source).st_mode):
            self.directory(target)
        else:
            self.empty_file(target)
        self.add("bind", "mount", BOX, source, target, nums=(attr, int(recursive)))
        self.bound.append(target)

    def place(self, op: Op) -> None:
        """A mount point of the template's."""
        source, target = op.strs[0], below(op.strs[1])  # type: ignore[arg-type]
        (self.directory if os.path.isdir(source) else self.empty_file)(target)  # type: ignore[arg-type]

    def file_system(self, op: Op) -> None:
        """A new one; the template's /proc is there only so that a box may mount its own."""
        kind, options, target = op.strs[:3]
        where = below(target)  # type: ignore[arg-type]
        self.directory(where)
        self.add("fs", "mount", BOX, kind, where, options or b"", nums=(op.nums[0],))
        if kind == b"proc" and not self.fresh:
            self.lines[-1] = only(self.lines[-1], 2)

    def simple(self, op: Op, part: int) -> bool:
        """Ops that are one step with the same arguments."""
        code, text = op.code, (op.strs[0] if op.strs else b"") or b""
        if code in LANDLOCK:
            phase = "landlock" if part == BOX else "filter"
            nums = op.nums
            if text and os.path.exists(text) and not os.path.isdir(text):
                nums = (nums[0] & LANDLOCK_FILE, *nums[1:])
            self.add(LANDLOCK[code], phase, part, text, nums=nums)  # type: ignore[arg-type]
            return True
        table = {
            OpCode.PROPAGATION: ("propagation", "mount"),
            OpCode.PIVOT_ROOT: ("pivot", "root"),
            OpCode.KEYRING: ("keyring", "names"),
            OpCode.LOOPBACK_UP: ("loopback", "network"),
            OpCode.DUMPABLE: ("dumpable", "names"),
            OpCode.SETSID: ("setsid", "session"),
            OpCode.CLOSE_FROM: ("cloexec", "session"),
            OpCode.RLIMIT: ("rlimit", "limits"),
            OpCode.UMASK: ("umask", "limits"),
            OpCode.SECUREBITS: ("securebits", "caps"),
            OpCode.BOUNDING: ("bounding", "caps"),
            OpCode.NO_NEW_PRIVS: ("no_new_privs", "caps"),
            OpCode.SETHOSTNAME: ("hostname", "names"),
            OpCode.CHDIR: ("chdir", "limits"),
            OpCode.UNSHARE: ("unshare", "session"),
        }
        if code not in table:
            return False
        name, phase = table[code]
        self.add(name, phase, part, text, nums=op.nums)  # type: ignore[arg-type]
        return True

    def setup(self, op: Op) -> None:
        """One op of the box."""
        strs = [item if isinstance(item, bytes) else b"" for item in op.strs]
        if op.code is OpCode.BIND:
            self.bind(op)
        elif op.code is OpCode.MOUNT_NEW:
            self.file_system(op)
        elif op.code is OpCode.ROOT_LEAVE:
            self.add("pivot", "root", BOX)
            self.lines[-1] = only(self.lines[-1], 3)
        elif op.code is OpCode.PLACE:
            self.place(op)
        elif op.code is OpCode.ROOT_TMPFS:
            self.add("root", "mount", BOX, strs[0], nums=op.nums)
        elif op.code is OpCode.SYMLINK:
            path = below(strs[1])
            self.directory(os.path.dirname(path))
            self.add("link", "mount", BOX, strs[0], path)
        elif op.code is OpCode.FILE:
            path = below(strs[0])
            self.directory(os.path.dirname(path))
            self.add("file", "mount", BOX, path, strs[1], nums=op.nums)
        elif op.code is OpCode.MKDIR:
            self.directory(below(strs[0]), op.nums[0])
        elif op.code is OpCode.MASK:
            kind = int(os.path.isdir(strs[0]))
            self.add("mask", "mount", BOX, below(strs[0]), nums=(kind,))
        elif op.code is OpCode.MOUNT_ATTR:
            self.add("attr", "mount", BOX, below(strs[0]), nums=op.nums)
        elif op.code is OpCode.SETRESGID:
            self.add("gids", "ids", EARLY, nums=op.nums)
        elif op.code is OpCode.SETRESUID:
            self.add("uids", "ids", EARLY, nums=op.nums)
        elif op.code not in IMPLIED and not self.simple(op, BOX):
            raise NotImplementedError(f"the floor has no step for {op.code.name}: {op.about}")

    def program(self, op: Op) -> None:
        """One op of the program."""
        if op.code is OpCode.JOIN_CGROUP or op.code is OpCode.SETGROUPS or op.code in SKIPPED:
            return  # joins come from `joins`; groups go with the gid
        if op.code is OpCode.DUP2:
            if op.nums[0] == 0:
                self.add("stdio", "session", PROGRAM)
        elif op.code is OpCode.SETRESGID:
            self.add("gids", "caps", PROGRAM, nums=op.nums)
        elif op.code is OpCode.SETRESUID:
            self.add("uids", "caps", PROGRAM, nums=op.nums)
        elif op.code is OpCode.CAPSET:
            self.add("capset", "caps", PROGRAM)
        elif op.code in (OpCode.SECCOMP, OpCode.SECCOMP_NOTIFY):
            filter_bytes, flags = op.strs[0], op.nums[:1]
            self.add("seccomp", "filter", PROGRAM, b"", filter_bytes, nums=flags)  # type: ignore[arg-type]
        elif op.code is not OpCode.AMBIENT and not self.simple(op, PROGRAM):
            raise NotImplementedError(f"the floor has no step for {op.code.name}: {op.about}")

    def joins(self) -> Iterator[str]:
        """A leaf in each v1 controller that the plan joins."""
        parent = f"isolate-floor-{os.getpid()}"  # not the library's own: it removes empty ones
        own = f"leaf-{next(COUNT)}"
        for step in self.plan.steps:
            if step.kind != "cgroup":
                continue
            limit, names, _ = step.args
            for name in (*names, *(each for each in ACCOUNTS if each in mounts())):
                if controller(name) not in mounts():
                    raise NotImplementedError(f"the floor joins cgroups of v1 only: {step.about}")
                above = Path(mounts()[controller(name)]) / parent
                above.mkdir(exist_ok=True)
                leaf = os.fsencode(above / own)
                put = (b"pids.max", b"%d" % limit.pids) if name == "pids" and limit.pids else ()
                yield line("join", "session", PROGRAM, leaf, *put)

    def maps(self) -> Iterator[str]:
        """The id maps with the reserved ids filled in."""
        for step in self.plan.steps:
            if step.kind == "id_map":
                for name, rows in zip(("uid_map", "gid_map"), step.args[:2], strict=True):
                    text, nth = "", 0
                    for inside, outside, count in rows:
                        first = self.base + nth if outside is None else outside
                        text += f"{inside} {first} {count}\n"
                        nth += count
                    yield f"{name} {text.encode().hex()}"


def job_text(plan: Plan, base: int = 1 << 30) -> str:
    """The job file of a plan that ends in the exec of one static program.

    Args:
        base: the first host id of the box.

    Raises: NotImplementedError, naming the op that the floor can't do.
    """
    job = Job(plan, base)
    job.fresh = False
    for op in plan.template:
        job.setup(op)
    job.fresh = True
    for op in plan.setup:
        job.setup(op)
    if plan.template:  # without one pivot_root comes where the box leaves its root alone
        pivot = next(i for i, text in enumerate(job.lines) if text.startswith("step pivot "))
        job.lines[pivot] = only(job.lines[pivot], 2)
    box = job.lines
    job.lines = list(job.joins())
    for op in plan.program:
        job.program(op)
    exec_op = plan.program[-1]
    path = exec_op.strs[0]
    if not isinstance(path, bytes) or isinstance(path, Vector):
        raise NotImplementedError("the floor runs a program by its full path only")
    head = [f"clone_flags {plan.clone_flags}", f"program {path.hex()}", *job.maps()]
    return "\n".join([*head, *box, *job.lines]) + "\n"


def remove_groups() -> None:
    """The cgroups that hold this process's floors, once those have ended."""
    for place in set(mounts().values()):
        above = Path(place) / f"isolate-floor-{os.getpid()}"
        if above.is_dir():
            for leaf in above.iterdir():
                if leaf.is_dir():
                    leaf.rmdir()
            above.rmdir()


def only(text: str, fresh: int) -> str:
    """A step of runs with a template alone (2), or without one (3)."""
    words = text.split(" ")
    words[4] = str(fresh)
    return " ".join(words)
