# SPDX-License-Identifier: Apache-2.0
"""System-call rules as data: what a `SeccompFilter` is made of, before it is a BPF program."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from enum import Enum
from typing import Any

from attrs import field, frozen

from isolate.errors import PolicyError

__all__ = [
    "ALLOW",
    "KILL_PROCESS",
    "Action",
    "Arg",
    "Compare",
    "Condition",
    "Errno",
    "Layer",
    "Rule",
]

WORD = (1 << 64) - 1


class Compare(Enum):
    """How an argument is compared, as unsigned 64-bit numbers; libseccomp's seven."""

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    MASKED_EQ = "&=="


@frozen
class Condition:
    """One test of one argument.

    Attributes:
        index: which argument, 0 to 5.
        compare: how.
        value: the right-hand side, 64 bit unsigned.
        mask: for `MASKED_EQ`: `(argument & mask) == value`.
        width: 64, or 32 where the kernel itself takes an int: the upper half is not looked at.

    Raises: PolicyError.
    """

    index: int
    compare: Compare
    value: int
    mask: int = WORD
    width: int = 64

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.index <= 5:
            raise PolicyError(f"a system call has arguments 0 to 5, not {self.index}")
        if not (0 <= self.value <= WORD and 0 <= self.mask <= WORD):
            raise PolicyError(f"argument {self.index}: not a 64-bit unsigned number: {self.value}")
        if self.width not in (32, 64):
            raise PolicyError(f"argument {self.index}: width is 32 or 64, not {self.width}")

    def holds(self, arg: int) -> bool:
        """Whether an argument passes the test."""
        bits = (1 << self.width) - 1
        arg, value, mask = arg & bits, self.value & bits, self.mask & bits
        return {
            Compare.EQ: arg == value,
            Compare.NE: arg != value,
            Compare.LT: arg < value,
            Compare.LE: arg <= value,
            Compare.GT: arg > value,
            Compare.GE: arg >= value,
            Compare.MASKED_EQ: arg & mask == value,
        }[self.compare]


class Arg:
    """An argument in a rule: `Arg(0) == 1`, `Arg(1) & 0o777 == 0`; each gives a `Condition`."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, index: int, *, width: int = 64, mask: int | None = None) -> None:
        self.index, self.width, self.mask = index, width, mask

    def test(self, compare: Compare, value: int) -> Condition:
        """The condition. Raises: PolicyError, for a masked comparison other than `==`."""
        value = value & WORD if value < 0 else value
        if self.mask is None:
            return Condition(self.index, compare, value, width=self.width)
        if compare is not Compare.EQ:
            raise PolicyError("a masked argument can only be compared with ==")
        return Condition(self.index, Compare.MASKED_EQ, value, self.mask, self.width)

    def __and__(self, mask: int) -> Arg:
        return Arg(self.index, width=self.width, mask=mask)

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self.test(Compare.EQ, number(value))

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return self.test(Compare.NE, number(value))

    def __lt__(self, value: int) -> Condition:
        return self.test(Compare.LT, value)

    def __le__(self, value: int) -> Condition:
        return self.test(Compare.LE, value)

    def __gt__(self, value: int) -> Condition:
        return self.test(Compare.GT, value)

    def __ge__(self, value: int) -> Condition:
        return self.test(Compare.GE, value)


def number(value: object) -> int:
    """An int, or PolicyError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyError(f"an argument is compared with an int, not with {value!r}")
    return value


@frozen
class Action:
    """What the kernel does with a call.

    Attributes:
        name: "kill_process", "kill_thread", "trap", "errno", "notify", "log" or "allow": in
            order of strictness, as seccomp(2) has it (SECCOMP_RET_*).
        data: for "errno" the number, else 0.

    Raises: PolicyError.
    """

    name: str
    data: int = 0

    def __attrs_post_init__(self) -> None:
        if self.name not in STRICTNESS:
            raise PolicyError(f"{self.name!r} is no action; there are: {', '.join(STRICTNESS)}")
        if not 0 <= self.data <= 4095 or (self.data and self.name != "errno"):
            raise PolicyError(f"{self.name} can't carry {self.data}")

    def __str__(self) -> str:
        known = errno.errorcode.get(self.data, str(self.data))
        return f"errno({known})" if self.name == "errno" else self.name


STRICTNESS = ("kill_process", "kill_thread", "trap", "errno", "notify", "log", "allow")
ALLOW = Action("allow")
KILL_PROCESS = Action("kill_process")


def Errno(code: int | str) -> Action:
    """Refuse with an errno, by number or name ("EPERM")."""
    value = getattr(errno, code, None) if isinstance(code, str) else code
    if not isinstance(value, int):
        raise PolicyError(f"{code!r} is no errno")
    return Action("errno", value)


@frozen(init=False)
class Rule:
    """What happens to one system call, when all conditions hold.

    `Rule("write", Arg(0) == 1)`, `Rule("ioctl", Errno("ENOTTY"), Arg(1) == 0x5413)`: after the name
    come conditions, and an action where it is not that of the filter that the rule is for.

    Attributes:
        syscall: the name, without prefix.
        action: what then.
        conditions: tests that must all hold; none: always.
        reason: why, for `disassemble`, reports and the documentation.
        own_action: whether the action was given; `SeccompFilter.deny` puts in its own otherwise.

    Raises: PolicyError, for what is neither.
    """

    syscall: str
    action: Action = ALLOW
    conditions: tuple[Condition, ...] = ()
    reason: str = field(default="", eq=False)
    own_action: bool = field(default=True, eq=False, repr=False)

    def __init__(
        self,
        syscall: str,
        *given: Action | Condition | tuple[Condition, ...] | str,
        action: Action | None = None,
        conditions: Iterable[Condition] = (),
        reason: str = "",
        own_action: bool | None = None,
    ) -> None:
        found: list[Any] = list(conditions)
        for at, each in enumerate(given):
            if isinstance(each, str) and at == 2:  # Rule(name, action, conditions, reason)
                reason = each
            elif isinstance(each, Action) and action is None:
                action = each
            elif isinstance(each, Action):
                raise PolicyError(f"a rule for {syscall} has one action, not {action} and {each}")
            else:
                found += each if isinstance(each, (tuple, list)) else (each,)
        for condition in found:
            if not isinstance(condition, Condition):
                raise PolicyError(
                    f"a rule for {syscall} is made of conditions, Arg(0) == 1, and an action, "
                    f"not of {condition!r}"
                )
        own = action is not None if own_action is None else own_action
        self.__attrs_init__(
            syscall, ALLOW if action is None else action, tuple(found), reason, own
        )


@frozen(cache_hash=True)  # some 500 rules, and the key of the plan's caches
class Layer:
    """One filter: rules, the strictest that matches first; else the default.

    Attributes:
        rules: of one call several may match: the strictest action of those wins.
        default: for calls without a matching rule.
        unknown: for numbers that no table knows (newer kernels): ENOSYS lets programs fall back.
        arches: the names of further ABIs of this machine that are let in ("i386"); the others
            are killed, x32 always.
        name: "default", "docker", a file name; for people.
    """

    rules: tuple[Rule, ...] = field(repr=lambda rules: f"<{len(rules)} rules>")
    default: Action
    unknown: Action | None = None
    arches: tuple[str, ...] = ()
    name: str = field(default="", eq=False)
