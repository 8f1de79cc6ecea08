"""`make bench-seccomp` runs and prints what it says; no time is asserted."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.seccomp_cost import programs, steps

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs("gcc", "libseccomp")


def test_the_table_has_a_line_for_each_way():
    argv = [sys.executable, "-m", "bench.seccomp_cost", "1"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    lines = {line[:16].strip(): line for line in done.stdout.splitlines()[4:]}
    assert set(lines) == {"none", "ours", "libseccomp tree", "libseccomp list"}
    assert lines["ours"].count("(1.00)") == 4


def test_of_the_three_ours_takes_the_fewest_instructions_on_average():
    means = {
        name: sum(taken := steps(program)) / len(taken) for name, program in programs().items()
    }
    assert min(means, key=means.get) == "ours"
    assert min(len(program) for program in programs().values()) == len(programs()["ours"])
