# SPDX-License-Identifier: Apache-2.0
"""Build the floor and the static program into build/bench. `python bench/build.py`."""

from __future__ import annotations

import os
import runpy
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = ROOT / "build" / "bench"
RAW = ("floor_mount.c", "floor_who.c", "floor_run.c")
RUNNER = ("floor.c", "floor_parent.c", "floor_load.c", *RAW)

__all__ = ["OUT", "build"]


def build(out: Path = OUT) -> Path:
    """Compile `floor`, `floor-init` and `true`; returns the directory."""
    made = runpy.run_path(str(ROOT / "_native" / "build.py"))
    static = made["flags_for"](os.uname().machine)
    include = ["-iquote", str(ROOT / "_native")]
    out.mkdir(parents=True, exist_ok=True)
    jobs = {
        "true": (static, ("true.c",)),
        "look": (static, ("look.c",)),
        "floor-init": (static, ("floor_init.c", *RAW)),
        "floor": ((*made["WARNINGS"], "-O2", "-fno-stack-protector"), RUNNER),
    }
    for name, (flags, sources) in jobs.items():
        target = out / name
        inputs = [HERE / each for each in (*sources, "floor.h", "floor_runner.h", "build.py")]
        if target.exists() and target.stat().st_mtime > max(p.stat().st_mtime for p in inputs):
            continue
        paths = [str(HERE / each) for each in sources]
        subprocess.run(["cc", *flags, *include, "-o", str(target), *paths], check=True)
    return out


if __name__ == "__main__":
    print(build())
