# SPDX-License-Identifier: Apache-2.0
"""What cgroup limits cost a start: by controllers, and where leaves are v1 or v2."""

from __future__ import annotations

from bench.harness import Bench, Budget, Contender
from bench.ways import oneshot, static_true
from isolate import Sandbox
from isolate.host.probe import probe

__all__ = ["run"]


def run(bench: Bench) -> None:
    """What this machine has; v2 is counted in the VM leg (`make bench-check` there)."""
    facts = probe().cgroup
    program = static_true()
    boxes = {
        "isolate, pids": Sandbox(),
        "isolate, pids and memory": Sandbox(mem="256M"),
        "isolate, pids, memory and cpu": Sandbox(mem="256M", cpu=1.0),
    }
    names = list(boxes)
    remarks = [f"cgroup v{facts.version}: {' '.join(facts.controllers)}"]
    if not facts.controllers:
        bench.say(f"no controller can be used here: {facts.why}")
        return
    bench.compare(
        f"one-shot, by controllers (v{facts.version})",
        [Contender(name, oneshot(program, box)) for name, box in boxes.items()],
        [Budget(name, names[0], None) for name in names[1:]],
        remarks=remarks,
    )
