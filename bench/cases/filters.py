# SPDX-License-Identifier: Apache-2.0
"""What the filter's shape costs a start: none, ours, ours and one more, Docker's."""

from __future__ import annotations

from bench.harness import Bench, Budget, Contender
from bench.ways import floor, oneshot, static_true
from isolate import Sandbox, SeccompFilter, allow

__all__ = ["run"]


def run(bench: Bench) -> None:
    """Ours by the floor's account too, since its phase is small beside the rest."""
    program = static_true()
    token = (allow.SystemCalls(),)
    boxes = {
        "isolate, no filter": Sandbox(seccomp=False, allow=token),
        "isolate, the default": Sandbox(),
        "isolate, the default and a small one": Sandbox(seccomp=SeccompFilter.deny("getppid")),
        "isolate, Docker's alone": Sandbox(seccomp=SeccompFilter.docker(), allow=token),
    }
    names = list(boxes)
    table = bench.compare(
        "one-shot, by filter",
        [Contender(name, oneshot(program, box)) for name, box in boxes.items()],
        [Budget(name, names[0], None) for name in names[1:]],
    )
    for name, box in boxes.items():
        bare = floor(bench, "direct", "template", box=box)
        bare.block(bench.scale.count * 2)
        seen = sorted(bare.phases.get("filter", [0.0]))
        told = f"the floor installs {name.partition(', ')[2]}: {seen[len(seen) // 2] * 1e6:.0f} us"
        table.remarks.append(told)
        bench.say("  " + told)
