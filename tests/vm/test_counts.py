# SPDX-License-Identifier: Apache-2.0
"""What a launch costs on cgroup v2, where a clock says nothing: its system calls.

bench/ceilings.toml holds the most that there may be; `python -m bench.check --launch` in the guest
prints them, and what they are with `--show`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs("cgroup2", "root", "vm", "strace")


@pytest.fixture(scope="module")
def said():
    """The output of one count."""
    argv = [sys.executable, "-B", "-m", "bench.check", "--launch", "--show"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    return done.returncode, done.stdout + done.stderr


def test_a_launch_takes_no_more_than_its_ceilings(said):
    status, text = said
    print(text)
    assert status == 0, text
    assert "[launch.root-cgroup2]" in text
    assert "has no ceilings" not in text


def test_a_launch_is_born_in_its_leaf_and_joins_nothing(said):
    """v2 by CLONE_INTO_CGROUP: the program writes to no cgroup.procs, as it has to on v1."""
    _, text = said
    inside = re.search(r"live, inside: \d+: (.*)", text)[1]
    calls = dict(each.rsplit(" ", 1) for each in inside.split(", "))
    assert "clone3" in calls
    assert int(calls.get("write", 0)) <= 2  # the word that it is ready


def test_a_program_of_a_live_box_drops_nothing_that_its_box_has_dropped(said):
    _, text = said
    inside = re.search(r"live, inside: \d+: (.*)", text)[1]
    calls = dict(each.rsplit(" ", 1) for each in inside.split(", "))
    assert int(calls["prctl"]) < 10
