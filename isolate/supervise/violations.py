# SPDX-License-Identifier: Apache-2.0
"""`Violation`: a refused system call as a person reads it. Pure, but for the names of numbers."""

from __future__ import annotations

import ipaddress
import struct

from attrs import evolve, field, frozen

from isolate.abi.signatures import Param, params
from isolate.abi.syscalls import AUDIT_ARCH, X32_BIT, name_of
from isolate.abi.words import in_words
from isolate.policy.rules import Action

__all__ = [
    "Violation",
    "abi_on",
    "address",
    "described",
    "merged",
    "name_on",
    "scalars",
    "shown",
]

ARCHES = {number: name for name, number in AUDIT_ARCH.items()}
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
MAX_TEXT = 255  # what is read of a string: then it ends in "…"
INT, LONG = 1 << 32, 1 << 64


@frozen(kw_only=True)
class Violation:
    """One kind of refused call, and how often it was tried.

    Attributes:
        syscall: its name; "syscall_N" for a number that no table knows; "others" for what came
            after the table was full: then only `count` means something.
        args: as numbers, of the first that was seen.
        decoded: the same as text: "path='/etc/shadow'", "flags=O_RDWR|O_CREAT".
        pid: of the first's process, inside the box; 0 where it had gone.
        count: how many there were.
        action: what it got.
        where: "file.py:12" for Python code, where that could be had; told by the inside.
        handled: whether a handler decided.
        abi: by which it came where that is not the machine's own: "i386", "x32", "arch 0x…".
    """

    syscall: str
    args: tuple[int, ...] = ()
    decoded: tuple[str, ...] = ()
    pid: int = 0
    count: int = 1
    action: Action = field(default=Action("errno", 1))
    where: str | None = None
    handled: bool = False
    abi: str = ""

    def __str__(self) -> str:
        times = "" if self.count == 1 else f", {self.count} times"
        place = f", at {self.where}" if self.where else ""
        by = f"{self.abi}: " if self.abi else ""
        call = f"{by}{self.syscall}({', '.join(self.decoded)})"
        return f"{call}: {self.action}{times}, pid {self.pid}{place}"


def name_on(arch: int, number: int) -> str:
    """The name of a call of an architecture, by AUDIT_ARCH_*; x32's as the call that it is."""
    plain = number & ~X32_BIT if is_x32(arch, number) else number
    name = name_of(ARCHES[arch], plain) if arch in ARCHES else None
    return name or f"syscall_{number}"


def is_x32(arch: int, number: int) -> bool:
    """Whether a number has the bit by which x86_64 takes calls of its 32-bit ABI."""
    return arch == AUDIT_ARCH["x86_64"] and X32_BIT <= number < 2 * X32_BIT


def abi_on(arch: int, number: int, native: int) -> str:
    """The ABI that a call came by; "" for the machine's own."""
    if arch != native:
        return ARCHES.get(arch) or f"arch {arch:#x}"
    return "x32" if is_x32(arch, number) else ""


def text(data: bytes) -> str:
    """Bytes from inside as a quoted string; nothing in it can end the line."""
    cut = "…" if len(data) > MAX_TEXT else ""
    return repr(data[:MAX_TEXT].decode("utf-8", "backslashreplace")) + cut


def address(data: bytes) -> str:
    """A socket address in words; whatever it is made of."""
    if len(data) < 2:
        return "nothing" if not data else repr(data)
    family = struct.unpack_from("=H", data)[0]
    if family == AF_INET and len(data) >= 8:
        return f"{ipaddress.IPv4Address(data[4:8])}:{struct.unpack_from('!H', data, 2)[0]}"
    if family == AF_INET6 and len(data) >= 24:
        return f"[{ipaddress.IPv6Address(data[8:24])}]:{struct.unpack_from('!H', data, 2)[0]}"
    if family == AF_UNIX:
        path = data[2:]
        if path[:1] == b"\0":
            return f"unix:@{text(path[1:])}"
        return f"unix:{text(path.partition(bytes(1))[0])}"
    if family == AF_NETLINK and len(data) >= 12:
        pid, groups = struct.unpack_from("=II", data, 4)
        return f"netlink:pid={pid},groups={groups:#x}"
    return f"{in_words('family', family)}:{data[2:].hex()}"


def shown(param: Param | None, value: int, data: bytes | None) -> str:
    """One argument as text."""
    if param is None:
        return hex(value) if value > 9 else str(value)
    if param.kind == "str" and data is not None:
        return text(data)
    if param.kind == "addr" and data is not None:
        return address(data)
    words = in_words(param.kind, value)
    if words is not None:
        return words
    low = value % INT
    if param.kind in ("fd", "pid"):
        number = low - INT if low >= INT // 2 else low
        return "AT_FDCWD" if number == -100 and "dir" in param.name else str(number)
    if param.kind == "int":
        return str(value - LONG if value >= LONG // 2 else value)
    if param.kind == "oct":
        return f"{low:#o}"
    return hex(value)


def described(syscall: str, args: tuple[int, ...], data: tuple[bytes, ...]) -> tuple[str, ...]:
    """Every argument as "name=text"; `data` is of the strings and addresses, in their order."""
    known = params(syscall)
    if known is None:
        return tuple(shown(None, value, None) for value in args)
    seen = iter(data)
    found = []
    for param, value in zip(known, args, strict=False):
        taken = next(seen, None) if param.kind in ("str", "addr") else None
        found.append(f"{param.name}={shown(param, value, taken)}")
    return tuple(found)


def scalars(syscall: str, args: tuple[int, ...]) -> tuple[int, ...]:
    """The arguments that are no pointers: what makes two calls one kind."""
    known = params(syscall) or ()
    return tuple(a for a, param in zip(args, known, strict=False) if not param.is_pointer)


def merged(violations: list[Violation]) -> tuple[Violation, ...]:
    """Kinds that differ in their pid and place only are one; the first keeps its place."""
    found: dict[tuple[object, ...], Violation] = {}
    for each in violations:
        key = (each.abi, each.syscall, each.decoded, each.action, each.handled)
        first = found.get(key)
        found[key] = each if first is None else evolve(first, count=first.count + each.count)
    return tuple(found.values())
