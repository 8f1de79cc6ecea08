"""Counts from a log of strace, their ceilings, and pictures; nothing is run."""

from collections import Counter
from xml.etree import ElementTree

import pytest

from bench.check import compare, load, written
from bench.counts import MARK, parse_log
from bench.harness import Budget, Contender, Table
from bench.plot import as_svg, file_name, write_plots
from bench.stats import Ratio, Summary

LOG = f"""\
100 newfstatat(AT_FDCWD, "{MARK}", 0x1, 0) = -1 ENOENT
100 pipe2([3, 4], O_CLOEXEC) = 0
100 clone3({{flags=CLONE_VM|CLONE_THREAD|CLONE_SIGHAND}}, 88 <unfinished ...>
101 setns(5, CLONE_NEWNS) = 0
100 <... clone3 resumed>) = 101
101 clone3({{flags=CLONE_VM|CLONE_VFORK|CLONE_NEWPID, pidfd=0x7}} => {{pidfd=[9]}}, 88) = 200
200 prctl(PR_CAPBSET_DROP, 0) = 0
200 execve("/bin/true", ["true"], 0x1) = 0
100 openat(AT_FDCWD, "/x", O_RDONLY) = 5
200 +++ exited with 0 +++
100 --- SIGCHLD {{si_signo=SIGCHLD}} ---
100 newfstatat(AT_FDCWD, "{MARK}", 0x1, 0) = -1 ENOENT
100 close(5) = 0
100 newfstatat(AT_FDCWD, "{MARK}", 0x1, 0) = -1 ENOENT
"""


def test_a_log_is_split_by_marks_and_by_whose_a_call_is():
    first, second = parse_log(LOG)
    assert first.caller == Counter(pipe2=1, clone3=2, setns=1, openat=1)
    assert first.inside == Counter(prctl=1, execve=1)
    assert (second.caller, second.inside) == (Counter(close=1), Counter())


def test_descriptors_are_counted_by_what_opens_them():
    first, second = parse_log(LOG)
    assert (first.fds, second.fds) == (3, 0)  # a pipe has two


def test_a_log_without_marks_is_an_error():
    with pytest.raises(ValueError, match="no marks"):
        parse_log("100 close(5) = 0\n")


CEILINGS = {"a": {"calls": 100, "bytes": 1000}}


def test_what_grew_is_told_with_its_ceiling():
    wrong, told = compare({"a": {"calls": 104, "bytes": 1000}}, CEILINGS)
    assert wrong == ["[a] calls is 104, at most 100 is allowed"] and told == []


def test_three_percent_is_slack():
    assert compare({"a": {"calls": 103, "bytes": 1030}}, CEILINGS) == ([], [])


def test_what_fell_is_worth_a_note():
    wrong, told = compare({"a": {"calls": 50, "bytes": 1000}}, CEILINGS)
    assert wrong == [] and "fell from 100 to 50" in told[0]


def test_a_new_count_needs_a_ceiling():
    wrong, _ = compare({"a": {"calls": 1, "new": 7}}, CEILINGS)
    assert wrong == ["[a] new = 7 has no ceiling yet"]


def test_another_kind_of_machine_is_not_compared():
    wrong, told = compare({"b": {"calls": 1}}, CEILINGS)
    assert wrong == [] and "not compared" in told[0]


def test_ceilings_are_read_as_they_are_written(tmp_path):
    figures = {
        "plan": {"bytes": 7},
        "launch.root-cgroup1": {"calls": 1},
        "pure.python311": {"n": 2},
    }
    path = tmp_path / "ceilings.toml"
    path.write_text(written(figures))
    assert load(path) == figures


def table(*, points):
    rows = [
        (
            Contender(f"isolate, {x} <b>", lambda n: [1.0] * n, x=float(x) if points else None),
            Summary(count=5, median=x * 1e-4, p10=x * 0.8e-4, p99=x * 3e-4),
        )
        for x in (1, 10, 100)
    ]
    budget = Budget(rows[0][0].name, rows[1][0].name, 2.0)
    return Table("case", "Some title!", rows, [(budget, Ratio(value=1, low=1, high=1))])


@pytest.mark.parametrize("points", [True, False])
def test_a_picture_is_well_formed_and_names_everybody(points):
    text = as_svg(table(points=points))
    root = ElementTree.fromstring(text)
    words = " ".join(each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "Some title!" in words and "isolate" in words
    assert "nan" not in text


def test_bars_grow_with_the_median():
    root = ElementTree.fromstring(as_svg(table(points=False)))
    widths = [float(r.get("width")) for r in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths == sorted(widths) and len(set(widths)) == 3


def test_one_file_a_table(tmp_path):
    assert file_name(table(points=True)) == "case-some-title.svg"
    write_plots([table(points=True)], tmp_path / "plots")
    assert [each.name for each in (tmp_path / "plots").iterdir()] == ["case-some-title.svg"]
