"""Reading a leaf's files: v1, v2, both at once, files that are absent, and a leaf that is gone."""

from types import SimpleNamespace

import pytest

from isolate.supervise.counterfiles import CounterFiles
from isolate.supervise.leafstats import extra, moment, read_directories, read_stats, text_of
from isolate.supervise.statfiles import V1_FILES
from tests.pure.test_stats import sample


@pytest.fixture
def v1(tmp_path):
    """A v1 leaf as directories, from the museum."""
    texts = sample("cgroup-v1-6.18.txt")
    found = {}
    for controller, files in V1_FILES.items():
        place = tmp_path / controller
        place.mkdir()
        found[controller] = str(place)
        for file in files:
            if file in texts:
                (place / file).write_text(texts[file])
    return found


@pytest.fixture
def v2(tmp_path):
    """A v2 leaf."""
    place = tmp_path / "unified"
    place.mkdir()
    for file, text in sample("cgroup-v2-by-hand.txt").items():
        (place / file).write_text(text)
    path = str(place)
    return dict.fromkeys(("unified", "memory", "pids", "cpu", "io"), path)


def leaf(directories):
    return SimpleNamespace(directories=directories, files=CounterFiles())


def test_v1_comes_from_one_directory_a_controller(v1):
    stats = read_directories(v1)
    assert stats.source == "cgroup v1"
    assert (stats.memory.current, stats.pids.limit, stats.cpu.limit) == (29458432, 256, 0.5)
    assert stats.cpu.usage > 0.5


def test_v2_comes_from_one_directory(v2):
    stats = read_directories(v2)
    assert stats.source == "cgroup v2"
    assert (stats.memory.current, stats.memory.slab) == (30146560, 722944)
    assert len(stats.io) == 2


def test_a_hybrid_machine_has_each_from_where_its_controller_is(v1, v2):
    both = {**v2, "memory": v1["memory"], "cpuacct": v1["cpuacct"]}
    stats = read_directories(both)
    assert stats.source == "cgroup v1 and v2"
    assert stats.memory.current == 29458432  # v1
    assert (stats.pids.current, len(stats.io)) == (3, 2)  # v2
    assert stats.pressure.cpu is not None
    assert moment(leaf(both), 0).memory == 29458432
    assert moment(leaf(both), 0).cpu == stats.cpu.usage
    assert extra(leaf(both)).read == stats.read
    only_io = {"unified": v2["unified"], "io": v2["io"], **v1}
    assert extra(leaf(only_io)).throttled == pytest.approx(0.068228487)


def test_the_two_numbers_of_a_timeline(v1, v2):
    assert moment(leaf(v2), 0).memory == 30146560
    assert moment(leaf(v2), 0).cpu == 0.521744
    assert moment(leaf(v1), 0).memory == 29458432
    assert moment(leaf({"pids": v1["pids"]}), 0).cpu is None


def test_what_usage_has_beyond_the_counters(v1, v2):
    assert extra(leaf(v2)).written == 314773504
    assert extra(leaf(v2)).throttled == 0.068228
    assert extra(leaf(v1)).read == 0
    nothing = extra(leaf({"pids": v1["pids"]}))
    assert (nothing.throttled, nothing.read, nothing.written) == (None, None, None)
    assert extra(None) == nothing


def test_a_leaf_that_is_gone_is_nothing(tmp_path):
    gone = {"memory": str(tmp_path / "gone"), "cpuacct": str(tmp_path / "gone")}
    assert read_directories(gone).memory.current is None
    assert moment(leaf(gone), 0).cpu is None


def test_without_a_leaf_the_processes_are_summed():
    assert read_stats(None, 1 << 30).source == "proc"
    assert read_stats(leaf({}), 1 << 30).memory.current is None


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path):
    (tmp_path / "memory.current").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        text_of(str(tmp_path / "memory.current"))


def test_an_endless_file_ends(tmp_path):
    (tmp_path / "x").write_bytes(b"1" * (3 << 20))
    assert len(text_of(str(tmp_path / "x"))) == 1 << 20
