# SPDX-License-Identifier: Apache-2.0
"""One program in a fresh box, against the floor that does the same kernel work."""

from __future__ import annotations

from bench.harness import Bench, Budget, Contender, own_cpu
from bench.stats import quantile
from bench.ways import TRUE, floor, oneshot, spawned, static_true, stocked

__all__ = ["run"]


def phases_of(name: str, found: dict[str, list[float]]) -> str:
    """The floor's own account, in one line."""
    parts = [f"{k} {quantile(v, 0.5) * 1e6:.0f}" for k, v in found.items() if k != "total"]
    return f"{name}, median us by phase: {', '.join(parts)}"


def run(bench: Bench) -> None:
    """Static, then dynamic."""
    fresh, ready = floor(bench), floor(bench, "ready")
    template = floor(bench, "template")
    both = floor(bench, "template", "ready")
    dynamic = floor(bench, program=TRUE)
    program = static_true()
    table = bench.compare(
        "a static program",
        [
            Contender("isolate", oneshot(program), cpu=own_cpu),
            Contender("isolate, stock", stocked(program), "net, ipc from its stock", cpu=own_cpu),
            Contender("floor", fresh.block, "every mount anew", cpu=fresh.cpu),
            Contender("floor, template", template.block, "the tree made once", cpu=template.cpu),
            Contender("floor, ready", ready.block, "net and ipc from a stock", cpu=ready.cpu),
            Contender("floor, template, ready", both.block, "the least that we know", cpu=both.cpu),
            Contender("posix_spawn", spawned(program), "no isolation", cpu=own_cpu),
        ],
        [
            Budget("isolate", "floor", 1.35, "one-shot program, all fresh"),
            Budget("isolate, stock", "floor, ready", 1.5, "one-shot program from a stock"),
            Budget("isolate", "floor, template", None),
            Budget("isolate, stock", "floor, template, ready", None),
        ],
    )
    for name, each in (("floor", fresh), ("floor, template, ready", both)):
        table.remarks.append(phases_of(name, each.phases))
        bench.say("  " + table.remarks[-1])
    bench.compare(
        "/bin/true",
        [
            Contender("isolate", oneshot(TRUE), cpu=own_cpu),
            Contender("floor", dynamic.block, cpu=dynamic.cpu),
            Contender("posix_spawn", spawned(TRUE), "no isolation", cpu=own_cpu),
        ],
        [Budget("isolate", "floor", None)],
    )
