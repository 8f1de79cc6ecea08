"""The harness itself: the floor does what it says, a look tells the truth, a run gives figures."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import counts
from bench.build import build
from bench.harness import Bench, Scale
from bench.inside import lacks, look_here, parse
from bench.job import remove_groups
from bench.ways import floor, sandbox

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs("root", "cgroup1", "idmap", "gcc", "strace", "x86_64")


@pytest.fixture
def bench():
    made = Bench(Scale(1, 2), say=lambda text: None)
    made.stack.callback(remove_groups)
    with made.stack:
        yield made


@pytest.mark.parametrize(
    "modes",
    [(), ("direct",), ("template",), ("ready",), ("template", "ready"), ("template", "direct")],
)
def test_every_mode_of_the_floor_runs_its_program(bench, modes):
    made = floor(bench, *modes)
    assert len(made.block(3)) == 3
    phases = set(made.phases)
    assert {"total", "cgroup", "clone", "maps", "mount", "caps", "filter"} <= phases
    assert ("trees" in phases) is ("template" not in modes)
    assert ("network" in phases) is ("ready" not in modes)


def test_the_floors_box_is_ours_seen_from_inside(bench, tmp_path):
    """`look` as the floor's program: it writes to the pipe that the floor drains, so it has to be
    traced to be read."""
    look = str(build() / "look")
    host = look_here(look)
    ours = parse(sandbox().run([look], capture_output=True, check=True, text=True).stdout)
    made = floor(bench, "template", program=look)
    log = tmp_path / "log"
    argv = ["strace", "-qq", "-f", "-e", "trace=write", "-s", "70000", "-xx", "-o", str(log)]
    done = subprocess.run([*argv, *made.process.args], input=b"1\n", capture_output=True)
    assert done.returncode == 0, done.stderr
    writes = [line for line in log.read_text().splitlines() if " write(1, " in line]
    text = b"".join(bytes.fromhex(line.split('"')[1].replace("\\x", "")) for line in writes).decode(
        "utf-8", "replace"
    )
    seen = parse(text[: re.search(r"call TIOCSTI -\d+", text).end()])
    assert lacks(seen, ours, host) == []


def test_a_live_floor_starts_many_in_one_box(bench):
    made = floor(bench, "live")
    assert len(made.block(5)) == 5 and all(0 < t < 60 for t in made.block(5))


def test_a_floor_that_can_not_run_says_why(bench):
    made = floor(bench, program="/nothing/there")
    with pytest.raises(RuntimeError, match="ended with 1"):
        made.block(1)


def test_a_phase_can_be_left_out(bench):
    made = floor(bench, "without=filter", "without=network")
    made.block(1)
    assert "filter" not in made.phases and "network" not in made.phases


def test_a_run_writes_figures_and_a_picture(tmp_path):
    argv = [sys.executable, "-m", "bench", "--case", "filters", "--quick"]
    argv += ["--json", str(tmp_path / "out.json"), "--svg", str(tmp_path / "plots")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    names = [row["name"] for row in found["tables"][0]["rows"]]
    assert "isolate, the default" in names and found["machine"]["cpus"] == os.cpu_count()
    assert list((tmp_path / "plots").glob("*.svg"))


def test_a_launch_is_counted_the_same_twice():
    first, second = (counts.launches("live", times=4) for _ in range(2))
    least = [min(each.inside.total() for each in found) for found in (first, second)]
    assert abs(least[0] - least[1]) <= 2
    assert all(each.inside["execve"] == 1 for each in first)


def test_a_live_box_holds_a_few_descriptors():
    assert 0 < counts.box_fds() < 30
