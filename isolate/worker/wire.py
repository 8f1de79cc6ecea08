# SPDX-License-Identifier: Apache-2.0
"""The closed codec of replies: plain data as tagged msgpack. No name from inside is ever imported,
nothing is unpickled. Loaded by file inside the box, so it imports only the library and msgspec."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import pathlib
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_ITEMS", "ReplyError", "decode", "encode"]

MAX_DEPTH = 64
MAX_ITEMS = 1_000_000
MAX_BYTES = 64 << 20
MAX_DIGITS = 4000
MAX_ALIKE = 64  # members of one set, or keys of one dict, with the same hash
FEW = 1 << 16  # bytes that can't hold too many items
WIRE_ITEMS = 4 * MAX_ITEMS  # msgpack items: a value takes three at most, a pair one more
WORD = 1 << 63

_errors = sys.modules.get("isolate.errors")
if _errors is not None:
    ReplyError: Any = _errors.ReplyError
else:

    class ReplyError(Exception):  # type: ignore[no-redef]
        """Inside the box: never raised to the caller."""


LIST, TUPLE, SET, FROZENSET, DICT, INT, COMPLEX, DATETIME, DATE, TIME, DELTA = range(11)
DECIMAL, UUID, PATH, BYTEARRAY, ARRAY, SCALAR, RANGE, FRACTION, MEMBER, RECORD = range(11, 21)
PLAIN = (type(None), bool, float, str, bytes)
ARRAY_KINDS = "biufcSUmM?"


def field_names(kind: type) -> tuple[str, ...] | None:
    """The fields of a dataclass, an attrs class or a NamedTuple; None for others."""
    for attribute in ("__dataclass_fields__", "__attrs_attrs__", "_fields"):
        found = getattr(kind, attribute, None)
        if found is None:
            continue
        if attribute == "__attrs_attrs__":
            return tuple(each.name for each in found)
        return tuple(found)
    return None


class Encoder:
    """One value into tagged lists; errors name the place."""

    def __init__(self, allowed: Sequence[type]) -> None:
        self.allowed = list(allowed)
        self.items = 0

    def pack(self, value: Any, path: str, depth: int) -> Any:
        """Raises: TypeError for what has no form in a reply; ValueError for what is too much."""
        self.items += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"{path} is nested deeper than {MAX_DEPTH}, or holds itself")
        if self.items > MAX_ITEMS:
            raise ValueError(f"{path}: more than {MAX_ITEMS} items")
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind is int:
            return value if -WORD <= value < WORD else [INT, digits(hex(value), path)]
        if kind in self.allowed:
            return self.known(value, kind, path, depth)
        simple = SIMPLE.get(kind)
        if simple is not None:
            return simple(value)
        if kind in CONTAINERS:
            tag = CONTAINERS[kind]
            each = (self.pack(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value))
            return [tag, list(each)]
        if kind is dict:
            pairs = []
            for key, each in value.items():
                where = f"{path}[{key!r:.40}]"
                pairs.append([self.pack(key, where, depth + 1), self.pack(each, where, depth + 1)])
            return [DICT, pairs]
        if isinstance(value, pathlib.PurePosixPath):
            return [PATH, str(value)]
        return self.numpy(value, path)

    def known(self, value: Any, kind: type, path: str, depth: int) -> Any:
        """An instance of a class that the caller named."""
        index = self.allowed.index(kind)
        if isinstance(value, enum.Enum):
            return [MEMBER, [index, value.name]]
        names = field_names(kind) or ()
        each = [self.pack(getattr(value, n), f"{path}.{n}", depth + 1) for n in names]
        return [RECORD, [index, each]]

    def numpy(self, value: Any, path: str) -> Any:
        """Arrays and scalars by dtype and shape; objects are refused."""
        module = sys.modules.get("numpy")
        if module is not None and (
            type(value) is module.ndarray or isinstance(value, module.generic)
        ):
            if value.dtype.kind not in ARRAY_KINDS or value.dtype.names:
                raise TypeError(f"{path} is an array of {value.dtype}, without a form in a reply")
            data = [value.dtype.str, list(value.shape), value.tobytes()]
            return [ARRAY if isinstance(value, module.ndarray) else SCALAR, data]
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"{path} is a {name}, which has no form in a reply; return plain data, or name its "
            "class in the function's return annotation (dataclass, attrs, enum, NamedTuple)"
        )


def digits(text: str, path: str = "result") -> str:
    """A number's digits, not too many of them. Raises: ValueError naming the place."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{path} is a number with more than {MAX_DIGITS} digits")
    return text


