# SPDX-License-Identifier: Apache-2.0
"""`Meter`: what a box's counters say of one run, from before its start to after its end."""

from __future__ import annotations

import time
from typing import TypeVar

from isolate.supervise.cgroupfs import Counters
from isolate.supervise.launch import Session
from isolate.supervise.leafstats import Extra
from isolate.supervise.outcome import Seen
from isolate.supervise.process import End
from isolate.supervise.pump import Pump
from isolate.supervise.timeline import Sample, Timeline
from isolate.supervise.usage import Usage

__all__ = ["Meter", "baseline"]

N = TypeVar("N", int, float)


def difference(before: N | None, after: N | None) -> N | None:
    """What came in between; None where nothing is counted."""
    return None if after is None else after - (before or 0)


Baseline = tuple[Counters, Extra]


def baseline(session: Session) -> Baseline:
    """The counters before a program is started: what a quick one does counts from the first."""
    if session.spawned == 0:  # a box's cgroup is its own and new: nothing was counted
        return Counters(cpu=0.0), Extra()
    return session.counters(), session.extra()


class Meter:
    """Made when the program has started; asked when it has ended."""

    def __init__(
        self, session: Session, pump: Pump, before: Baseline, interval: float | None = None
    ) -> None:
        """
        Args:
            before: `baseline` from before the start.
            interval: seconds between the samples of a timeline, None for no timeline.
        """
        self.session, self.pump = session, pump
        self.before, self.extra_before = before
        pump.base = self.before
        self.last: Counters | None = None
        self.wall = 0.0
        self.timeline: Timeline | None = None
        if interval is not None:
            self.timeline = pump.timeline = Timeline(session.moment, interval, pump.began)

    def run(self) -> End:
        """Pump until the end."""
        end = self.pump.run()
        if self.pump.verdict is not None and self.pump.process.serial:
            self.session.kill_tree(self.pump.process, wait=True)  # nothing of it may live on
        self.wall = time.monotonic() - self.pump.began
        return end

    def after(self) -> Counters:
        """The counters after the end, read once."""
        if self.last is None:
            self.last = self.session.counters()
        return self.last

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The timeline, oldest first; empty if none was asked for."""
        return tuple(self.timeline.samples) if self.timeline is not None else ()

    def seen(self, end: End) -> Seen:
        """For `judge`."""
        after = self.after()
        return Seen(
            status=end.status,
            verdict=self.pump.verdict,
            oom_kills=after.oom_kills - self.before.oom_kills,
            pids_refused=after.pids_refused - self.before.pids_refused,
            memory_peak=after.memory_peak,
            pids_peak=after.pids_peak,
            oom=after.oom,
            cpu=difference(self.before.cpu, after.cpu),
        )

    def usage(self, end: End) -> Usage:
        """For the result."""
        after, extra = self.after(), self.session.extra()
        return Usage(
            wall=self.wall,
            user=end.user,
            system=end.system,
            cpu=difference(self.before.cpu, after.cpu),
            peak_memory=after.memory_peak if after.memory_peak is not None else end.max_rss,
            pids_peak=after.pids_peak,
            output=self.pump.written,
            throttled=difference(self.extra_before.throttled, extra.throttled),
            read=difference(self.extra_before.read, extra.read),
            written=difference(self.extra_before.written, extra.written),
            oom_kills=after.oom_kills - self.before.oom_kills,
            pids_refused=after.pids_refused - self.before.pids_refused,
        )
