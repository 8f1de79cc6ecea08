# SPDX-License-Identifier: Apache-2.0
"""The one-shot run again, while every processor has something else to do."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.harness import Bench, Budget, Contender
from bench.ways import floor, oneshot, spawned, static_true

__all__ = ["run"]

SPIN = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"
SECONDS = 120  # they end by themselves, whatever becomes of us


def run(bench: Bench) -> None:
    """Idle as far as it is, then busy."""
    program = static_true()
    contenders = [
        Contender("isolate", oneshot(program)),
        Contender("floor", floor(bench).block),
        Contender("floor, template, ready", floor(bench, "template", "ready").block),
        Contender("posix_spawn", spawned(program)),
    ]
    budgets = [Budget("isolate", "floor", None), Budget("isolate", "floor, template, ready", None)]
    bench.compare("a static program, as the machine is", contenders, budgets)
    argv = [sys.executable, "-I", "-S", "-c", SPIN.format(SECONDS)]
    spinners = [subprocess.Popen(argv) for _ in range(os.cpu_count() or 1)]
    try:
        bench.compare("a static program, every processor busy", contenders, budgets)
    finally:
        for each in spinners:
            each.kill()
            each.wait()
