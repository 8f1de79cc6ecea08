"""Sizes and durations: the one place where they are parsed, and all that it refuses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isolate import CgroupLimit, Mount, PolicyError, Rlimit, Sandbox
from isolate.policy.deadline import Deadline
from isolate.policy.fields import MOST, parse_bytes, parse_seconds, tighter

K = 1024


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (1, 1),
        (MOST, MOST),
        ("0", 0),
        ("17", 17),
        ("1K", K),
        ("1k", K),
        ("1KB", K),
        ("1KiB", K),
        ("1 K", K),
        (" 64M ", 64 * K**2),
        ("1.5G", 3 * K**3 // 2),
        ("0.5K", 512),
        ("1T", K**4),
        ("0.0001K", 0),
    ],
)
def test_a_size_is_bytes_or_powers_of_1024(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "M", "64X", "64MM", "64 potatoes", "-1", "-1M", "+1", "1e3", "0x10", "1_000",
        "1,5M", "1.M", ".5M", "64M\n64M", "\u0661M", "64P", "inf", "nan", "None", "max",
        -1, True, False, 1.0, 1.5, math.inf, math.nan, None, b"64M", [64], object(),
        MOST + 1, "17179869184G", "99999999999999999T", "9" * 400, "9" * 400 + "T",
    ],
)  # fmt: skip
def test_anything_else_is_no_size(value):
    with pytest.raises(PolicyError) as caught:
        parse_bytes(value)
    assert len(str(caught.value)) < 600


def test_a_size_says_what_it_may_be():
    with pytest.raises(PolicyError, match='write bytes as an int, or "64M"'):
        parse_bytes("64X")
    with pytest.raises(PolicyError, match="can't be negative: -5"):
        parse_bytes(-5)
    with pytest.raises(PolicyError, match="more than the kernel can count"):
        parse_bytes(MOST + 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.25, 0.25),
        ("5", 5.0),
        ("500ms", 0.5),
        ("10us", 1e-5),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        (" 3 s ", 3.0),
    ],
)
def test_a_duration_is_seconds_or_has_its_unit(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)
    assert isinstance(parse_seconds(text), float)


@pytest.mark.parametrize(
    "value",
    [
        "", "s", "5 parsecs", "5S", "5MS", "-1s", "1e3", "5ns", "1d", "soon", "inf", "nan",
        -1, -0.5, True, False, math.inf, -math.inf, math.nan, None, b"5s", (5,), "9" * 400 + "h",
    ],
)  # fmt: skip
def test_anything_else_is_no_duration(value):
    with pytest.raises(PolicyError):
        parse_seconds(value)


@given(st.one_of(st.text(max_size=12), st.integers(), st.floats(), st.booleans(), st.none()))
def test_whatever_is_given_is_a_number_or_a_policy_error(value):
    for parse, most in ((parse_bytes, MOST), (parse_seconds, math.inf)):
        try:
            found = parse(value)
        except PolicyError:
            continue
        assert 0 <= found <= most
        assert math.isfinite(found)


@given(st.integers(0, MOST))
def test_every_number_of_bytes_goes_through_as_itself(size):
    assert parse_bytes(size) == size


@given(st.integers(0, 1 << 20), st.sampled_from("KMGT"))
def test_units_are_exact(count, unit):
    power = "KMGT".index(unit) + 1
    assert parse_bytes(f"{count}{unit}") == count * K**power


@pytest.mark.parametrize(
    ("a", "b", "least"),
    [(None, None, None), (1, None, 1), (None, 2, 2), (1, 2, 1), (0, 5, 0), (0.5, 1, 0.5)],
)
def test_the_tighter_of_two_is_the_smaller_and_none_is_no_limit(a, b, least):
    assert tighter(a, b) == least
    assert tighter(b, a) == least


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: CgroupLimit(memory=4095), "memory"),
        (lambda: CgroupLimit(memory="64X"), "64X"),
        (lambda: CgroupLimit(pids=0), "pids"),
        (lambda: CgroupLimit(pids="many"), "pids"),
        (lambda: CgroupLimit(cpu=0), "cpu"),
        (lambda: CgroupLimit(cpu=True), "cpu"),
        (lambda: CgroupLimit(swap=MOST + 1), "kernel"),
        (lambda: Deadline(wall="5 parsecs"), "parsecs"),
        (lambda: Deadline(output=-1), "negative"),
        (lambda: Deadline(cpu_time=math.nan), "finite"),
        (lambda: Rlimit(nofile=(5, 4)), "soft"),
        (lambda: Rlimit(nofile=(1, 2, 3)), "soft, hard"),
        (lambda: Rlimit(as_=MOST + 1), "kernel"),
        (lambda: Rlimit(core="1X"), "1X"),
        (lambda: Mount.tmpfs("/t", "1"), "4096"),
        (lambda: Mount.tmpfs("/t", "64 potatoes"), "potatoes"),
        (lambda: Sandbox(mem="99999999999999999T"), "kernel"),
        (lambda: Sandbox(mem=True), "size"),
        (lambda: Sandbox(timeout=-1), "negative"),
        (lambda: Sandbox(tmp="1X"), "1X"),
        (lambda: Sandbox(pids=1.5), "whole"),
    ],
)
def test_a_mistake_names_its_field_or_its_value(make, field):
    with pytest.raises(PolicyError, match=field):
        make()


def test_several_short_names_take_their_units():
    box = Sandbox(mem="64M", timeout="500ms", output="1M", cpu_time="2s", files_size="8K")
    kinds = {type(each): each for each in box.policy.primitives}
    assert kinds[CgroupLimit].memory == 64 * K**2
    deadline = kinds[Deadline]
    assert (deadline.wall, deadline.cpu_time) == (0.5, 2.0)
    assert (deadline.output, deadline.files_size) == (K**2, 8 * K)
