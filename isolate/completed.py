# SPDX-License-Identifier: Apache-2.0
"""What `run` gives back, and the errors of `check=True`."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

from isolate.plan.model import Guarantee
from isolate.supervise.outcome import Exited, Killed, LimitHit, Outcome, TimedOut, Violated
from isolate.supervise.timeline import Sample
from isolate.supervise.timing import Timing
from isolate.supervise.usage import Usage
from isolate.supervise.violations import Violation

__all__ = ["Completed", "RunFailed", "RunTimedOut", "return_code"]


class Completed(subprocess.CompletedProcess[Any]):
    """A `subprocess.CompletedProcess` that knows more.

    Attributes:
        outcome: `Exited`, `Killed`, `TimedOut`, `LimitHit` or `Violated`.
        usage: what it used.
        guarantees: what held, and what was weakened on this machine.
        violations: refused system calls that were reported.
        timing: seconds of set-up by phase, a mapping by name.
        timeline: memory and processor time while it ran, oldest first, if `timeline=` asked for
            it: True is a `Sample` every 50 ms, a number its interval in seconds. When there are
            512, every second one goes and the interval doubles.
    """

    def __init__(
        self,
        args: Any,
        returncode: int,
        stdout: Any,
        stderr: Any,
        *,
        outcome: Outcome,
        usage: Usage,
        guarantees: tuple[Guarantee, ...],
        timing: Timing,
        timeline: tuple[Sample, ...] = (),
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.outcome = outcome
        self.usage = usage
        self.guarantees = guarantees
        self.violations: tuple[Violation, ...] = ()
        self.timing = timing
        self.timeline = timeline

    def check_returncode(self) -> None:
        """Raises: RunTimedOut, RunFailed, unless it exited with 0."""
        if isinstance(self.outcome, TimedOut):
            raise RunTimedOut(self)
        if self.outcome != Exited(0):
            raise RunFailed(self)


class RunFailed(subprocess.CalledProcessError):
    """It didn't exit with 0; `completed.outcome` says how it ended."""

    def __init__(self, completed: Completed) -> None:
        super().__init__(
            completed.returncode, completed.args, completed.stdout, completed.stderr
        )
        self.completed, self.outcome = completed, completed.outcome

    def __reduce__(self) -> tuple[Any, ...]:
        return RunFailed, (self.completed,)

    def __str__(self) -> str:
        return f"{self.cmd!r} ended with {self.outcome}"


class RunTimedOut(subprocess.TimeoutExpired):
    """The wall-clock limit passed; everything in the box's run was killed."""

    def __init__(self, completed: Completed) -> None:
        limit = completed.outcome.limit if isinstance(completed.outcome, TimedOut) else 0.0
        super().__init__(completed.args, limit, completed.stdout, completed.stderr)
        self.completed, self.outcome = completed, completed.outcome

    def __reduce__(self) -> tuple[Any, ...]:
        return RunTimedOut, (self.completed,)


def return_code(outcome: Outcome, status: int) -> int:
    """As subprocess gives it: the exit code, or minus the signal."""
    if isinstance(outcome, Exited):
        return outcome.code
    if isinstance(outcome, Killed):
        return -int(outcome.signal)
    if isinstance(outcome, Violated):
        return -int(signal.SIGSYS)  # whoever killed it, the kernel or the supervisor
    if isinstance(outcome, LimitHit) and not status & 0x7F:
        return status >> 8 & 0xFF
    return -(status & 0x7F or 9)
