# SPDX-License-Identifier: Apache-2.0
"""Counts of one launch that no other load changes: system calls, descriptors, bytes, instructions.

A launch is run several times below strace, between marks; the least of each count is what a launch
needs when nothing gets in between (a poll that has to be called twice, say).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from attrs import Factory, define

from bench.build import build
from isolate import Sandbox
from isolate.host.facts import Host
from isolate.plan.compile import compile_plan
from isolate.plan.encode import encode
from isolate.policy.command import Command

__all__ = ["Launch", "box_fds", "instructions", "launches", "parse_log", "plan_sizes"]

MARK = "/isolate-bench-mark"
TIMES = 8
FD_CALLS = {
    "open": 1, "openat": 1, "openat2": 1, "open_tree": 1, "pipe2": 2, "socketpair": 2, "socket": 1,
    "memfd_create": 1, "pidfd_open": 1, "dup": 1, "fsopen": 1, "fsmount": 1, "eventfd2": 1,
    "epoll_create1": 1,
}  # fmt: skip
LINE = re.compile(r"^(\d+)\s+(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$")
RESULT = re.compile(r"=\s+(?:\{[^}]*\}\s*=>\s*\{[^}]*\},\s*)?(-?\d+|\?)")
SCRIPT = """
import os, sys
from isolate import Sandbox
def mark():
    try: os.stat("{mark}")
    except FileNotFoundError: pass
box = Sandbox()
place = box.open() if sys.argv[1] == "live" else box
for _ in range(3): place.run([sys.argv[2]], check=True)
for _ in range(int(sys.argv[3])):
    mark()
    place.run([sys.argv[2]], check=True)
mark()
if place is not box: place.close()
"""


@define
class Launch:
    """The calls between two marks: of the caller's threads, and of what it started."""

    caller: Counter[str] = Factory(Counter)
    inside: Counter[str] = Factory(Counter)

    @property
    def fds(self) -> int:
        """Descriptors that the caller opened."""
        return sum(FD_CALLS.get(name, 0) * n for name, n in self.caller.items())


def threads(lines: Iterable[str], first: int) -> set[int]:
    """The thread ids of the process `first`: itself, and what it cloned with CLONE_THREAD."""
    found, waiting = {first}, set()
    for line in lines:
        begun, resumed = LINE.match(line), RESUMED.match(line)
        if begun and begun[2] in ("clone", "clone3") and int(begun[1]) in found:
            if "CLONE_THREAD" not in begun[3]:
                continue
            waiting.add(int(begun[1]))
            rest = begun[3]
        elif resumed and int(resumed[1]) in waiting:
            rest = resumed[3]
        else:
            continue
        number = re.search(r"(?:=|=> \{[^}]*\}.*=)\s*(\d+)\s*$", rest)
        if number:
            found.add(int(number[1]))
            waiting.discard(int((begun or resumed)[1]))  # type: ignore[index]
    return found


def parse_log(text: str) -> list[Launch]:
    """The launches between the marks of a `strace -f -o` log. Raises: ValueError without marks."""
    lines = text.splitlines()
    marks = [i for i, line in enumerate(lines) if f'"{MARK}"' in line]
    if len(marks) < 2:
        raise ValueError("the log has no marks: did the program under strace fail?")
    caller = int(lines[marks[0]].split(None, 1)[0])
    ours = threads(lines, caller)
    found = []
    for begin, end in zip(marks, marks[1:], strict=False):
        launch = Launch()
        for line in lines[begin + 1 : end]:
            begun = LINE.match(line)
            if begun:
                (launch.caller if int(begun[1]) in ours else launch.inside)[begun[2]] += 1
        found.append(launch)
    return found


def launches(kind: str, times: int = TIMES) -> list[Launch]:
    """Run and count. Raises: CalledProcessError, ValueError.

    Args:
        kind: "oneshot" or "live".
    """
    program = str(build() / "true") if shutil.which("cc") else "/bin/true"
    with tempfile.TemporaryDirectory(prefix="isolate-bench-") as folder:
        log = Path(folder) / "log"
        script = SCRIPT.replace("{mark}", MARK)
        argv = ["strace", "-f", "-qq", "-o", str(log)]
        argv += [sys.executable, "-c", script, kind, program, str(times)]
        subprocess.run(argv, check=True)
        return parse_log(log.read_text(errors="replace"))


def plan_sizes(host: Host) -> dict[str, int]:
    """Bytes and ops of a default box's plan on a recorded host."""
    box = Sandbox()
    plan = compile_plan(box.policy, Command(["/bin/true"], box.env, box.cwd), host)
    return {
        "setup_ops": len(plan.setup),
        "setup_bytes": len(encode(plan.setup).blob),
        "program_ops": len(plan.program),
        "program_bytes": len(encode(plan.program).blob),
    }


def box_fds() -> int:
    """Descriptors that a live box holds in its caller."""
    box = Sandbox()
    box.run(["/bin/true"])  # what the library keeps for good is open now
    before = len(os.listdir("/proc/self/fd"))
    with box:
        return len(os.listdir("/proc/self/fd")) - before


PURE = """
import sys
sys.path.insert(0, {root!r})
from isolate import Sandbox
from isolate.plan.compile import compile_program
from isolate.plan.encode import encode
from isolate.policy.command import Command
from tests import hosts
box = Sandbox()
for n in range(int(sys.argv[1])):
    command = Command(["/bin/true", str(n)], box.env, box.cwd)
    made = compile_program(box.policy, command, hosts.ROOT_V1)
    encode(tuple(getattr(made, "ops", made)))
"""


def instructions() -> int:
    """Machine instructions of one compile_program and encode of a new command, by callgrind."""
    totals = []
    root = str(Path(__file__).resolve().parent.parent)
    for times in (10, 30):
        argv = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        argv += [sys.executable, "-c", PURE.format(root=root), str(times)]
        env = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(argv, check=True, capture_output=True, text=True, env=env)
        totals.append(int(re.search(r"Collected : (\d+)", done.stderr)[1]))  # type: ignore[index]
    return (totals[1] - totals[0]) // 20
