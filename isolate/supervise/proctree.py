# SPDX-License-Identifier: Apache-2.0
"""The processes below one, from /proc: for boxes without a cgroup, and for the list of boxes.

Every text here may be the work of somebody hostile (a process names itself): parsed by position,
shown only through `printable`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from attrs import frozen

__all__ = ["INIT", "ProcessFacts", "below", "inhabitants", "parse_stat", "printable", "snapshot"]

INIT = "isolate-init"
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")
MOST_READ = 4096


@frozen(kw_only=True)
class ProcessFacts:
    """One process, as /proc/PID/stat has it.

    Attributes:
        pid, parent: as this process's /proc numbers them.
        name: of the executable, by the process's own word.
        state: one letter.
        cpu: seconds of processor time, of its own.
        reaped: seconds of the children that it waited for.
        threads: how many it has.
        started: clock ticks after boot.
        resident: bytes.
    """

    pid: int
    parent: int
    name: str
    state: str
    cpu: float
    reaped: float
    threads: int
    started: int
    resident: int


def printable(text: str, most: int = 200) -> str:
    """`text` without anything that a terminal would act on, and not longer than `most`."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:most])
    return shown + ("…" if len(text) > most else "")


def parse_stat(text: str) -> ProcessFacts | None:
    """The content of /proc/PID/stat; None if it is not that. The name may hold anything.

    Source: proc_pid_stat(5).
    """
    before, opened, rest = text.partition("(")
    name, closed, after = rest.rpartition(")")
    fields = after.split()
    if not opened or not closed or len(fields) < 22:
        return None
    try:
        user, system, children_user, children_system = map(int, fields[11:15])
        return ProcessFacts(
            pid=int(before),
            parent=int(fields[1]),
            name=name,
            state=fields[0],
            cpu=(user + system) / TICKS,
            reaped=(children_user + children_system) / TICKS,
            threads=int(fields[17]),
            started=int(fields[19]),
            resident=int(fields[21]) * PAGE,
        )
    except ValueError:
        return None


def read_text(path: str) -> str | None:
    """The first 4 KiB of a file of /proc; None if the process is gone or not ours to see."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, MOST_READ).decode("utf-8", "replace")
        finally:
            os.close(fd)
    except OSError:
        return None


def snapshot(proc: str = "/proc") -> dict[int, ProcessFacts]:
    """Every process that we may see, by pid."""
    found = {}
    for name in os.listdir(proc):
        if name.isascii() and name.isdigit():
            facts = parse_stat(read_text(f"{proc}/{name}/stat") or "")
            if facts is not None:
                found[facts.pid] = facts
    return found


def below(root: int, processes: Iterable[ProcessFacts]) -> list[ProcessFacts]:
    """The descendants of `root`, without itself, parents before children."""
    children: dict[int, list[ProcessFacts]] = {}
    for each in processes:
        children.setdefault(each.parent, []).append(each)
    found: list[ProcessFacts] = []
    seen, todo = {root}, [root]
    while todo:
        for each in children.get(todo.pop(), ()):
            if each.pid not in seen:
                seen.add(each.pid)
                found.append(each)
                todo.append(each.pid)
    return found


def is_own(process: ProcessFacts, proc: str = "/proc") -> bool:
    """Whether it is isolate-init's own work, and not a program that has taken that name: programs
    have no_new_privs, which can't be put off."""
    if process.name != INIT:
        return False
    status = read_text(f"{proc}/{process.pid}/status") or ""
    return "\nNoNewPrivs:\t0\n" in status


def inhabitants(
    init_pid: int, processes: Iterable[ProcessFacts], proc: str = "/proc"
) -> tuple[list[ProcessFacts], list[ProcessFacts]]:
    """(the processes of a box, isolate-init's own there): a keeper for each program, and before
    them, in a box with an AppArmor profile, the steward (docs/adr/0018)."""
    inside: list[ProcessFacts] = []
    own: dict[int, ProcessFacts] = {}
    for each in below(init_pid, processes):
        if (each.parent == init_pid or each.parent in own) and is_own(each, proc):
            own[each.pid] = each
        else:
            inside.append(each)
    return inside, list(own.values())


def command_line(pid: int, proc: str = "/proc") -> str:
    """Its arguments with spaces between, printable; empty for a kernel thread or a zombie."""
    text = read_text(f"{proc}/{pid}/cmdline") or ""
    return printable(text.rstrip("\0").replace("\0", " "))
