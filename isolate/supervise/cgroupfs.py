# SPDX-License-Identifier: Apache-2.0
"""A box's cgroup, one surface over v1, v2 and hybrid machines: made, read, frozen, killed, removed.

Never below the caller's own cgroup on v1; on v2 below the place that `cgroup_place` finds. The
directories of root's boxes on v2 are `isolate-…/box`, the leaf, and `isolate-…/init` beside it.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from functools import partial

from attrs import Factory, define, frozen

from isolate.abi.cgroup import ACCOUNTS, FIELDS
from isolate.errors import HostLacks, IsolateError, MemoryLimitExceeded
from isolate.host.cgroups import parent_name
from isolate.policy.cgroup import CgroupLimit
from isolate.supervise import cgroup_place, cgroup_v1, cgroup_v2
from isolate.supervise.cgroup_files import (
    TROUBLE,
    get,
    kill_in,
    lock,
    make_leaf,
    pids_below,
    pids_in,
    reclaim,
    remove_tree,
    value_of,
    whole,
)
from isolate.supervise.cgroup_oom import Levels, Oom, levels
from isolate.supervise.counterfiles import CounterFiles

__all__ = [
    "Counters",
    "Leaf",
    "create",
    "find_place",
    "killed_early",
    "kill_in",
    "lock",
    "make_leaf",
    "mounts",
    "parent_name",
    "pids_in",
    "reclaim",
    "remove_tree",
]

mounts = cgroup_v1.mounts
COUNT = itertools.count()
RECLAIMED: set[tuple[int, str]] = set()
UNIFIED = "unified"


@frozen(kw_only=True)
class Counters:
    """What the kernel has counted; bytes, processes, seconds. None: no such controller."""

    memory_peak: int | None = None
    oom_kills: int = 0
    pids_peak: int | None = None
    pids_refused: int = 0
    cpu: float | None = None
    oom: Oom | None = None


@define
class Leaf:
    """One box's cgroup, locked while we live.

    Attributes:
        version: 1 (hybrid machines too) or 2.
        directories: by controller, v1's names on v1; "unified" is the v2 directory, the same for
            each of its controllers.
        tops: what `close` removes.
        join_fds: open `tasks` files by slot, for programs that join v1 directories.
        cgroup_fd: the v2 directory that programs are born in, -1 if there is none.
        init_fd: the v2 directory that isolate-init is born in, -1 if it stays where we are.
    """

    version: int = 1
    directories: dict[str, str] = Factory(dict)
    tops: list[str] = Factory(list)
    lock_fds: list[int] = Factory(list)
    join_fds: dict[str, int] = Factory(dict)
    cgroup_fd: int = -1
    init_fd: int = -1
    memory_levels: Levels | None = None
    oom_kills: int = 0
    oom: Oom | None = None
    owner: int = Factory(os.getpid)
    files: CounterFiles = Factory(CounterFiles)

    def directory_of(self, file: str) -> str | None:
        """The directory of a control file ("memory.peak", "cgroup.events"), None without one."""
        name = file.partition(".")[0]
        unified = self.directories.get(UNIFIED)
        if name == "cgroup" or (self.version == 2 and unified):
            return unified
        return self.directories.get(name)

    def read(self, file: str) -> str:
        """A control file's text. Raises: OSError; FileNotFoundError without such a controller."""
        directory = self.directory_of(file)
        if directory is None:
            raise FileNotFoundError(2, "the box has no such controller", file)
        return get(directory, file)

    def has(self, file: str) -> bool:
        """Whether there is such a file."""
        directory = self.directory_of(file)
        return directory is not None and os.path.exists(f"{directory}/{file}")

    def number(self, file: str) -> int | None:
        """A file's one number, None if there is no such file."""
        directory = self.directory_of(file)
        try:
            if directory is None:
                return None
            return self.files.parsed(f"{directory}/{file}", "", whole)
        except FileNotFoundError:
            return None

    def keyed(self, file: str, key: str) -> int:
        """The number behind a key, 0 if there is no such file or key."""
        directory = self.directory_of(file)
        parse = partial(value_of, key)
        try:
            return 0 if directory is None else self.files.parsed(f"{directory}/{file}", key, parse)
        except FileNotFoundError:
            return 0

    @property
    def memory_version(self) -> int:
        """Which version's files the memory controller has."""
        memory = self.directories.get("memory")
        return 2 if memory is not None and memory == self.directories.get(UNIFIED) else 1

    def counters(self) -> Counters:
        """What was counted until now; read before `close`."""
        old = self.memory_version == 1
        kills = self.keyed("memory.oom_control" if old else "memory.events", "oom_kill")
        account = self.number("cpuacct.usage") if self.version == 1 else None
        if self.version == 2:
            account = self.keyed("cpu.stat", "usage_usec") * 1000
        return Counters(
            memory_peak=self.number("memory.max_usage_in_bytes" if old else "memory.peak"),
            oom_kills=kills,
            pids_peak=self.number("pids.peak"),
            pids_refused=self.keyed("pids.events", "max"),
            cpu=None if account is None else account / 1e9,
            oom=self.judge_oom(kills),
        )

    def judge_oom(self, kills: int) -> Oom | None:
        """Whose limit the last kills were for; one OOM kills one after the other."""
        if kills > self.oom_kills and self.memory_levels is not None:
            verdict = self.memory_levels.oom()
            if self.oom is None or verdict.whose != "machine":
                self.oom = verdict
            self.oom_kills = kills
            self.memory_levels = self.memory_levels.now()
        return self.oom

    def pids(self) -> list[int]:
        """Processes of the box, but for its init; as this process sees them."""
        return pids_below(next(iter(self.directories.values())))

    def close(self) -> None:
        """Kill what is left, remove, unlock. A fork of the owner only closes its descriptors."""
        self.files.close()
        for fd in (*self.join_fds.values(), self.cgroup_fd, self.init_fd):
            if fd >= 0:
                os.close(fd)
        self.join_fds, self.cgroup_fd, self.init_fd = {}, -1, -1
        ours = self.owner == os.getpid()
        try:
            for top in self.tops if ours else ():
                remove_tree(top)
        finally:
            for fd in self.lock_fds:
                os.close(fd)
            self.lock_fds = []
        for top in self.tops if ours else ():
            with suppress(OSError):  # ENOTEMPTY, EBUSY: in use by others
                os.rmdir(os.path.dirname(top))


