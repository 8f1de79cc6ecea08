# SPDX-License-Identifier: Apache-2.0
"""`Timeline`: memory and processor time of a run at an interval, bounded in number."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import Factory, define, frozen

from isolate.errors import PolicyError
from isolate.policy.fields import parse_seconds
from isolate.supervise.leafstats import Moment

__all__ = ["MOST_SAMPLES", "Sample", "Timeline", "timeline_interval"]

MOST_SAMPLES = 512
DEFAULT_SECONDS = 0.05
LEAST_SECONDS = 0.005


@frozen
class Sample:
    """The box at one moment of a run.

    Attributes:
        at: seconds since the program's start.
        memory: bytes that are charged to the box now; None where that is not counted.
        cpu: seconds of processor time since the program's start; None where not counted.
    """

    at: float
    memory: int | None
    cpu: float | None


def timeline_interval(value: Any) -> float | None:
    """Seconds between samples: True is 50 ms, False and None are no timeline.

    Raises: PolicyError, for less than 5 ms.
    """
    if value is None or value is False:
        return None
    if value is True:
        return DEFAULT_SECONDS
    seconds = parse_seconds(value)
    if seconds < LEAST_SECONDS:
        raise PolicyError(f"timeline= takes True or an interval of at least 5 ms, not {value!r}")
    return seconds


@define
class Timeline:
    """Collects samples; when there are too many, every second one goes and the interval doubles.

    The first sample and the last always stay.
    """

    read: Callable[[], Moment]
    interval: float
    began: float = Factory(time.monotonic)
    samples: list[Sample] = Factory(list)
    cpu_began: float = 0.0
    due: float = 0.0

    def patience(self, now: float) -> float:
        """Seconds until the next sample is due."""
        return self.began + self.due - now

    def look(self, now: float) -> None:
        """Take a sample if it is time."""
        if now - self.began >= self.due:
            self.take(now)

    def take(self, now: float) -> None:
        """Take a sample."""
        moment = self.read()
        if moment.memory is None and moment.cpu is None:
            return  # nothing is counted, or the box has ended
        if not self.samples:
            self.cpu_began = moment.cpu or 0.0
        cpu = None if moment.cpu is None else max(0.0, moment.cpu - self.cpu_began)
        at = max(0.0, now - self.began)
        self.samples.append(Sample(at, moment.memory, cpu))
        if len(self.samples) >= MOST_SAMPLES:
            self.samples = self.samples[::2]
            self.interval *= 2
        self.due = at + self.interval

    def finish(self) -> None:
        """The last sample, of the end; in the place of one that was taken just before."""
        now = time.monotonic()
        late = [each for each in self.samples[1:] if self.began + each.at > now - self.interval / 4]
        del self.samples[len(self.samples) - len(late) :]
        self.take(now)
