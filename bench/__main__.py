# SPDX-License-Identifier: Apache-2.0
"""`python -m bench [--full] [--case NAME]... [--json FILE] [--svg DIRECTORY]`."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from bench import cases
from bench.harness import FULL, QUICK, SHORT, Bench, machine
from bench.job import remove_groups
from bench.report import as_json

os.environ.setdefault("ISOLATE_CGROUP_PARENT", "isolate-bench")


def names() -> list[str]:
    """Every case, by its file."""
    return sorted(each.name for each in pkgutil.iter_modules(cases.__path__))


def main(argv: list[str]) -> int:
    """Run the cases; 0 if all could be measured, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--full", action="store_true", help="more rounds, the large points too")
    parser.add_argument("--quick", action="store_true", help="does it run at all; no figures")
    parser.add_argument("--case", action="append", choices=names(), help="only this; repeatable")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--svg", type=Path, help="write a plot a table there")
    given = parser.parse_args(argv)
    for name in os.listdir("/proc/self/fd"):  # what we were given must not reach the contenders
        if int(name) > 2:
            with suppress(OSError):
                os.set_inheritable(int(name), False)
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    bench = Bench(FULL if given.full else QUICK if given.quick else SHORT, full=given.full)
    for name in given.case or names():
        module = importlib.import_module(f"bench.cases.{name}")
        began = time.monotonic()
        bench.case = name
        with ExitStack() as bench.stack:
            bench.stack.callback(remove_groups)
            module.run(bench)
        print(f"  ({name}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f})")
    if given.json:
        given.json.write_text(as_json(bench.tables, about))
    if given.svg:
        from bench.plot import write_plots

        write_plots(bench.tables, given.svg)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