def killed_early(counters: Counters) -> IsolateError:
    """What to raise where a program was killed in its set-up: its memory limit, if it was that."""
    oom = counters.oom
    if oom is not None and oom.whose == "box":
        return MemoryLimitExceeded(oom.limit, oom.used, oom.ceiling)
    return IsolateError(
        "the program was killed while it was being set up, before its exec: by its own limits "
        "(memory, cpu_time) or by somebody with the same uid"
    )


def reclaim_once(above: str) -> None:
    """What dead processes left, the first time that this process makes something there."""
    if (os.getpid(), above) not in RECLAIMED:
        reclaim(above)
        RECLAIMED.add((os.getpid(), above))


def add_v1(
    leaf: Leaf, name: str, mount: str, controllers: tuple[str, ...], limit: CgroupLimit
) -> None:
    """A directory in one v1 hierarchy, with its limits."""
    above = f"{mount}/{parent_name()}"
    reclaim_once(above)
    directory, held = make_leaf(above, name)
    leaf.lock_fds.append(held)
    leaf.tops.append(directory)
    for controller in controllers:
        leaf.directories[cgroup_v1.controller(controller)] = directory
        cgroup_v1.set_limits(controller, directory, limit)
        fd = os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC)
        leaf.join_fds[f"cgroup:{controller}"] = fd
    if "memory" in controllers:
        leaf.memory_levels = levels(1, directory, mount)


def add_v2(
    leaf: Leaf, name: str, names: tuple[str, ...], limit: CgroupLimit, init_uid: int | None
) -> None:
    """The v2 directory, with its controllers and limits; beside it one for a foreign init."""
    top = cgroup_place.place()
    reclaim_once(f"{top}/{parent_name()}")

    def prepare(above: str) -> None:
        cgroup_place.ready(top, names)

    directory, held = make_leaf(f"{top}/{parent_name()}", name, prepare)
    leaf.lock_fds.append(held)
    leaf.tops.append(directory)
    if init_uid is not None:
        directory = beside_init(leaf, directory, names, init_uid)
    for controller in (UNIFIED, *names):
        leaf.directories[controller] = directory
    for controller in names:
        cgroup_v2.set_limits(controller, directory, limit)
    cgroup_v2.set_standing(leaf.tops[-1], directory, names, limit)
    leaf.cgroup_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if "memory" in names:
        leaf.memory_levels = levels(2, directory, os.path.dirname(top))


def beside_init(leaf: Leaf, directory: str, names: tuple[str, ...], uid: int) -> str:
    """`init` and `box`: to start programs in the leaf, init must be allowed to write there, and
    where it is itself and the leaf meet; it has an id that nobody else has."""
    cgroup_v2.enable(directory, names)
    for below in ("init", "box"):
        os.mkdir(f"{directory}/{below}", 0o755)
    for place in (directory, f"{directory}/box"):
        os.chown(f"{place}/cgroup.procs", uid, -1)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    leaf.init_fd = os.open(f"{directory}/init", flags)
    return f"{directory}/box"


def find_place(names: tuple[str, ...]) -> None:
    """v2's place, if any of these controllers needs it: to be found before init is there.

    Raises: HostLacks.
    """
    if any(cgroup_v1.controller(each) not in cgroup_v1.mounts() for each in names):
        cgroup_place.place()


def create(
    limit: CgroupLimit, names: tuple[str, ...] | None = None, init_uid: int | None = None
) -> Leaf:
    """A leaf with these limits.

    Args:
        names: the controllers that must hold them, v2's names; None is all that are needed.
        init_uid: the host's id of an init that is not ours to the kernel, None if it is.

    Raises: HostLacks; then nothing is left of it.
    """
    wanted = tuple(name for name, fields in FIELDS.items() if limit.given(*fields))
    names = wanted if names is None else names
    old = tuple(each for each in names if cgroup_v1.controller(each) in cgroup_v1.mounts())
    new = tuple(each for each in names if each not in old)
    name = f"isolate-{os.getpid()}-{next(COUNT)}-{os.urandom(4).hex()}"
    leaf = Leaf(version=1 if old else 2)
    try:
        shared = cgroup_v1.hierarchies((*old, *ACCOUNTS) if old else ())
        for mount, controllers in shared.items():
            add_v1(leaf, name, mount, controllers, limit)
        if new or not old:
            add_v2(leaf, name, new, limit, init_uid)
    except OSError as error:
        leaf.close()
        if error.errno in TROUBLE:
            raise
        raise HostLacks("cgroup", f"making {name}: {error}") from error
    except BaseException:
        leaf.close()
        raise
    return leaf
