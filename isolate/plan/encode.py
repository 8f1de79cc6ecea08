# SPDX-License-Identifier: Apache-2.0
"""Ops as the one blob that C reads; the layout is in `_native/isolate.cdef.h`. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from attrs import frozen

from isolate.abi.ops import MAGIC, VERSION
from isolate.plan.model import Op, Vector

__all__ = ["Encoded", "encode"]

HEADER = struct.Struct("<6IQ")
OP = struct.Struct("<HHI2i4I4Q")
LENGTH = struct.Struct("<I")
TEMP = "temp:"


@frozen
class Encoded:
    """A plan's bytes.

    Attributes:
        blob: position-independent; checked by C before use.
        slots: names of the fds that have to come with it, in order.
    """

    blob: bytes
    slots: tuple[str, ...]


class Data:
    """The strings behind the ops, each item once."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.chunks: list[bytes] = []
        self.size = 0
        self.known: dict[bytes, int] = {}

    def add(self, item: bytes) -> int:
        """The item's offset in the blob."""
        if item in self.known:
            return self.known[item]
        offset = self.start + self.size
        chunk = LENGTH.pack(len(item)) + item + b"\0"
        chunk += b"\0" * (-len(chunk) % 4)
        self.chunks.append(chunk)
        self.size += len(chunk)
        self.known[item] = offset
        return offset

    def add_vector(self, vector: Vector) -> int:
        """The offset of a list of items."""
        offsets = [self.add(item) for item in vector.items]
        return self.add(struct.pack(f"<{len(offsets)}I", *offsets))


def slot_numbers(
    ops: Iterable[Op], first: tuple[str, ...] = ()
) -> tuple[dict[str, int], tuple[str, ...], int]:
    """(number by name, names that come from outside, how many temps)."""
    named = (name for op in ops for name in op.slots if name is not None)
    names = list(dict.fromkeys((*first, *named)))
    outer = tuple(name for name in names if not name.startswith(TEMP))
    temps = [name for name in names if name.startswith(TEMP)]
    numbers = {name: i for i, name in enumerate((*outer, *temps))}
    return numbers, outer, len(temps)


def padded(values: Iterable[int], count: int, fill: int) -> list[int]:
    """Exactly `count` numbers."""
    found = list(values)
    return found + [fill] * (count - len(found))


def encode(
    ops: tuple[Op, ...], clone_flags: int = 0, *, first: tuple[str, ...] = ()
) -> Encoded:
    """Return the blob of these ops; `first` are slots that come before those of the ops."""
    numbers, outer, temps = slot_numbers(ops, first)
    data = Data(HEADER.size + OP.size * len(ops))
    packed = []
    for op in ops:
        strs = [
            0
            if item is None
            else data.add_vector(item)
            if isinstance(item, Vector)
            else data.add(item)
            for item in op.strs
        ]
        slots = [-1 if name is None else numbers[name] for name in op.slots]
        packed.append(
            OP.pack(
                op.code,
                op.phase,
                int(op.flags),
                *padded(slots, 2, -1),
                *padded(strs, 4, 0),
                *padded(op.nums, 4, 0),
            )
        )
    data.add(b"")  # a blob is never without data
    size = data.start + data.size
    header = HEADER.pack(MAGIC, VERSION, size, len(ops), len(outer), temps, clone_flags)
    return Encoded(b"".join((header, *packed, *data.chunks)), outer)
