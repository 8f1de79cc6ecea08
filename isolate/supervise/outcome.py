# SPDX-License-Identifier: Apache-2.0
"""How a run ended, each way its own type; and the verdict from what was seen. Pure."""

from __future__ import annotations

import signal
from typing import Any

from attrs import frozen

from isolate.plan.model import Limits
from isolate.supervise.cgroup_oom import Oom

__all__ = ["Exited", "Killed", "LimitHit", "Outcome", "Seen", "TimedOut", "Violated", "judge"]


@frozen
class Exited:
    """It ended by itself.

    Attributes:
        code: 0 to 255.
    """

    code: int


@frozen
class Killed:
    """A signal ended it, and no limit of ours was the reason.

    Attributes:
        signal: a `signal.Signals`, or an int where that has no name.
    """

    signal: int


@frozen
class TimedOut:
    """The wall-clock limit passed and everything was killed.

    Attributes:
        limit: seconds.
    """

    limit: float


@frozen
class LimitHit:
    """A ceiling was reached.

    Attributes:
        limit: "memory", "swap", "pids", "cpu_time", "output" or "files_size".
        used: what was seen, in the limit's unit; None where the kernel doesn't tell.
        ceiling: the limit, in bytes, processes or seconds.
        whose: "box"; for memory also the cgroup above it whose limit it was, or "machine".
    """

    limit: str
    used: float | None
    ceiling: float | None
    whose: str = "box"


@frozen
class Violated:
    """A system call that its policy forbids ended it.

    Attributes:
        syscall: its name, or None where it is not known.
        args: as numbers.
        mechanism: "seccomp", say.
    """

    syscall: str | None
    args: tuple[Any, ...]
    mechanism: str


Outcome = Exited | Killed | TimedOut | LimitHit | Violated


@frozen(kw_only=True)
class Seen:
    """What the supervisor saw while a program ran.

    Attributes:
        status: as wait4(2) gives it.
        verdict: the first limit that made us kill it, if any.
        oom_kills, pids_refused: of the box's cgroup, during this run.
        memory_peak, pids_peak: of the box's cgroup, None where unknown.
        oom: whose memory limit the last kill was for.
        cpu: seconds of processor time of the box's cgroup during this run, None where unknown.
    """

    status: int
    verdict: TimedOut | LimitHit | Violated | None = None
    oom_kills: int = 0
    pids_refused: int = 0
    memory_peak: int | None = None
    pids_peak: int | None = None
    oom: Oom | None = None
    cpu: float | None = None


def cpu_verdict(seen: Seen, limits: Limits, number: int | None) -> LimitHit | None:
    """The limit of processor time, also where the program ended between two looks.

    RLIMIT_CPU's signal counts only where nobody has counted otherwise: a program may send it.
    """
    if limits.cpu_time is None:
        return None
    over = number == signal.SIGXCPU if seen.cpu is None else seen.cpu >= limits.cpu_time
    return LimitHit("cpu_time", seen.cpu, limits.cpu_time) if over else None


def signal_of(status: int) -> int | None:
    """The signal that ended a process, None if it exited."""
    number = status & 0x7F
    return number or None


def named(number: int) -> int:
    """The signal by name where it has one."""
    try:
        return signal.Signals(number)
    except ValueError:
        return number


def memory_hit(oom: Oom | None, peak: int | None, ceiling: int | None) -> LimitHit:
    """An OOM kill: of the box's own limit, or of one that is not ours."""
    if oom is None or (oom.whose == "box" and oom.limit == "memory"):
        return LimitHit("memory", peak, ceiling)
    return LimitHit(oom.limit, oom.used or peak, oom.ceiling, oom.whose)


def judge(seen: Seen, limits: Limits) -> Outcome:
    """The outcome; the first verdict wins, then the kernel's own counters, then the status."""
    if seen.verdict is not None:
        return seen.verdict
    number = signal_of(seen.status)
    if seen.oom_kills:
        return memory_hit(seen.oom, seen.memory_peak, limits.memory)
    if (over := cpu_verdict(seen, limits, number)) is not None:
        return over
    if number == signal.SIGXFSZ and limits.files_size is not None:
        return LimitHit("files_size", None, limits.files_size)
    if seen.pids_refused and limits.pids is not None:
        return LimitHit("pids", seen.pids_peak or limits.pids, limits.pids)
    if number == signal.SIGSYS:
        return Violated(None, (), "seccomp")
    if number is not None:
        return Killed(named(number))
    return Exited(seen.status >> 8 & 0xFF)
