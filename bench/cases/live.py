# SPDX-License-Identifier: Apache-2.0
"""One program in a box that is up already, against posix_spawn of it."""

from __future__ import annotations

from bench.harness import Bench, Budget, Contender, each
from bench.ways import TRUE, floor, sandbox, spawned, static_true

__all__ = ["run"]


def run(bench: Bench) -> None:
    """Static, then dynamic."""
    box = bench.stack.enter_context(sandbox())
    for title, program in (("a static program", static_true()), ("/bin/true", TRUE)):
        use = program

        def ours(program: str = use) -> None:
            box.run([program], check=True)

        bench.compare(
            title,
            [
                Contender("isolate", each(ours)),
                Contender("floor, live", floor(bench, "live", program=program).block, "in C"),
                Contender("posix_spawn", spawned(program), "no isolation"),
                Contender("posix_spawn, C", floor(bench, "spawn", program=program).block),
            ],
            [
                Budget("isolate", "posix_spawn", 1.3, "program in a live box"),
                Budget("isolate", "floor, live", None),
            ],
        )
