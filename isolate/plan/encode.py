# SPDX-License-Identifier: Apache-2.0
"""Ops as the one blob that C reads; the layout is in `_native/isolate.cdef.h`. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from attrs import frozen

from isolate.abi.ops import MAGIC, VERSION
from isolate.plan.model import Op, Vector

__all__ = ["Body", "Encoded", "encode", "encode_body", "encode_program"]

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


def slot_numbers(ops: Iterable[Op]) -> tuple[dict[str, int], tuple[str, ...], int]:
    """(number by name, names that come from outside, how many temps)."""
    names = list(dict.fromkeys(name for op in ops for name in op.slots if name is not None))
    outer = tuple(name for name in names if not name.startswith(TEMP))
    temps = [name for name in names if name.startswith(TEMP)]
    numbers = {name: i for i, name in enumerate((*outer, *temps))}
    return numbers, outer, len(temps)


def padded(values: Iterable[int], count: int, fill: int) -> list[int]:
    """Exactly `count` numbers."""
    found = list(values)
    return found + [fill] * (count - len(found))


def packed_op(op: Op, data: Data, numbers: dict[str, int]) -> bytes:
    """One op; its strings go to `data`."""
    strs = [
        0 if item is None else data.add_vector(item) if isinstance(item, Vector) else data.add(item)
        for item in op.strs
    ]
    slots = [-1 if name is None else numbers[name] for name in op.slots]
    return OP.pack(
        op.code,
        op.phase,
        int(op.flags),
        *padded(slots, 2, -1),
        *padded(strs, 4, 0),
        *padded(op.nums, 4, 0),
    )


def encode(ops: tuple[Op, ...], clone_flags: int = 0) -> Encoded:
    """Return the blob of these ops."""
    numbers, outer, temps = slot_numbers(ops)
    data = Data(HEADER.size + OP.size * len(ops))
    packed = [packed_op(op, data, numbers) for op in ops]
    data.add(b"")  # a blob is never without data
    size = data.start + data.size
    header = HEADER.pack(MAGIC, VERSION, size, len(ops), len(outer), temps, clone_flags)
    return Encoded(b"".join((header, *packed, *data.chunks)), outer)


@frozen
class Body:
    """All of a program's blob that doesn't depend on its argv: made once a policy.

    Attributes:
        ops: the packed ops, one less than the blob will have.
        data: the strings behind them, and where the exec's will start.
    """

    ops: bytes
    count: int
    data: bytes
    end: int
    slots: tuple[str, ...]
    temps: int


def encode_body(ops: tuple[Op, ...]) -> Body:
    """The part that `encode_program` completes by one op."""
    numbers, outer, temps = slot_numbers(ops)
    data = Data(HEADER.size + OP.size * (len(ops) + 1))
    packed = b"".join(packed_op(op, data, numbers) for op in ops)
    return Body(packed, len(ops), b"".join(data.chunks), data.start + data.size, outer, temps)


def encode_program(body: Body, last: Op) -> Encoded:
    """The blob of a body and its exec; the same as `encode` of all, but that strings which both
    have stand there twice."""
    data = Data(body.end)
    packed = packed_op(last, data, {})
    data.add(b"")
    size = body.end + data.size
    header = HEADER.pack(MAGIC, VERSION, size, body.count + 1, len(body.slots), body.temps, 0)
    return Encoded(b"".join((header, body.ops, packed, body.data, *data.chunks)), body.slots)