CONTAINERS: dict[Any, int] = {list: LIST, tuple: TUPLE, set: SET, frozenset: FROZENSET}
SIMPLE: dict[type, Callable[[Any], Any]] = {
    complex: lambda v: [COMPLEX, [v.real, v.imag]],
    dt.datetime: lambda v: [DATETIME, v.isoformat()],
    dt.date: lambda v: [DATE, v.isoformat()],
    dt.time: lambda v: [TIME, v.isoformat()],
    dt.timedelta: lambda v: [DELTA, [v.days, v.seconds, v.microseconds]],
    decimal.Decimal: lambda v: [DECIMAL, digits(str(v))],
    uuid.UUID: lambda v: [UUID, v.bytes],
    bytearray: lambda v: [BYTEARRAY, bytes(v)],
    range: lambda v: [RANGE, [v.start, v.stop, v.step]],
    fractions.Fraction: lambda v: [
        FRACTION, [digits(hex(v.numerator)), digits(hex(v.denominator))]
    ],
}


def encode(value: Any, allowed: Sequence[type] = ()) -> bytes:
    """The bytes of one value.

    Raises: TypeError naming what has no form; ValueError for what is too large or too deep.
    """
    packed = Encoder(allowed).pack(value, "result", 0)
    try:
        data = msgspec.msgpack.encode(packed)
    except UnicodeEncodeError:
        raise ValueError(
            "the result holds text with a lone surrogate, as the name of a file that is no UTF-8 "
            "has; it has no form in a reply: return os.fsencode(...) of it"
        ) from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"the result takes {len(data)} bytes; at most {MAX_BYTES} may come back")
    return data


def of(value: Any, kind: type) -> Any:
    """`value`, which must be exactly of that type. Raises: ValueError."""
    if type(value) is not kind:
        raise ValueError("a value of the wrong type")
    return value


def short(value: Any) -> str:
    """A string short enough for a number. Raises: ValueError."""
    if len(of(value, str)) > MAX_DIGITS:
        raise ValueError("a number with too many digits")
    return str(value)


def three(value: Any) -> list[int]:
    """Three ints. Raises: ValueError."""
    return [of(each, int) for each in exactly(value, 3)]


def exactly(value: Any, count: int) -> list[Any]:
    """A list of that length. Raises: ValueError."""
    if len(of(value, list)) != count:
        raise ValueError("a list of the wrong length")
    return list(value)


def path_of(value: Any) -> pathlib.Path:
    """A path without NUL. Raises: ValueError."""
    if "\0" in of(value, str):
        raise ValueError("a path with NUL")
    return pathlib.Path(value)


def unlike(items: list[Any]) -> set[Any]:
    """The set of items, made without a search among many of one hash: numbers that collide are
    easily made, and a hundred thousand of them would take hours. Raises: ValueError."""
    counts: dict[int, int] = {}
    for each in items:
        number = hash(each)
        counts[number] = counts.get(number, 0) + 1
        if counts[number] > MAX_ALIKE:
            raise ValueError("too many members with one hash")
    return set(items)


def bounded(data: bytes) -> bytes:
    """The same msgpack, if it doesn't hold too many items: one byte is enough for a list, which
    takes sixty of ours. Raises: ValueError."""
    if len(data) <= FEW:
        return data
    at, left, budget = 0, 1, WIRE_ITEMS
    while left:
        if left > budget:
            raise ValueError("too many items")
        left -= 1
        budget -= 1
        head = data[at]
        at += 1
        if head < 0x80 or head >= 0xE0 or head in (0xC0, 0xC2, 0xC3):
            continue
        size, count, scale = HEADS[head] if head >= 0xC0 else (0, head & 15, 1 + (head < 0x90))
        if 0xA0 <= head < 0xC0:
            at += head & 31
            continue
        if size:
            count = int.from_bytes(data[at : at + size], "big")
            at += size
        if scale:
            left += count * scale
        else:
            at += count
    return data


# First bytes from 0xC0 on: (bytes of a length, fixed length, items a unit; 0: the unit is a byte).
# Extension types are not among them: no reply has one.
HEADS = {
    **{0xC4 + i: (1 << i, 0, 0) for i in range(3)},
    0xCA: (0, 4, 0), 0xCB: (0, 8, 0),
    **{0xCC + i: (0, 1 << i, 0) for i in range(4)},
    **{0xD0 + i: (0, 1 << i, 0) for i in range(4)},
    **{0xD9 + i: (1 << i, 0, 0) for i in range(3)},
    0xDC: (2, 0, 1), 0xDD: (4, 0, 1), 0xDE: (2, 0, 2), 0xDF: (4, 0, 2),
}

