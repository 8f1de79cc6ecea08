# SPDX-License-Identifier: Apache-2.0
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import pickle
import random
import uuid

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import RemoteError, ReplyError
from isolate.worker import call, wire

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.dates()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.fractions()
    | st.builds(bytearray, st.binary())
    | st.builds(range, st.integers(-9, 9))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner)
        | st.sets(st.integers())
        | st.frozensets(st.text())
    ),
    max_leaves=20,
)


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    colour: Colour


def gives_points() -> list[Point]:
    return []


@given(VALUES)
@settings(max_examples=200)
def test_what_goes_in_comes_out(value):
    again = wire.decode(wire.encode(value))
    assert again == value
    assert type(again) is type(value)


def test_paths_and_types_survive():
    value = [pathlib.Path("/a b"), (1, [2]), {3: {4}}, 1 << 70, True, 1, 1.0]
    again = wire.decode(wire.encode(value))
    assert again == value
    assert [type(a) for a in again] == [pathlib.PosixPath, tuple, dict, int, bool, int, float]


def test_annotated_classes_are_rebuilt():
    allowed = call.allowed_types(gives_points)
    value = [Point(1, Colour.RED)]
    assert wire.decode(wire.encode(value, allowed), allowed) == value


def test_a_class_that_was_not_named_is_refused_by_place():
    with pytest.raises(TypeError, match=r"result\[1\]\['k'\] is a .*Point"):
        wire.encode([0, {"k": Point(1, Colour.RED)}])


def test_a_value_that_holds_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="holds itself"):
        wire.encode(loop)


def test_arrays_survive_and_objects_are_refused():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(6, dtype=">i4").reshape(2, 3)
    again = wire.decode(wire.encode({"a": array, "s": numpy.float32(1.5)}))
    assert (again["a"] == array).all()
    assert again["a"].dtype == array.dtype
    assert again["s"] == numpy.float32(1.5)
    with pytest.raises(TypeError, match="array of object"):
        wire.encode(numpy.array([object()]))


HOSTILE = [
    b"",
    b"\xc1",
    pickle.dumps({"a": 1}),
    b"\xdd\xff\xff\xff\xff",
    b"\x91" * 100_000,
    b"\x92\x00" * 100 + b"\x90",
    msgspec.msgpack.encode([wire.INT, "f" * 100_000]),
    msgspec.msgpack.encode([wire.DECIMAL, "x"]),
    msgspec.msgpack.encode([wire.DICT, [[[wire.LIST, []], 1]]]),
    msgspec.msgpack.encode([wire.RECORD, [0, []]]),
    msgspec.msgpack.encode([wire.MEMBER, [-1, "RED"]]),
    msgspec.msgpack.encode([wire.ARRAY, ["|O8", [1], b"12345678"]]),
    msgspec.msgpack.encode([wire.ARRAY, ["<i8", [1 << 62, 4], b""]]),
    msgspec.msgpack.encode([wire.DELTA, [1 << 62, 0, 0]]),
    msgspec.msgpack.encode([wire.PATH, "a\0b"]),
    msgspec.msgpack.encode([wire.FRACTION, ["1", "0"]]),
    msgspec.msgpack.encode([True, []]),
    msgspec.msgpack.encode([99, []]),
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bytes_are_a_reply_error(data):
    with pytest.raises(ReplyError):
        wire.decode(data)


def test_mutated_replies_raise_nothing_else():
    rng = random.Random(7)
    seeds = [
        wire.encode(["v", {"a": [1, (2.5, b"x"), {3}], "d": dt.date(2026, 1, 2)}]),
        wire.encode(["x", "builtins.ValueError", ("a",), "a", "tb"]),
        wire.encode([decimal.Decimal("1.5"), uuid.uuid4(), fractions.Fraction(1, 3), 1 << 80]),
    ]
    for _ in range(20_000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            wire.decode(bytes(data[: rng.randrange(1, len(data) + 1)]))
        except ReplyError:
            continue


@pytest.mark.parametrize(
    ("name", "args", "kind"),
    [
        ("builtins.KeyError", ("k",), KeyError),
        ("builtins.OSError", (2, "no"), FileNotFoundError),
        ("builtins.SystemExit", (1,), RemoteError),
        ("evil.Error", ("x",), RemoteError),
        ("builtins.UnicodeDecodeError", ("x",), RemoteError),
        ("builtins.ValueError", None, RemoteError),
    ],
)
def test_only_built_in_exceptions_are_rebuilt(name, args, kind):
    with pytest.raises(kind) as caught:
        call.answer(wire.encode(["x", name, args, "text", "trace"]), ())
    assert type(caught.value) is kind
    assert "trace" in str(caught.value.__cause__)


@pytest.mark.parametrize("value", [1, [], ["v"], ["x", 1, 2, 3, 4], ["v", 1, 2]])
def test_an_answer_of_another_form_is_a_reply_error(value):
    with pytest.raises(ReplyError):
        call.answer(wire.encode(value), ())
