"""A part of `tools/fuzz_replies.py` in every run; ten million frames are for a release."""

import runpy
from pathlib import Path

import pytest

from isolate import ReplyError

FUZZ = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools/fuzz_replies.py"))


def test_mutated_replies_are_values_or_reply_errors():
    counts = FUZZ["fuzz"](20_000, seed=3)
    assert sum(counts.values()) == 20_000
    assert counts["refused"] > counts["value"] > 0


def test_no_memory_is_kept():
    assert FUZZ["kept"](2_000, seed=4) < 1 << 20


def test_the_fuzzer_itself_sees_a_finding():
    def broken(frame):
        raise KeyError("a bug")

    with pytest.raises(AssertionError, match="KeyError.*frame [0-9a-f]+"):
        FUZZ["fuzz"](1, 5, broken)


def test_the_seeds_are_valid():
    for seed in FUZZ["seeds"]():
        try:
            assert FUZZ["decoded"](seed) in ("value", "raised")
        except ReplyError:  # pragma: no cover - says which
            pytest.fail(seed.hex())


def test_memory_that_is_kept_would_be_seen(monkeypatch):
    """A test of memory that can't fail proves nothing."""
    leak = []

    def leaking(frames, seed):
        leak.append(bytearray(frames))

    monkeypatch.setitem(FUZZ["kept"].__globals__, "fuzz", leaking)
    assert FUZZ["kept"](1 << 20, seed=4) >= 1 << 20