READERS: dict[int, Callable[[Any], Any]] = {
    INT: lambda v: int(short(v), 16),
    COMPLEX: lambda v: complex(*(of(each, float) for each in exactly(v, 2))),
    DATETIME: lambda v: dt.datetime.fromisoformat(short(v)),
    DATE: lambda v: dt.date.fromisoformat(short(v)),
    TIME: lambda v: dt.time.fromisoformat(short(v)),
    DELTA: lambda v: dt.timedelta(*three(v)),
    DECIMAL: lambda v: decimal.Decimal(short(v)),
    UUID: lambda v: uuid.UUID(bytes=of(v, bytes)),
    PATH: path_of,
    BYTEARRAY: lambda v: bytearray(of(v, bytes)),
    RANGE: lambda v: range(*three(v)),
    FRACTION: lambda v: fractions.Fraction(*(int(short(each), 16) for each in exactly(v, 2))),
}


class Decoder:
    """Tagged lists back into one value, by a closed table."""

    def __init__(self, allowed: Sequence[type]) -> None:
        self.allowed = allowed
        self.items = 0

    def unpack(self, value: Any, depth: int) -> Any:
        """Raises: anything; `decode` turns it into ReplyError."""
        self.items += 1
        if depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise ValueError("too deep, or too many items")
        kind = type(value)
        if kind in PLAIN or kind is int:
            return value
        tag, body = exactly(value, 2)
        of(tag, int)
        if tag in (LIST, TUPLE, SET, FROZENSET):
            items = [self.unpack(each, depth + 1) for each in of(body, list)]
            made = (list, tuple, unlike, unlike)[tag](items)
            return frozenset(made) if tag == FROZENSET else made
        if tag == DICT:
            pairs = [exactly(each, 2) for each in of(body, list)]
            keys = [self.unpack(key, depth + 1) for key, _ in pairs]
            unlike(keys)
            return {k: self.unpack(v, depth + 1) for k, (_, v) in zip(keys, pairs, strict=True)}
        if tag in (ARRAY, SCALAR):
            return self.numpy(tag, *exactly(body, 3))
        if tag in (MEMBER, RECORD):
            index, inner = exactly(body, 2)
            return self.known(tag, index, inner, depth)
        return READERS[tag](body)

    def numpy(self, tag: int, dtype: Any, shape: Any, data: Any) -> Any:
        """A copy of its own, of a dtype without objects."""
        import numpy

        if not 2 <= len(of(dtype, str)) <= 16 or dtype[1] not in ARRAY_KINDS:
            raise ValueError("a dtype that is not allowed")
        sizes = [of(each, int) for each in of(shape, list)]
        array = numpy.frombuffer(of(data, bytes), numpy.dtype(dtype)).reshape(sizes).copy()
        return array if tag == ARRAY else array[()]

    def known(self, tag: int, index: Any, body: Any, depth: int) -> Any:
        """An instance of a class that the caller named, by its place in the caller's list."""
        if not 0 <= of(index, int) < len(self.allowed):
            raise ValueError("a class that was not named")
        kind = self.allowed[index]
        if tag == MEMBER:
            return kind[of(body, str)]
        names = field_names(kind)
        if names is None or len(names) != len(of(body, list)):
            raise ValueError("fields that the class has not")
        values = [self.unpack(each, depth + 1) for each in body]
        if issubclass(kind, tuple):
            return kind(*values)
        made = object.__new__(kind)
        for name, each in zip(names, values, strict=True):
            object.__setattr__(made, name, each)
        return made


def decode(data: bytes, allowed: Sequence[type] = ()) -> Any:
    """The value in a reply, whoever wrote it.

    Raises: ReplyError, and nothing else, for any bytes.
    """
    if len(data) > MAX_BYTES:
        raise ReplyError(f"a reply of {len(data)} bytes; at most {MAX_BYTES} are taken")
    try:
        return Decoder(allowed).unpack(msgspec.msgpack.decode(bounded(data)), 0)
    except Exception as error:  # by design: whatever hostile bytes provoke is one error
        raise ReplyError(f"a malformed reply: {type(error).__name__}: {error}"[:500]) from None
