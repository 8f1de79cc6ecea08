# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, one class a cause; every message says what, on what, why, and what to do."""

from __future__ import annotations

import errno as errno_names
import os
from collections.abc import Sequence
from typing import Any

__all__ = [
    "CpuTimeLimitExceeded",
    "FileSizeLimitExceeded",
    "HostLacks",
    "IsolateError",
    "LaunchError",
    "LimitExceeded",
    "MemoryLimitExceeded",
    "OutputLimitExceeded",
    "PidsLimitExceeded",
    "PolicyConflict",
    "PolicyError",
    "RemoteError",
    "ReplyError",
    "SandboxViolation",
    "SupervisorError",
    "TimeLimitExceeded",
    "Undecided",
    "Unsandboxed",
]


class IsolateError(Exception):
    """Base of every error that this library raises by itself."""


class PolicyError(IsolateError, ValueError):
    """A value of a policy, or of a call, that can't mean anything.

    Attributes:
        problems: one sentence each; a policy file reports all of its mistakes together.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems: tuple[str, ...] = problems

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        lines = "".join(f"\n  {i}. {p}" for i, p in enumerate(self.problems, 1))
        return f"{len(self.problems)} mistakes:{lines}"


class PolicyConflict(PolicyError):
    """Two primitives that can't both hold: two roots, say."""


class Undecided(IsolateError):
    """A question about filters that would take more memory than it may; the answer is unknown."""


class HostLacks(IsolateError):
    """This machine can't enforce what was asked for, and the policy doesn't allow less.

    Attributes:
        what: the feature's name, as `weaken=` takes it.
        why: what was looked at, and found.
        hint: what to do about it; may be empty.
    """

    def __init__(self, what: str, why: str, hint: str = "") -> None:
        super().__init__(what, why, hint)
        self.what, self.why, self.hint = what, why, hint

    def __str__(self) -> str:
        tail = f"\n  hint: {self.hint}" if self.hint else ""
        return f"this machine can't enforce {self.what}: {self.why}{tail}"


def errno_text(number: int) -> str:
    """`No such file or directory (ENOENT)`; the kernel's number, in words and by name."""
    name = errno_names.errorcode.get(number, str(number))
    return f"{os.strerror(number)} ({name})"


class LaunchError(IsolateError, OSError):
    """A launch step failed; the program inside never ran.

    Attributes:
        step: index of the op in its part of the plan, from 0.
        op: the `isolate.plan.model.Op` that failed, or the parent `Step`;
            `op.origin` is the primitive that asked.
        errno: positive, from the kernel.
        hint: one sentence, or None.
        steps: how many steps that part of the plan has.
    """

    def __init__(
        self, step: int, op: Any, errno: int, hint: str | None = None, *, steps: int = 0
    ) -> None:
        super().__init__(errno, os.strerror(errno))
        self.step, self.op, self.errno, self.hint, self.steps = step, op, errno, hint, steps

    def __reduce__(self) -> tuple[Any, ...]:
        return _launch_error, (self.step, self.op, self.errno, self.hint, self.steps)

    @property
    def origin(self) -> Any:
        """The primitive that asked for the op that failed."""
        return getattr(self.op, "origin", None)

    def __str__(self) -> str:
        about = getattr(self.op, "about", None) or str(self.op)
        code = getattr(getattr(self.op, "code", None), "name", type(self.op).__name__)
        of = f" of {self.steps}" if self.steps else ""
        asked = f", asked for by {self.origin}" if self.origin is not None else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        why = errno_text(self.errno or 0)
        return f"{about}: {why}\n  step {self.step}{of}, {code}{asked}{hint}"


def _launch_error(step: int, op: Any, errno: int, hint: str | None, steps: int) -> LaunchError:
    return LaunchError(step, op, errno, hint, steps=steps)


class SupervisorError(IsolateError, OSError):
    """Watching a program failed on the caller's side, so it was killed (law 2).

    Attributes:
        about: what was being done.
        errno: positive, from the kernel.
    """

    def __init__(self, about: str, errno: int) -> None:
        super().__init__(errno, os.strerror(errno))
        self.about, self.errno = about, errno

    def __reduce__(self) -> tuple[Any, ...]:
        return SupervisorError, (self.about, self.errno)

    def __str__(self) -> str:
        return f"{self.about}: {errno_text(self.errno or 0)}; the program was killed"


class Unsandboxed(IsolateError, RuntimeError):
    """A process start inside a `with` block of primitives; it would have run outside the box."""


class LimitExceeded(IsolateError):
    """A call inside crossed one of its limits.

    Attributes:
        limit: "memory", "pids", "timeout", "cpu_time", "output" or "files_size".
        used: what was seen, in the limit's unit (bytes, seconds, processes); None where unknown.
        ceiling: the limit itself, same unit.
    """

    def __init__(
        self, limit: str, used: float | None = None, ceiling: float | None = None
    ) -> None:
        super().__init__(limit, used, ceiling)
        self.limit, self.used, self.ceiling = limit, used, ceiling

    def __str__(self) -> str:
        used = "" if self.used is None else f": used {self.used}"
        ceiling = "" if self.ceiling is None else f", allowed {self.ceiling}"
        return f"the sandbox crossed its {self.limit} limit{used}{ceiling}"


class MemoryLimitExceeded(LimitExceeded, MemoryError):
    """The kernel killed the sandbox because its memory ceiling was reached; sizes in bytes."""


class TimeLimitExceeded(LimitExceeded, TimeoutError):
    """The wall-clock limit passed; seconds."""

    def __str__(self) -> str:
        return LimitExceeded.__str__(self)


class CpuTimeLimitExceeded(LimitExceeded):
    """The sandbox used more processor time than allowed; seconds."""


class PidsLimitExceeded(LimitExceeded):
    """The sandbox wanted more processes than allowed."""


class OutputLimitExceeded(LimitExceeded):
    """The sandbox wrote more output than allowed; bytes."""


class FileSizeLimitExceeded(LimitExceeded):
    """The sandbox wrote a file larger than allowed; bytes."""


class SandboxViolation(IsolateError):
    """The code inside did what its policy forbids, and the policy says that this ends it.

    Attributes:
        violations: what was seen, oldest first.
    """

    def __init__(self, message: str, violations: Sequence[Any] = ()) -> None:
        super().__init__(message, tuple(violations))
        self.message, self.violations = message, tuple(violations)

    def __str__(self) -> str:
        return self.message


class ReplyError(IsolateError):
    """The inside broke the protocol: a reply that is malformed, too large, or missing."""


class RemoteError(IsolateError):
    """The callable raised an exception whose class may not be rebuilt here.

    Attributes:
        type_name: the class's qualified name, as the inside gave it (not trusted).
        message: its text, bounded.
        traceback: the remote traceback as text, bounded.
    """

    def __init__(self, type_name: str, message: str, traceback: str = "") -> None:
        super().__init__(type_name, message, traceback)
        self.type_name, self.message, self.traceback = type_name, message, traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"
