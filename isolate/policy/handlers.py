# SPDX-License-Identifier: Apache-2.0
"""Handlers: functions of the caller that decide for one system call, and what they may answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from isolate.abi.signatures import pointer_free
from isolate.errors import PolicyError
from isolate.policy.rules import Action, Errno

__all__ = ["NOTIFY", "Answer", "Handler"]

NOTIFY = Action("notify")
CALLS = ("execve", "execveat", "exit_group", "rt_sigreturn")  # never a handler's
MAX_SECONDS = 3600.0
MAX_FD = (1 << 31) - 1


@frozen
class Answer:
    """What a handler decides; made by one of the class methods.

    Attributes:
        kind: "errno", "value", "fd" or "proceed".
        number: the errno, or the value, or the fd.
        at: the number that the fd gets inside; None for the lowest that is free.
        cloexec: whether exec closes it.
        ours: whether the fd is closed once the answer is given.

    Raises: PolicyError for what the kernel can't be told: the native half must not choke on it.
    """

    kind: str
    number: int = 0
    at: int | None = None
    cloexec: bool = True
    ours: bool = False

    def __attrs_post_init__(self) -> None:
        if self.kind not in ("errno", "value", "fd", "proceed"):
            raise PolicyError(f"{self.kind!r} is no kind of answer")
        places = (self.number,) if self.at is None else (self.number, self.at)
        if any(isinstance(each, bool) or not isinstance(each, int) for each in places):
            raise PolicyError(f"an answer is made of ints, not of {places!r}")
        if self.kind == "errno" and not 0 < self.number <= 4095:
            raise PolicyError("a refusal needs an errno; see Answer.value(0)")
        if self.kind == "value" and (
            not -(1 << 63) <= self.number < 1 << 63 or -4096 < self.number < 0
        ):
            raise PolicyError(
                f"{self.number} is no value that a system call returns; see Answer.deny"
            )
        if self.kind == "fd" and not all(0 <= each <= MAX_FD for each in places):
            raise PolicyError(f"{self.number} is no open file, or {self.at!r} no place for it")

    @classmethod
    def deny(cls, code: int | str = "EPERM") -> Answer:
        """The call fails with an errno. Raises: PolicyError for what is none."""
        return cls("errno", Errno(code).data)

    @classmethod
    def value(cls, number: int) -> Answer:
        """The call isn't made, and returns this: 64 bit, not among the errnos (-4095 to -1)."""
        return cls("value", number)

    @classmethod
    def fd(cls, file: Any, *, at: int | None = None, cloexec: bool = True) -> Answer:
        """The caller gets a copy of an open file, and its number as the result.

        Args:
            file: a number, which is closed once the answer is given or refused; or anything with
                `fileno()`, which stays the handler's.
        """
        number = file if isinstance(file, int) else file.fileno()
        return cls("fd", number, at, cloexec, isinstance(file, int))

    @classmethod
    def proceed(cls) -> Answer:
        """The kernel makes the call as it was asked.

        Only for calls without pointers: what a pointer leads to may be changed after the
        handler has looked (seccomp_unotify(2)). Elsewhere it denies.
        """
        return cls("proceed")


def callable_or_error(_: Any, __: Any, value: Any) -> None:
    """Raises: PolicyError."""
    if not callable(value):
        raise PolicyError(f"a handler is a function of one call, not {value!r}")


def bounded(_: Any, __: Any, value: float) -> None:
    """Raises: PolicyError."""
    if not 0 < value <= MAX_SECONDS:
        raise PolicyError(f"a handler has between 0 and {MAX_SECONDS} seconds, not {value}")


def handleable(_: Any, __: Any, name: str) -> None:
    """Raises: PolicyError."""
    if name in CALLS:
        raise PolicyError(f"{name} can have no handler: the launch itself rests on it")


@frozen
class Handler:
    """Which function decides for which call.

    Attributes:
        syscall: the name.
        function: called in a thread of the caller with a `Notified`; gives an `Answer`.
        timeout: seconds; then the call is denied.
    """

    syscall: str = field(validator=handleable)
    function: Callable[[Any], Any] = field(validator=callable_or_error, eq=id)
    timeout: float = field(validator=bounded)

    def may(self, answer: Answer) -> bool:
        """Whether an answer is one that this call can have."""
        return answer.kind != "proceed" or pointer_free(self.syscall)
