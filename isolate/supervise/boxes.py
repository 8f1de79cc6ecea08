# SPDX-License-Identifier: Apache-2.0
"""The boxes of this machine, whoever opened them: by their locked leaves, and by their inits.

Reads only, and takes no lock: whose lock a leaf has is in /proc/locks.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from attrs import evolve, frozen

from isolate.supervise import cgroupfs
from isolate.supervise.leafstats import UNIFIED, read_directories, read_tree, text_of
from isolate.supervise.proctree import (
    INIT,
    ProcessFacts,
    command_line,
    inhabitants,
    printable,
    snapshot,
)
from isolate.supervise.stats import Stats

__all__ = ["BoxFacts", "find_boxes", "parse_locks", "parse_mounts"]

NAME = re.compile(r"isolate-(\d{1,10})-(\d{1,10})-[0-9a-f]{8}", re.ASCII)
LOCK = re.compile(r"\bFLOCK\s.*\s([0-9a-f]+):([0-9a-f]+):(\d+)\s", re.ASCII)
MOST_DIRECTORIES = 20_000
DEPTH = 12


@frozen(kw_only=True)
class BoxFacts:
    """One box, seen from outside.

    Attributes:
        name: of its leaf; "init-PID" where it has none that we can see.
        owner: pid of the process that opened it; 0 if unknown.
        owner_name: what that process calls itself, printable.
        init: pid of its isolate-init, as far as it can be told; 0 if not.
        directories: its leaf, by v1 controller or under "unified".
        processes: what runs in it, without init, parents before children where that is known.
    """

    name: str
    owner: int = 0
    owner_name: str = ""
    init: int = 0
    directories: tuple[tuple[str, str], ...] = ()
    processes: tuple[ProcessFacts, ...] = ()

    def stats(self) -> Stats:
        """What it uses now. Raises: IsolateError, OSError."""
        if not self.directories:
            return read_tree(self.init)
        found = read_directories(dict(self.directories))
        if found.frozen:
            return found
        frozen_dir = dict(self.directories).get("freezer")
        state = text_of(f"{frozen_dir}/freezer.state") if frozen_dir else None
        return evolve(found, frozen=(state or "").strip() == "FROZEN")


def parse_mounts(text: str) -> dict[str, str]:
    """Mount point by v1 controller, and "unified" for v2; of /proc/self/mounts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split()
        if len(parts) < 4:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), parts[1])
        if parts[2] == "cgroup2":
            found.setdefault(UNIFIED, point)
        elif parts[2] == "cgroup":
            for name in parts[3].split(","):
                if name in cgroupfs_names():
                    found.setdefault(name, point)
    return found


def cgroupfs_names() -> frozenset[str]:
    """v1 controllers in which a leaf may lie."""
    return frozenset(("memory", "pids", "cpu", "cpuacct", "cpuset", "freezer", "blkio"))


def parse_locks(text: str) -> set[tuple[int, int, int]]:
    """(major, minor, inode) of every file that is locked by flock(2); of /proc/locks."""
    found = set()
    for line in text.splitlines():
        match = LOCK.search(line)
        if match:
            found.add((int(match[1], 16), int(match[2], 16), int(match[3])))
    return found


def is_locked(directory: str, locks: set[tuple[int, int, int]]) -> bool:
    """Whether its owner lives."""
    try:
        seen = os.stat(directory)
    except OSError:
        return False
    return (os.major(seen.st_dev), os.minor(seen.st_dev), seen.st_ino) in locks


def leaves_below(top: str) -> Iterator[tuple[str, str]]:
    """(name, directory) of what is named like a leaf of ours, bounded in depth and number."""
    for count, (place, names, _) in enumerate(os.walk(top)):
        if count > MOST_DIRECTORIES:
            return
        for name in [each for each in names if NAME.fullmatch(each)]:
            names.remove(name)
            yield name, f"{place}/{name}"
        if place.count("/") - top.count("/") >= DEPTH:
            names.clear()


