# SPDX-License-Identifier: Apache-2.0
"""`Observed`: the verbs of a live box that look at it, stop it and end it."""

from __future__ import annotations

from isolate.supervise import boxstats
from isolate.supervise.cgroupfs import Counters
from isolate.supervise.launch import Session
from isolate.supervise.stats import Stats
from isolate.supervise.watch import Watch

__all__ = ["Observed"]


class Observed:
    """A box with a session."""

    session: Session

    @property
    def cgroup(self) -> dict[str, str]:
        """The box's cgroup directory by controller: v1's on v1, on v2 the same for each of them
        and for "unified"; empty where the box has none."""
        leaf = self.session.made.leaf
        return {} if leaf is None else dict(leaf.directories)

    def counters(self) -> Counters:
        """The cgroup's counters."""
        return self.session.counters()

    def stats(self) -> Stats:
        """What the box uses now: memory, processor time, processes, input and output, pressure.

        Raises: IsolateError, if it has ended.
        """
        return boxstats.stats(self.session)

    def watch(self, interval: float | str = 1.0) -> Watch:
        """Its `stats` at an interval, for `for` and for `async for`; ends with the box.

        Raises: PolicyError, for an interval under 10 ms.
        """
        return boxstats.watch(self.session, interval)

    def freeze(self) -> None:
        """Stop every program where it is, and let none start; returns when all have stopped.

        Limits of wall time count on: what runs out of it while frozen is killed.

        Raises: HostLacks, where the box has no cgroup; IsolateError.
        """
        boxstats.freeze(self.session)

    def thaw(self) -> None:
        """Let frozen programs go on. Raises: IsolateError."""
        boxstats.thaw(self.session)

    def kill(self) -> None:
        """End every process of the box now, frozen or not."""
        boxstats.kill(self.session)
