# SPDX-License-Identifier: Apache-2.0
"""How long set-up took, by phase: stamps while it runs, arithmetic when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from attrs import frozen

from isolate.abi.ops import Phase

__all__ = ["Timing"]


@frozen(kw_only=True, eq=False, slots=False)
class Timing(Mapping[str, float]):
    """Seconds by part, in the order in which they passed; what did not happen is absent.

    "prepare", "clone" and "set_up" are the caller's three stretches of a box. "ids", "namespace",
    "network", "mount" and "root" are parts of "set_up", by the kernel's clock in isolate-init; the
    first of them holds the request's way to it as well. "start" is one program's way from its
    clone to its exec.

    Attributes:
        began, prepared, cloned: the caller's stamps, seconds of CLOCK_MONOTONIC.
        ended_ns: when init had set the box up, nanoseconds of the same clock.
        phase_ns: when each phase ended, 0 for one without an op.
        spawned_ns, ready_ns: when a program was cloned, and was about to exec.
    """

    began: float = 0.0
    prepared: float = 0.0
    cloned: float = 0.0
    ended_ns: int = 0
    phase_ns: tuple[int, ...] = ()
    spawned_ns: int = 0
    ready_ns: int = 0

    @cached_property
    def parts(self) -> dict[str, float]:
        """Made when it is first read."""
        found: dict[str, float] = {}
        if self.ended_ns:
            found["prepare"] = self.prepared - self.began
            found["clone"] = self.cloned - self.prepared
            found["set_up"] = self.ended_ns / 1e9 - self.cloned
            found.update(self.phases())
        if self.ready_ns > self.spawned_ns > 0:  # in a time namespace of its own they may differ
            found["start"] = (self.ready_ns - self.spawned_ns) / 1e9
        return found

    def phases(self) -> dict[str, float]:
        """The parts of "set_up"."""
        found: dict[str, float] = {}
        last = self.cloned
        for phase, stamp in zip(Phase, self.phase_ns, strict=False):
            if stamp:
                found[phase.name.lower()] = stamp / 1e9 - last
                last = stamp / 1e9
        return found

    def of_program(self, stamps: tuple[int, int]) -> Timing:
        """With the start of one program: (cloned, about to exec), nanoseconds."""
        made = Timing.__new__(Timing)  # as attrs.evolve, at a fifth of its cost: each run does it
        vars(made).update(vars(self), spawned_ns=stamps[0], ready_ns=stamps[1])
        vars(made).pop("parts", None)
        return made

    @property
    def total(self) -> float:
        """Seconds of the box's set-up, without the program."""
        return self.ended_ns / 1e9 - self.began if self.ended_ns else 0.0

    def __getitem__(self, name: str) -> float:
        return self.parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value * 1e6:.0f} us" for name, value in self.items())
