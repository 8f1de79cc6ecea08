# SPDX-License-Identifier: Apache-2.0
"""Whose memory limit the kernel killed for: the leaf's, a cgroup's above, the machine's.

A counter of each level is read before the programs start and again after a kill, before the leaf
is removed: v2 counts a limit's own kills in memory.events.local, v1 its refusals in memory.failcnt.
Some kernels (6.18 for one) no longer count those; there a level that was ever full is the reason.
"""

from __future__ import annotations

import os

from attrs import frozen

from isolate.supervise.cgroup_files import UNLIMITED, keyed, number

__all__ = ["Levels", "Oom", "levels"]

BATCH = 64 * 4096


@frozen
class Oom:
    """One verdict.

    Attributes:
        whose: "box", the directory of a cgroup above it, or "machine".
        limit: "memory" or "swap": what was full.
        used, ceiling: bytes, None where the kernel doesn't tell.
    """

    whose: str
    limit: str = "memory"
    used: int | None = None
    ceiling: int | None = None


def number_if(directory: str, file: str) -> int | None:
    """A file's number; None if there is no such file, or no limit in it."""
    try:
        found = number(directory, file)
    except (OSError, ValueError):
        return None
    return None if found >= UNLIMITED else found


@frozen
class Levels:
    """The leaf and the cgroups above it, with what each had counted at the start."""

    version: int
    counted: tuple[tuple[str, int], ...]

    def count(self, directory: str) -> int:
        """How often this level's own limit was the reason."""
        return count(self.version, directory)

    def oom(self) -> Oom:
        """Whose limit it was: the nearest level that has counted since the start."""
        for index, (directory, before) in enumerate(self.counted):
            if self.count(directory) > before or (self.version == 1 and full(directory)):
                return self.told(directory, "box" if index == 0 else directory)
        return Oom("machine")

    def now(self) -> Levels:
        """The same levels, counted again."""
        return Levels(self.version, tuple((each, self.count(each)) for each, _ in self.counted))

    def told(self, directory: str, whose: str) -> Oom:
        """How far that level was."""
        if self.version == 2:
            used = number_if(directory, "memory.peak")
            return Oom(whose, "memory", used, number_if(directory, "memory.max"))
        ceiling = number_if(directory, "memory.limit_in_bytes")
        both = number_if(directory, "memory.memsw.limit_in_bytes")
        if both != ceiling and full(directory, "memory.memsw"):
            return Oom(whose, "swap", number_if(directory, "memory.memsw.max_usage_in_bytes"), both)
        return Oom(whose, "memory", number_if(directory, "memory.max_usage_in_bytes"), ceiling)


def full(directory: str, what: str = "memory") -> bool:
    """v1: whether usage ever came as near to the limit as charges come, which are batched."""
    ceiling = number_if(directory, f"{what}.limit_in_bytes")
    peak = number_if(directory, f"{what}.max_usage_in_bytes")
    return ceiling is not None and peak is not None and peak >= ceiling - BATCH


def count(version: int, directory: str) -> int:
    """One level's counter, 0 where there is none."""
    try:
        if version == 2:
            return keyed(directory, "memory.events.local", "oom")
        both = number_if(directory, "memory.memsw.failcnt") or 0
        return number(directory, "memory.failcnt") + both
    except OSError:
        return 0


def levels(version: int, leaf: str, mount: str) -> Levels:
    """The state at the start, from the leaf up to the mount point."""
    found, here = [], leaf
    while here.startswith(mount) and here != "/":
        if os.path.exists(f"{here}/memory.events.local" if version == 2 else f"{here}/tasks"):
            found.append((here, count(version, here)))
        if here == mount:
            break
        here = os.path.dirname(here)
    return Levels(version, tuple(found))
