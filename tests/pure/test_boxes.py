"""Finding boxes from outside: texts of /proc that anybody may have written."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from isolate.supervise.boxes import (
    BoxFacts,
    init_above,
    leaves_below,
    paired,
    parse_locks,
    parse_mounts,
)
from isolate.supervise.proctree import ProcessFacts, below, parse_stat, printable, snapshot

ONE = ProcessFacts(
    pid=10, parent=1, name="x", state="S", cpu=0.5, reaped=0.0, threads=1, started=5, resident=4096
)
STAT = (
    "{pid} ({name}) S 7 10 10 0 -1 4194560 100 0 0 0 12 34 5 6 20 0 3 0 5555 1000000 25 "
    "18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


def process(pid, parent, **other):
    return evolve(ONE, pid=pid, parent=parent, **other)


def test_a_stat_line_is_read_by_position():
    facts = parse_stat(STAT.format(pid=10, name="sh"))
    assert (facts.pid, facts.parent, facts.name, facts.state) == (10, 7, "sh", "S")
    assert (facts.threads, facts.started, facts.resident) == (3, 5555, 25 * 4096)
    assert facts.cpu == 0.46
    assert facts.reaped == 0.11


@given(st.text(max_size=40))
def test_a_name_can_hold_anything_and_moves_no_field(name):
    facts = parse_stat(STAT.format(pid=10, name=name))
    assert (facts.pid, facts.parent, facts.name) == (10, 7, name)


@given(st.text(max_size=300))
def test_no_stat_line_raises(text):
    assert parse_stat(text) is None or isinstance(parse_stat(text), ProcessFacts)


@given(st.text(max_size=400))
def test_what_is_shown_moves_no_cursor(text):
    shown = printable(text)
    assert all(c.isprintable() for c in shown)
    assert len(shown) <= 201


def test_escape_sequences_are_shown_as_question_marks():
    assert printable("\x1b[2J\x9bowned\n") == "?[2J?owned?"


def test_descendants_are_found_and_a_circle_ends():
    family = [process(2, 1), process(3, 2), process(4, 3), process(9, 8), process(1, 4)]
    assert [each.pid for each in below(1, family)] == [2, 3, 4]


def test_this_process_is_in_the_snapshot():
    import os

    assert snapshot()[os.getpid()].parent == os.getppid()


def test_mounts_are_read_by_controller():
    text = (
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
        "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
        "cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n"
        "cgroup2 /odd\\040place cgroup2 rw 0 0\n"
        "short line\n"
    )
    assert parse_mounts(text) == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "unified": "/odd place",
    }


def test_locks_are_told_by_device_and_inode():
    text = (
        "1: FLOCK  ADVISORY  WRITE 25844 00:1e:256649 0 EOF\n"
        "2: POSIX  ADVISORY  READ  1 00:1e:7 0 EOF\n"
        "2: -> FLOCK  ADVISORY  WRITE 9 08:01:12 0 EOF\n"
        "rubbish\n"
    )
    assert parse_locks(text) == {(0, 0x1E, 256649), (8, 1, 12)}


@given(st.text(max_size=300))
def test_no_text_breaks_the_two_parsers(text):
    assert isinstance(parse_locks(text), set)
    assert isinstance(parse_mounts(text), dict)


def test_only_names_of_our_form_are_leaves(tmp_path):
    wanted = tmp_path / "a/isolate-12-0-0123abcd"
    (wanted / "isolate-12-1-0123abcd").mkdir(parents=True)  # made by a payload, below a leaf
    for name in ("isolate-12-0", "isolate-x-0-0123abcd", "isolate-12-0-0123ABCD", "other"):
        (tmp_path / "a" / name).mkdir()
    assert list(leaves_below(str(tmp_path))) == [("isolate-12-0-0123abcd", str(wanted))]


def test_an_init_is_told_by_descent():
    processes = {each.pid: each for each in (process(5, 1), process(6, 5), process(7, 6))}
    assert init_above({7}, {5}, processes) == 5
    assert init_above({7}, {99}, processes) == 0
    assert init_above({404}, {5}, processes) == 0
    loop = {1: process(1, 2), 2: process(2, 1)}
    assert init_above({1}, {3}, loop) == 0


def test_idle_leaves_get_their_owners_inits_oldest_first():
    boxes = [
        BoxFacts(name="isolate-10-11-00000000", owner=10),
        BoxFacts(name="isolate-10-2-00000000", owner=10),
        BoxFacts(name="isolate-20-0-00000000", owner=20, init=77),
    ]
    rest = [process(50, 10), process(51, 10), process(52, 30)]
    found = {box.name: box.init for box in paired(boxes, rest)}
    assert found == {
        "isolate-10-2-00000000": 50,
        "isolate-10-11-00000000": 51,
        "isolate-20-0-00000000": 77,
    }
    assert [each.pid for each in rest] == [52]
