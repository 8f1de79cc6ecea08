# SPDX-License-Identifier: Apache-2.0
"""Mutate replies and decode them: nothing but ReplyError may come out, and no memory be kept.

`python tools/fuzz_replies.py [FRAMES] [SEED]`; two processes share the frames.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import gc
import multiprocessing
import os
import pathlib
import random
import resource
import sys
import tracemalloc
import uuid
from collections.abc import Callable
from fractions import Fraction

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from isolate.errors import IsolateError, ReplyError
from isolate.worker import call, wire


class Colour(enum.Enum):
    """Allowed by annotation, as a caller's would be."""

    RED = 1


@dataclasses.dataclass
class Point:
    """Likewise."""

    x: int
    name: str = ""


ALLOWED = (Colour, Point)
VALUES = [
    None,
    [1, -1, 1 << 70, 2.5, "text", b"bytes", True, 3j],
    {"a": (1, 2), "b": {1, 2}, "c": frozenset({3})},
    [dt.datetime(2026, 1, 2, 3, 4, 5), dt.date(2026, 1, 1), dt.time(1), dt.timedelta(1)],
    [decimal.Decimal("1.5"), uuid.UUID(int=5), pathlib.PurePosixPath("/x"), Fraction(1, 3)],
    [bytearray(b"x"), range(1, 9, 2), Colour.RED, Point(1, "p")],
    [[[[[[]]]]], {"k": {"k": {"k": 0}}}],
]
INTERESTING = [0x00, 0x7F, 0x80, 0x90, 0x9F, 0xA0, 0xC0, 0xC4, 0xC6, 0xC9, 0xCF, 0xDB, 0xDD, 0xDF]


def seeds() -> list[bytes]:
    """Valid replies: values, and an error."""
    found = [wire.encode(["v", value], ALLOWED) for value in VALUES]
    found.append(wire.encode(["x", "builtins.ValueError", ("a",), "a", "trace"], ALLOWED))
    found.append(wire.encode(["x", "builtins.UnicodeDecodeError", (), "a", "trace"], ALLOWED))
    return found


def mutated(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to four changes: bits, lengths, cuts, repeats, splices, depth."""
    frame = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(frame) + 1)
        kind = rng.randrange(7)
        if kind == 0 and at < len(frame):
            frame[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(frame):
            frame[at] = rng.choice(INTERESTING)
        elif kind == 2:
            del frame[at : at + rng.randint(1, 8)]
        elif kind == 3:
            frame[at:at] = frame[at : at + rng.randint(1, 16)]
        elif kind == 4:
            other = rng.choice(others)
            cut = rng.randrange(len(other))
            frame[at:] = other[cut:]
        elif kind == 5:
            frame[at:at] = b"\x91" * rng.choice([1, 5, 70, 300])
        else:
            length = rng.choice([0, 1, 255, 65535, 1 << 24, (1 << 32) - 1])
            frame[at:at] = bytes([rng.choice([0xC6, 0xDB, 0xDD, 0xDF])]) + length.to_bytes(4, "big")
    return bytes(frame)


def decoded(frame: bytes) -> str:
    """What came of it: "value", "refused" or "raised"; anything else escapes, and is a finding."""
    try:
        call.answer(frame, ALLOWED)
    except ReplyError:
        return "refused"
    except (IsolateError, Exception) as error:
        if isinstance(error.__cause__, call.RemoteTraceback):
            return "raised"  # a reply that says so in the right form
        raise
    return "value"


def fuzz(frames: int, seed: int, check: Callable[[bytes], str] = decoded) -> dict[str, int]:
    """Count what came; raises with the frame in hex on a finding."""
    rng, corpus = random.Random(seed), seeds()
    counts = {"value": 0, "refused": 0, "raised": 0}
    for _ in range(frames):
        frame = mutated(rng.choice(corpus), rng, corpus)
        try:
            counts[check(frame)] += 1
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error}; frame {frame.hex()}") from error
    return counts


def kept(frames: int, seed: int) -> int:
    """Bytes that are still held after so many frames, and a warm-up.

    The least of three windows: what leaks does so in each; a table of the interpreter's own (of the
    strings that pathlib interns) is made larger once, by 5 MB.
    """
    fuzz(2000, seed)
    tracemalloc.start()
    found = []
    try:
        for window in range(3):
            before, _ = tracemalloc.get_traced_memory()
            fuzz(frames, seed + 1 + window)
            gc.collect()  # the decoder's errors hold each other
            after, _ = tracemalloc.get_traced_memory()
            found.append(after - before)
    finally:
        tracemalloc.stop()
    return min(found)


def main() -> int:
    """0 without a finding."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    workers = min(2, os.cpu_count() or 1)
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        jobs = [(frames // workers, seed + each) for each in range(workers)]
        counts = pool.starmap(fuzz, jobs)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    total = {name: sum(each[name] for each in counts) for name in counts[0]}
    print(f"replies: {sum(total.values())} frames without a finding: {total}")
    print(f"held after 20000 frames: {kept(20_000, seed)} bytes; peak of a worker: {peak} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