def live_leaves(mounts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Directories by leaf, of those whose owner lives."""
    locks = parse_locks(Path("/proc/locks").read_text(encoding="utf-8", errors="replace"))
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for controller, mount in mounts.items():
        for name, directory in leaves_below(mount):
            if is_locked(directory, locks):
                inner = f"{directory}/box"  # v2, root's: beside it is init's own cgroup
                split = controller == UNIFIED and os.path.isdir(inner)
                found[name][controller] = inner if split else directory
    return dict(found)


def inits(processes: Mapping[int, ProcessFacts]) -> list[ProcessFacts]:
    """Every isolate-init, oldest first; both names are its own word, so this is for display."""
    named = {each.pid: each for each in processes.values() if each.name == INIT}
    found = [
        each
        for each in named.values()
        if each.parent not in named and each.state != "Z" and command_line(each.pid) == INIT
    ]
    return sorted(found, key=age)


def age(process: ProcessFacts) -> tuple[int, int]:
    """For sorting: the oldest first."""
    return process.started, process.pid


def members(directories: Iterable[str]) -> set[int]:
    """Processes of a leaf."""
    return {pid for directory in directories for pid in cgroupfs.pids_in(directory)}


def init_above(pids: set[int], known: set[int], processes: Mapping[int, ProcessFacts]) -> int:
    """The init that some of these descend from; 0 if that can't be told."""
    for pid in pids:
        seen: set[int] = set()
        while pid in processes and pid not in seen:
            seen.add(pid)
            if pid in known:
                return pid
            pid = processes[pid].parent
    return 0


def of_leaf(
    name: str,
    directories: Mapping[str, str],
    known: set[int],
    processes: Mapping[int, ProcessFacts],
) -> BoxFacts:
    """A box by its leaf."""
    match = NAME.fullmatch(name)
    owner = int(match[1]) if match else 0
    pids = members(directories.values())
    inside = sorted((processes[pid] for pid in pids if pid in processes), key=age)
    return BoxFacts(
        name=name,
        owner=owner,
        owner_name=printable(processes[owner].name) if owner in processes else "",
        init=init_above(pids, known, processes),
        directories=tuple(sorted(directories.items())),
        processes=tuple(inside),
    )


def paired(boxes: list[BoxFacts], rest: list[ProcessFacts]) -> list[BoxFacts]:
    """Leaves without a process are given their owner's inits that are left, oldest to oldest."""
    left = list(rest)
    found = []
    for box in sorted(boxes, key=lambda box: (box.owner, number_of(box.name))):
        if not box.init:
            mine = next((each for each in left if each.parent == box.owner), None)
            if mine is not None:
                left.remove(mine)
                box = evolve(box, init=mine.pid)
        found.append(box)
    rest[:] = left
    return found


def number_of(name: str) -> int:
    """Which of its owner's leaves it is."""
    match = NAME.fullmatch(name)
    return int(match[2]) if match else 0


def of_init(init: ProcessFacts, processes: Mapping[int, ProcessFacts]) -> BoxFacts:
    """A box without a leaf."""
    owner = processes.get(init.parent)
    inside, _ = inhabitants(init.pid, processes.values())
    return BoxFacts(
        name=f"init-{init.pid}",
        owner=init.parent,
        owner_name=printable(owner.name) if owner else "",
        init=init.pid,
        processes=tuple(inside),
    )


def find_boxes() -> list[BoxFacts]:
    """All boxes that this user can see, oldest owner first. Raises: OSError."""
    mounts = parse_mounts(Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace"))
    leaves = live_leaves(mounts)
    processes = snapshot()
    all_inits = inits(processes)
    known = {each.pid for each in all_inits}
    boxes = [of_leaf(name, places, known, processes) for name, places in leaves.items()]
    taken = {box.init for box in boxes}
    rest = [each for each in all_inits if each.pid not in taken]
    boxes = paired(boxes, rest)
    return boxes + [of_init(each, processes) for each in rest]
