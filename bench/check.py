# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.check [--update] [--show]`: counts of a launch against bench/ceilings.toml.

Nothing here depends on how fast the machine is. What depends on its kind (root or not, the version
of cgroups, the Python) has a section of its own; a kind without one is counted and not compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from pathlib import Path

from bench import counts
from isolate.host.probe import probe
from tests import hosts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["compare", "main", "measured", "written"]

FILE = Path(__file__).with_name("ceilings.toml")
SLACK = 1.03
HEAD = """\
# What one launch may take at most. Counts, not times: they are the same on a busy machine.
# `make bench-check` compares, with 3 % of slack; after a change that is worth it:
#     make bench-check BENCH=--update
# and say in the commit what the new calls are for. Lower them whenever you can.
"""
Figures = dict[str, dict[str, int]]


def kind() -> str:
    """This kind of machine: who we are, and which cgroups there are."""
    version = probe().cgroup.version
    return f"{'root' if os.geteuid() == 0 else 'user'}-cgroup{version or 0}"


def least(found: list[counts.Launch]) -> dict[str, int]:
    """What a launch needs when nothing gets in between."""
    return {
        "caller_calls": min(each.caller.total() for each in found),
        "inside_calls": min(each.inside.total() for each in found),
        "caller_fds_opened": min(each.fds for each in found),
    }


def measured(show: bool = False, pure: bool = True) -> Figures:
    """Everything that is counted, by section; `pure`: the instructions, too."""
    found: Figures = {"plan": counts.plan_sizes(hosts.ROOT_V1)}
    found[f"launch.{kind()}"] = {"box_fds": counts.box_fds()}
    for way in ("oneshot", "live"):
        seen = counts.launches(way, counts.TIMES if pure else 3)
        for name, value in least(seen).items():
            if pure or name != "caller_calls":  # in a slow guest it looks at its host each time
                found[f"launch.{kind()}"][f"{way}_{name}"] = value
        if show:
            show_calls(way, min(seen, key=lambda each: each.caller.total()))
    if not pure:
        return found
    if not shutil.which("valgrind"):
        if os.environ.get("ISOLATE_MUST_WORK"):
            raise SystemExit("valgrind is missing; CI counts the pure part's instructions by it")
        print("NOT COUNTED: the pure part's instructions, since valgrind is not installed")
    else:
        python = "".join(platform.python_version_tuple()[:2])
        found[f"pure.python{python}"] = {"program_instructions": counts.instructions()}
    return found


def show_calls(way: str, launch: counts.Launch) -> None:
    """Which calls they are."""
    for whose, calls in (("caller", launch.caller), ("inside", launch.inside)):
        listed = ", ".join(f"{name} {n}" for name, n in calls.most_common())
        print(f"{way}, {whose}: {calls.total()}: {listed}")


def compare(found: Figures, ceilings: Figures) -> tuple[list[str], list[str]]:
    """(what is too much, what is worth knowing). Pure."""
    wrong, told = [], []
    for section, figures in found.items():
        if section not in ceilings:
            told.append(f"[{section}] has no ceilings: this kind of machine is not compared")
            continue
        for name, value in figures.items():
            ceiling = ceilings[section].get(name)
            if ceiling is None:
                wrong.append(f"[{section}] {name} = {value} has no ceiling yet")
            elif value > ceiling * SLACK:
                wrong.append(f"[{section}] {name} is {value}, at most {ceiling} is allowed")
            elif value < ceiling / SLACK:
                told.append(f"[{section}] {name} fell from {ceiling} to {value}: lower the ceiling")
    return wrong, told


def load(path: Path = FILE) -> Figures:
    """The committed ceilings, by section name."""
    found: Figures = {}
    tables = tomllib.loads(path.read_text())
    for top, inner in tables.items():
        if all(isinstance(value, int) for value in inner.values()):
            found[top] = inner
        else:
            found.update({f"{top}.{name}": values for name, values in inner.items()})
    return found


def written(figures: Figures) -> str:
    """The file's text."""
    lines = [HEAD]
    for section in sorted(figures):
        lines.append(f"[{section}]")
        lines += [f"{name} = {value}" for name, value in figures[section].items()]
        lines.append("")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """0 if every count is below its ceiling."""
    parser = argparse.ArgumentParser(prog="python -m bench.check")
    parser.add_argument("--update", action="store_true", help="write what is counted now")
    parser.add_argument("--show", action="store_true", help="list the system calls")
    parser.add_argument("--launch", action="store_true", help="no instructions (by valgrind)")
    given = parser.parse_args(argv)
    found = measured(given.show, not given.launch)
    old = load() if FILE.exists() else {}
    if given.update:
        FILE.write_text(written({**old, **found}))
    wrong, told = compare(found, load())
    for section, figures in found.items():
        print(f"[{section}] " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    for line in told:
        print(f"note: {line}")
    for line in wrong:
        print(f"TOO MUCH: {line}")
    if wrong:
        print(
            "A launch does more than it did. `python -m bench.check --show` lists its system "
            "calls; if they are worth it: make bench-check BENCH=--update, and commit "
            "bench/ceilings.toml."
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
