# SPDX-License-Identifier: Apache-2.0
"""What a filter costs: ours, libseccomp's list, libseccomp's tree, none. `make bench-seccomp`.

The rules are Docker's default profile, which all three compilers can be given whole. "installed" is
what a plan on this machine has for them: with a listener, and no second one let in. One run, in
turns: instructions for an allowed call (counted, so exact), installing it, a loop of getppid (which
the kernel need not run a filter for: it keeps a bitmap of calls that are always let in), and one of
personality(0xffffffff), whose argument a filter must look at. Times are the least of all rounds,
which other work of the machine does not touch. `python -m bench.seccomp_cost [ROUNDS]`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from isolate import Policy, SeccompFilter
from isolate.abi.ops import OpCode
from isolate.abi.syscalls import AUDIT_ARCH, numbers
from isolate.machine import this_host
from isolate.plan.bpf.assemble import assemble
from isolate.plan.bpf.evaluate import run
from isolate.plan.compile import compile_plan
from isolate.plan.model import Op
from isolate.policy.command import Command
from isolate.policy.rules import ALLOW, Layer
from tests.live.libseccomp import LINEAR, TREE, theirs

ARCH = os.uname().machine
CALLS = 50_000
ASKS = (numbers(ARCH)["personality"], 0xFFFFFFFF)
HERE = Path(__file__).resolve().parent


def rules() -> Layer:
    """What all compilers are given."""
    whole = SeccompFilter.docker().layers[0]
    found = tuple(
        rule
        for rule in whole.rules
        if rule.syscall in numbers(ARCH) and rule.action != whole.default
    )
    return Layer(found, whole.default)


def installed(wanted: SeccompFilter) -> Op:
    """The step of a plan that installs a filter on this machine. There is one."""
    plan = compile_plan(Policy(wanted), Command(["true"]), this_host())
    codes = (OpCode.SECCOMP, OpCode.SECCOMP_NOTIFY)
    (found,) = [op for op in plan.program if op.code in codes]
    return found


def program_of(op: Op) -> bytes:
    """The instructions that a step installs."""
    (program,) = op.strs
    assert isinstance(program, bytes)
    return program


def programs() -> dict[str, bytes]:
    """The same rules through each compiler, and as they are in a box."""
    layer = rules()
    return {
        "ours": assemble(layer, ARCH),
        "ours, installed": program_of(installed(SeccompFilter((layer,)))),
        "libseccomp tree": theirs(layer, TREE),
        "libseccomp list": theirs(layer, LINEAR),
    }


def steps(program: bytes) -> list[int]:
    """Instructions of each call that is let through."""
    found = (run(program, AUDIT_ARCH[ARCH], number) for number in numbers(ARCH).values())
    return [each.steps for each in found if each.action == ALLOW]


def built(folder: Path) -> Path:
    """seccomp_loop.c."""
    target = folder / "loop"
    source = HERE / "seccomp_loop.c"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", target, source], check=True)
    return target


def measured(loop: Path, file: str, *call: int) -> tuple[float, float]:
    """(ns to install, ns a call), in a process of its own."""
    argv = [str(loop), file, str(CALLS), *map(str, call)]
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    install, each = text.split()
    return float(install), float(each)


def rounds(count: int, folder: Path) -> Iterator[dict[str, tuple[float, float, float]]]:
    """name -> (install, getppid, personality), of each round; the order turns."""
    loop = built(folder)
    files = {"none": "-"}
    for name, program in programs().items():
        path = folder / name.replace(" ", "-")
        path.write_bytes(program)
        files[name] = str(path)
    if installed(SeccompFilter((rules(),))).code is OpCode.SECCOMP_NOTIFY:
        files["ours, installed"] = "+" + files["ours, installed"]
    names = list(files)
    for turn in range(count):
        found = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            install, getppid = measured(loop, files[name])
            found[name] = (install, getppid, measured(loop, files[name], *ASKS)[1])
        yield found


def least(samples: list[dict[str, tuple[float, float, float]]], name: str, at: int) -> float:
    """Of one figure."""
    return min(each[name][at] for each in samples)


FORMAT = "{:16} {:>6} {:>18} {:>16} {:>16} {:>16}"


def row(samples: list[dict[str, tuple[float, float, float]]], name: str) -> str:
    """One line of the table."""
    base = [least(samples, "ours", at) for at in range(3)]
    times = [least(samples, name, at) for at in range(3)]
    cells = [f"{times[at]:.0f} ({times[at] / base[at]:.2f})" for at in (1, 2)]
    if name == "none":
        return FORMAT.format(name, "-", "-", "-", *cells)
    program, mine = programs()[name], statistics.mean(steps(programs()["ours"]))
    taken = statistics.mean(steps(program))
    install = f"{times[0] / 1e3:.0f} ({times[0] / base[0]:.2f})"
    counted = f"{taken:.2f} ({taken / mine:.2f})"
    return FORMAT.format(name, len(program) // 8, counted, install, *cells)


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory(prefix="isolate-bench-") as folder:
        samples = list(rounds(count, Path(folder)))
    print(f"Docker's default profile on {ARCH}; {count} rounds in turns; the least (times ours)")
    box = program_of(installed(SeccompFilter.default()))
    mean = statistics.mean(steps(box))
    print("instructions: for a call that is let through, on average")
    print(f"default(), as it is installed here: {len(box) // 8} long, {mean:.2f} instructions\n")
    heads = ("", "length", "instructions", "install us", "getppid ns", "personality ns")
    print(FORMAT.format(*heads))
    for name in ("none", *programs()):
        print(row(samples, name))


if __name__ == "__main__":
    main()
