# SPDX-License-Identifier: Apache-2.0
"""Does a launch cost more when the caller is large? `python bench/resident.py [LAUNCHES]`.

One process: small first, then with 1 GiB touched, then small again, in turns; the ratio of the
medians of `Sandbox().run(["/bin/true"])`. DESIGN.md wants at most 1.1.
"""

from __future__ import annotations

import mmap
import statistics
import sys
import time

from isolate import Sandbox

GIB = 1 << 30
PAGE = 4096


def launches(count: int) -> list[float]:
    """Seconds of each."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        Sandbox().run(["/bin/true"])
        found.append(time.perf_counter() - began)
    return found


def large(count: int) -> list[float]:
    """The same with 1 GiB resident."""
    with mmap.mmap(-1, GIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for at in range(0, GIB, PAGE):
            memory[at] = 1
        return launches(count)


def main() -> None:
    """Print the ratio."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    launches(20)
    small, big = [], []
    for _ in range(5):
        small += launches(count)
        big += large(count)
    a, b = statistics.median(small), statistics.median(big)
    print(f"small caller: {a * 1e3:.2f} ms; with 1 GiB resident: {b * 1e3:.2f} ms; {b / a:.3f} x")


if __name__ == "__main__":
    main()
