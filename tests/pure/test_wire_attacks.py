# SPDX-License-Identifier: Apache-2.0
"""Replies that were made to hurt who reads them: each costs little, and is one ReplyError."""

import decimal
import fractions
import os
import pathlib
import struct
import tracemalloc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import RemoteError, ReplyError
from isolate.worker import call, main, wire

MERSENNE = (1 << 61) - 1  # hash(n) is n modulo this
pack = msgspec.msgpack.encode


def refused(data, *allowed):
    with pytest.raises(ReplyError) as caught:
        wire.decode(data, allowed)
    return str(caught.value)


def peak(data):
    tracemalloc.start()
    try:
        refused(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- memory -----------------------------------------------------------------------------


@pytest.mark.parametrize("filler", [b"\x90", b"\x80", b"\xa0", b"\xc0", b"\x00"])
def test_a_byte_an_item_is_counted_before_it_is_made(filler):
    count = 8 << 20
    data = b"\xdd" + struct.pack(">I", count) + filler * count
    assert peak(data) < 4 << 20  # the list alone would take 64 MiB


def test_a_list_that_claims_four_billion_items_is_refused_at_once():
    data = b"\xdd" + struct.pack(">I", (1 << 32) - 1) + b"\xc0" * (1 << 17)
    assert "too many items" in refused(data)


def test_a_map_that_claims_four_billion_pairs_is_refused_at_once():
    data = b"\xdf" + struct.pack(">I", (1 << 32) - 1) + b"\xc0" * (1 << 17)
    assert "too many items" in refused(data)


def test_many_small_lists_that_claim_little_each_are_counted_together():
    inner = b"\xdc" + struct.pack(">H", 65535) + b"\xc0" * 65535
    data = b"\xdc" + struct.pack(">H", 200) + inner * 200
    assert "too many items" in refused(data)


@pytest.mark.parametrize("depth", [65, 1000, 100_000, 1_000_000])
def test_nesting_of_any_depth_is_refused(depth):
    assert refused(b"\x91" * depth + b"\xc0")


@pytest.mark.parametrize("depth", [65, 1000, 100_000])
def test_nested_replies_of_any_depth_are_refused(depth):
    assert refused(b"\x92\x00\x91" * depth + b"\xc0")


@pytest.mark.parametrize("head", [0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xC1])
def test_extension_types_have_no_place_in_a_reply(head):
    assert refused(bytes([head]) + bytes(1 << 17))


def test_a_long_string_that_is_cut_off_is_refused():
    assert refused(b"\xdb" + struct.pack(">I", 1 << 31) + b"x" * (1 << 17))


def test_what_follows_the_value_is_refused():
    assert refused(pack("value") + b"\xc0")
    assert refused(pack("v" * (1 << 17)) + b"\xc0")


@pytest.mark.parametrize(
    "value",
    [
        None,
        -1,
        -(1 << 40),
        1 << 40,
        "x" * 70_000,
        b"y" * 70_000,
        [b"z" * 300, "s" * 300, 1.5, True, False, -5, 200, -200, 70_000, 1 << 33],
        {f"key {i}": float(i) for i in range(20_000)},
        list(range(100_000)),
        [[]] * 50_000,
        [(i, str(i)) for i in range(30_000)],
        [bytes(i % 300) for i in range(3000)],
        ["ä" * (i % 300) for i in range(3000)],
    ],
)
def test_the_count_lets_every_true_reply_through(value):
    data = wire.encode(value)
    assert wire.bounded(data) is data
    assert wire.decode(data) == value


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary()
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_the_count_reads_msgpack_as_msgspec_does(value):
    filler = "f" * (wire.FEW + 1)  # so that it counts at all
    data = wire.encode([filler, value, filler])
    assert wire.bounded(data) is data
    assert wire.decode(data) == [filler, value, filler]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_at_all_end_the_count_with_an_error_or_a_reply(noise, at):
    data = bytearray(wire.encode(["f" * (wire.FEW + 1), list(range(100))]))
    data[at : at + len(noise)] = noise
    try:
        wire.decode(bytes(data))
    except ReplyError:
        return


# ---- time -------------------------------------------------------------------------------


def numbers(count):
    return [[wire.INT, hex(MERSENNE * (i + 100))] for i in range(count)]


def test_a_set_of_numbers_that_collide_is_refused():
    assert "one hash" in refused(pack([wire.SET, numbers(100_000)]))
    assert "one hash" in refused(pack([wire.FROZENSET, numbers(100_000)]))


def test_a_dict_whose_keys_collide_is_refused():
    pairs = [[number, None] for number in numbers(100_000)]
    assert "one hash" in refused(pack([wire.DICT, pairs]))


def test_tuples_that_collide_are_refused():
    bits = [[-1 - (i >> b & 1) for b in range(12)] for i in range(4096)]  # hash(-1) == hash(-2)
    assert hash((-1, -1)) == hash((-1, -2))
    assert "one hash" in refused(pack([wire.SET, [[wire.TUPLE, each] for each in bits]]))


def test_fractions_and_decimals_that_collide_are_refused():
    made = [[wire.FRACTION, [hex(MERSENNE * (i + 1)), "0x1"]] for i in range(5000)]
    assert "one hash" in refused(pack([wire.SET, made]))
    made = [[wire.DECIMAL, str(MERSENNE * (i + 1))] for i in range(5000)]
    assert "one hash" in refused(pack([wire.SET, made]))


def test_the_same_member_many_times_is_refused_as_well():
    assert "one hash" in refused(pack([wire.SET, [5] * 5000]))


def test_sets_and_dicts_that_a_program_makes_come_through():
    for value in (
        set(range(-1000, 100_000)),
        {float(i) / 7 for i in range(10_000)},
        frozenset(str(i) for i in range(10_000)),
        {(i, -i): i for i in range(5000)},
        {decimal.Decimal(i) / 3 for i in range(1000)},
        {True: 1, "a": {2}, None: frozenset({b"x"})},
    ):
        assert wire.decode(wire.encode(value)) == value


def test_a_number_that_is_long_to_read_is_refused():
    for tag in (wire.INT, wire.DECIMAL, wire.DATETIME):
        assert refused(pack([tag, "9" * 1_000_000]))
    assert refused(pack([wire.FRACTION, ["1" * 1_000_000, "1"]]))


def test_huge_exponents_cost_nothing():
    value = wire.decode(pack([wire.SET, [[wire.DECIMAL, "1E+999999999"]]]))
    assert value == {decimal.Decimal("1E+999999999")}


# ---- what is told in words -----------------------------------------------------------------


def error_of(name, args, text, trace):
    with pytest.raises(Exception) as caught:
        call.answer(wire.encode(["x", name, args, text, trace]), ())
    return caught.value


def test_an_error_s_text_is_bounded_on_this_side():
    error = error_of("evil.Error", None, "m" * 5_000_000, "t" * 5_000_000)
    assert type(error) is RemoteError
    assert len(str(error)) < 11_000
    assert len(error.traceback) < 11_000
    assert len(str(error.__cause__)) < 11_000


def test_a_class_name_is_bounded_as_well():
    assert len(error_of("n" * 1_000_000, None, "", "").type_name) < 300


def test_arguments_without_measure_make_no_builtin_exception():
    error = error_of("builtins.ValueError", ("v" * 5_000_000,), "short", "")
    assert type(error) is RemoteError
    assert str(error) == "builtins.ValueError: short"


def test_escape_sequences_come_out_as_letters():
    error = error_of("evil\x1b[31m", None, "\x1b]0;title\x07\x1b[2J\rover", "a\tb\nc\x9b31m\u202e")
    shown = f"{error}{error.traceback}{error.__cause__}"
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(shown)
    assert "\\x1b[2J" in shown
    assert "a\tb\nc" in error.traceback  # a traceback's own lines stay lines


def test_words_of_other_languages_stay_as_they_are():
    assert call.told("größer — 大きい 🙂") == "größer — 大きい 🙂"


@given(st.text(max_size=200))
def test_told_text_can_be_printed_whatever_it_is(text):
    assert all(c.isprintable() or c in "\n\t" for c in call.told(text))


# ---- what leaves the inside --------------------------------------------------------------------


def test_an_os_error_keeps_the_names_of_its_files():
    error = FileNotFoundError(2, "No such file or directory", "/nosuch")
    assert main.arguments(error) == (2, "No such file or directory", "/nosuch")
    two = OSError(18, "Invalid cross-device link", "/a", None, "/b")
    again = type(two)(*main.arguments(two))
    assert (again.filename, again.filename2, str(again)) == ("/a", "/b", str(two))


def test_other_errors_keep_their_arguments():
    assert main.arguments(ValueError("a", 1)) == ("a", 1)
    assert main.arguments(OSError("only text")) == ("only text",)
    assert main.arguments(OSError(5, "no file")) == (5, "no file")
    assert main.arguments(KeyError("k")) == ("k",)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("\udc80"),
        KeyError("\ud800", b"x"),
        OSError(2, "no", "\udcff"),
        Exception("\udfff"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_text_without_a_form_is_told_all_the_same(error):
    reply = wire.decode(main.failed(wire, error))
    assert reply[0] == "x"
    assert "\\ud" in reply[3]
    assert reply[4].startswith(type(error).__name__)


def test_an_error_that_can_t_be_described_still_has_its_class():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    reply = wire.decode(main.failed(wire, Broken()))
    assert reply[:2] == ["x", f"{__name__}.{Broken.__qualname__}"]


def test_names_of_files_that_are_no_utf8_say_what_to_return():
    with pytest.raises(ValueError, match=r"os\.fsencode"):
        wire.encode(["fine", os.fsdecode(b"\xff")])


def test_a_masked_array_is_refused_since_its_mask_would_be_lost():
    numpy = pytest.importorskip("numpy")
    with pytest.raises(TypeError, match="MaskedArray"):
        wire.encode(numpy.ma.array([1, 2], mask=[0, 1]))
    with pytest.raises(TypeError, match="recarray"):
        wire.encode(numpy.recarray(1, dtype=[("a", int)]))


def test_a_path_of_another_system_is_refused_since_it_would_be_another_here():
    with pytest.raises(TypeError, match="PureWindowsPath"):
        wire.encode(pathlib.PureWindowsPath("c:/a"))
    assert wire.decode(wire.encode(pathlib.PurePosixPath("/a"))) == pathlib.Path("/a")


@pytest.mark.parametrize(
    "value",
    [1 << 20_000, -(1 << 20_000), fractions.Fraction(1, 1 << 20_000), decimal.Decimal("9" * 5000)],
    ids=["int", "negative", "fraction", "decimal"],
)
def test_a_number_that_the_caller_would_refuse_is_refused_where_it_was_made(value):
    with pytest.raises(ValueError, match="digits"):
        wire.encode(value)


def test_numbers_as_long_as_may_be_come_through():
    for value in (16**3990, -(16**3990), fractions.Fraction(16**3990, 3)):
        assert wire.decode(wire.encode(value)) == value
