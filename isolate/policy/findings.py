# SPDX-License-Identifier: Apache-2.0
"""What is told about filters: calls that show it, where one is wider, and weak spots."""

from __future__ import annotations

from attrs import frozen

from isolate.abi.syscalls import ARCHES, AUDIT_ARCH, name_of
from isolate.policy.rules import Action

__all__ = ["Call", "Finding", "Wider"]


@frozen
class Call:
    """One call, as a filter sees it.

    Attributes:
        audit: AUDIT_ARCH_* of the way by which it was made.
        number: which call, there.
        args: six, 64 bit.
    """

    audit: int
    number: int
    args: tuple[int, ...] = (0,) * 6

    @property
    def arch(self) -> str:
        """The architecture's name, or its number."""
        return next((each for each in ARCHES if AUDIT_ARCH[each] == self.audit), f"{self.audit:#x}")

    @property
    def name(self) -> str:
        """The call's name; "number 470" of one that no table knows."""
        known = name_of(self.arch, self.number) if self.arch in ARCHES else None
        return known or f"number {self.number}"

    def __str__(self) -> str:
        args = list(self.args)
        while args and args[-1] == 0:
            args.pop()
        return f"{self.name}({', '.join(f'{arg:#x}' if arg > 9 else str(arg) for arg in args)})"


@frozen
class Wider:
    """A call for which one filter is less strict than the other.

    Attributes:
        call: with arguments that show it.
        ours, theirs: what the two filters do with it.
    """

    call: Call
    ours: Action
    theirs: Action

    def __str__(self) -> str:
        return f"{self.call} on {self.call.arch}: {self.ours}, where the other has {self.theirs}"


@frozen
class Finding:
    """A weak spot.

    Attributes:
        name: which kind of spot.
        kind: "hole": what the filter says is passed by; "surface": it lets in what has been the way
            into kernels or out of boxes; "fault": programs go wrong under it.
        calls: the system calls that it is about.
        arch: on which architecture.
        why: what is wrong with it.
        example: a call that is let through and shows it; None where it isn't about one.
    """

    name: str
    kind: str
    calls: tuple[str, ...]
    arch: str
    why: str
    example: Call | None = None

    def __str__(self) -> str:
        shown = f" (such as {self.example})" if self.example else ""
        return f"{self.kind} {self.name} on {self.arch}: {' '.join(self.calls)}{shown}: {self.why}"
