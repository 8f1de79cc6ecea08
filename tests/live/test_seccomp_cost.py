"""`make bench-seccomp` runs and prints what it says; no time is asserted."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.seccomp_cost import installed, program_of, programs, steps
from isolate import SeccompFilter

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs("gcc", "libseccomp")


def test_the_table_has_a_line_for_each_way():
    argv = [sys.executable, "-m", "bench.seccomp_cost", "1"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    lines = {line[:16].strip(): line for line in done.stdout.splitlines()[5:]}
    assert set(lines) == {"none", "ours", "ours, installed", "libseccomp tree", "libseccomp list"}
    assert "default(), as it is installed here" in done.stdout
    assert lines["ours"].count("(1.00)") == 4


def mean(program):
    taken = steps(program)
    return sum(taken) / len(taken)


def test_of_the_three_ours_takes_the_fewest_instructions_on_average():
    means = {name: mean(program) for name, program in programs().items()}
    assert min(means, key=means.get) == "ours"
    assert min(len(program) for program in programs().values()) == len(programs()["ours"])


def test_what_is_installed_takes_fewer_than_libseccomps_tree_by_far():
    """With the listener's guard, as the plan on this machine has it."""
    means = {name: mean(program) for name, program in programs().items()}
    assert means["ours, installed"] < 0.7 * means["libseccomp tree"]
    assert means["ours, installed"] < means["ours"] + 0.5
    assert len(programs()["ours, installed"]) < len(programs()["libseccomp tree"])


def test_the_default_of_a_sandbox_is_one_program_of_few_instructions():
    op = installed(SeccompFilter.default())
    assert mean(program_of(op)) < 10
    assert all(taken < 40 for taken in steps(program_of(op)))
