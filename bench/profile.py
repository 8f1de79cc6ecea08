# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.profile [oneshot|live]...`: where the last microseconds of a launch go.

Three looks at the same launches: the phases that `timing` tells, Python's own functions (by
cProfile, and by pyinstrument where it is installed), and the time in each system call (strace).
"""

from __future__ import annotations

import cProfile
import importlib.util
import io
import pstats
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.build import build
from bench.stats import quantile
from isolate import Sandbox

__all__ = ["main"]

WARM, TIMES = 20, 200
TOP = 25
SCRIPT = """
import sys
from isolate import Sandbox
box = Sandbox()
place = box.open() if sys.argv[1] == "live" else box
for _ in range(int(sys.argv[3])): place.run([sys.argv[2]], check=True)
if place is not box: place.close()
"""


def phases(run: Callable[[], object]) -> None:
    """The median of each part of `timing`, and what of a run lies outside of them."""
    from bench.harness import CLOCK

    parts: dict[str, list[float]] = {}
    for _ in range(TIMES):
        began = CLOCK()
        done = run()
        whole = CLOCK() - began
        for name, value in (("whole", whole), *done.timing.items()):  # type: ignore[attr-defined]
            parts.setdefault(name, []).append(value)
    for name, values in parts.items():
        median, low = (quantile(values, q) * 1e6 for q in (0.5, 0.1))
        print(f"  {name:10} {median:8.0f} us, p10 {low:.0f}")


def functions(run: Callable[[], object]) -> None:
    """Python's share, by function."""
    if importlib.util.find_spec("pyinstrument"):
        import pyinstrument

        profiler = pyinstrument.Profiler(interval=0.0001)
        with profiler:
            for _ in range(TIMES):
                run()
        print(profiler.output_text(show_all=True, timeline=False))
    profile = cProfile.Profile()
    with profile:
        for _ in range(TIMES):
            run()
    out = io.StringIO()
    pstats.Stats(profile, stream=out).sort_stats("tottime").print_stats(TOP)
    print(out.getvalue())


def calls(way: str) -> None:
    """System calls by the time they take, of everybody; below strace all of them are slower."""
    program = str(build() / "true")
    with tempfile.TemporaryDirectory(prefix="isolate-bench-") as folder:
        log = Path(folder) / "log"
        argv = ["strace", "-c", "-f", "-w", "-qq", "-o", str(log)]
        argv += [sys.executable, "-c", SCRIPT, way, program, str(TIMES)]
        subprocess.run(argv, check=True)
        print("\n".join(log.read_text().splitlines()[: TOP + 2]))


def main(argv: list[str]) -> int:
    """All three looks, for each way."""
    program = str(build() / "true")
    box = Sandbox()
    for way in argv or ["oneshot", "live"]:
        print(f"== {way}: Sandbox().run of a static program" if way == "oneshot" else f"== {way}")
        place = box.open() if way == "live" else box

        def run(place=place):  # type: ignore[no-untyped-def]
            return place.run([program], check=True)

        for _ in range(WARM):
            run()
        phases(run)
        functions(run)
        if place is not box:
            place.close()
        calls(way)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
