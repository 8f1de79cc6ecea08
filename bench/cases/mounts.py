# SPDX-License-Identifier: Apache-2.0
"""What mounts cost: read-only grants of host directories, and file systems in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.harness import Bench, Contender
from bench.ways import oneshot, static_true
from isolate import Mount, Sandbox

__all__ = ["run"]

POINTS = (0, 10, 25, 50)


def granted(folders: list[Path], number: int) -> Sandbox:
    """A box that may read the first so many."""
    return Sandbox(read=[str(each) for each in folders[:number]])


def run(bench: Bench) -> None:
    """0 to 50 of each kind."""
    program = static_true()
    top = Path(bench.stack.enter_context(tempfile.TemporaryDirectory(prefix="isolate-bench-")))
    folders = [top / f"grant{i}" for i in range(max(POINTS))]
    for each in folders:
        each.mkdir()
    contenders = []
    for number in POINTS:
        box = granted(folders, number)
        name = f"isolate, read=, {number} grants"
        contenders.append(Contender(name, oneshot(program, box), x=float(number)))
    for number in POINTS:
        mounts = [Mount.tmpfs(f"/srv/m{i}", "1M") for i in range(number)]
        box = Sandbox(*mounts)
        name = f"isolate, Mount.tmpfs, {number} mounts"
        contenders.append(Contender(name, oneshot(program, box), x=float(number)))
    bench.compare("one-shot, by mounts", contenders, count=max(4, bench.scale.count // 3))
