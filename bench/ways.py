# SPDX-License-Identifier: Apache-2.0
"""The contenders that most cases share: the floor in its modes, ours, and bare starts."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from bench.build import OUT, build
from bench.harness import CLOCK, Bench, each
from bench.job import job_text
from isolate import Sandbox, stock
from isolate.machine import this_host
from isolate.plan.compile import compile_plan
from isolate.policy.command import Command

__all__ = ["TRUE", "floor", "oneshot", "sandbox", "spawned", "static_true", "stocked"]

TRUE = "/bin/true"
FLOOR_SECONDS = 120
STOCK = 2


def static_true() -> str:
    """The static program, built."""
    return str(build() / "true")


@lru_cache(maxsize=1)
def sandbox() -> Sandbox:
    """The default one: it shows this checkout, since `python -m bench` has it in sys.path.

    Raises: RuntimeError, if it does not.
    """
    build()
    box = Sandbox()
    if box.run([static_true()]).returncode:
        raise RuntimeError(f"{OUT} is not in sys.path: run `python -m bench` in the checkout")
    return box


def job_file(bench: Bench, box: Sandbox, program: str) -> Path:
    """The floor's job for what this sandbox does."""
    plan = compile_plan(box.policy, Command([program], box.env, box.cwd), this_host())
    folder = bench.stack.enter_context(tempfile.TemporaryDirectory(prefix="isolate-bench-"))
    path = Path(folder) / "job"
    path.write_text(job_text(plan))
    return path


class Floor:
    """A running floor program; asked for a number of launches, it answers with their times."""

    def __init__(self, job: Path, *modes: str) -> None:
        argv = [str(OUT / "floor"), str(job), str(OUT / "floor-init"), *modes]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.phases: dict[str, list[float]] = {}
        self.used = 0.0  # processor seconds, where the mode tells them

    def block(self, count: int) -> list[float]:
        """Seconds of each launch. Raises: RuntimeError, if the floor has stopped."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"%d\n" % count)
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line.endswith(b"]\n"):
            code = self.process.wait(FLOOR_SECONDS)
            raise RuntimeError(f"the floor ended with {code}; it has said why on stderr")
        rows = json.loads(line)
        self.used += sum(row.pop("cpu", 0) for row in rows) / 1e9
        for row in rows:
            for name, value in row.items():
                self.phases.setdefault(name, []).append(value / 1e9)
        return [row["total"] / 1e9 for row in rows]

    def cpu(self) -> float:
        """Processor seconds of all launches up to now."""
        return self.used

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended by itself, and has been told of
            self.process.stdin.close()
        self.process.wait(FLOOR_SECONDS)
        self.process.stdout.close()


def floor(bench: Bench, *modes: str, box: Sandbox | None = None, program: str = "") -> Floor:
    """The floor for a sandbox's plan, in some of its modes; ended with the case."""
    job = job_file(bench, box or sandbox(), program or static_true())
    made = Floor(job, *modes)
    bench.stack.callback(made.close)
    return made


def oneshot(program: str, box: Sandbox | None = None) -> Callable[[int], list[float]]:
    """`Sandbox().run([program])`."""
    use = box or sandbox()
    return each(lambda: use.run([program], check=True))


def stocked(program: str) -> Callable[[int], list[float]]:
    """The same with the library's stock of namespaces, full before each launch: what is timed is
    one launch that was not awaited, not a rush of them."""
    use = sandbox()

    def block(count: int) -> list[float]:
        found = []
        with stock(STOCK) as made:
            for _ in range(count):
                if not made.wait(STOCK, FLOOR_SECONDS):
                    raise RuntimeError(f"the stock was not filled: {made.error}")
                began = CLOCK()
                use.run([program], check=True)
                found.append(CLOCK() - began)
        return found

    return block


def spawned(program: str) -> Callable[[int], list[float]]:
    """`os.posix_spawn` and `waitpid`, from here."""

    def job() -> None:
        pid = os.posix_spawn(program, [program], {})
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"{program} ended with {status}")

    return each(job)
