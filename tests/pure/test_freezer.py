"""The gate between starts and freezing, and v2's files, without a cgroup."""

import threading
import time
from types import SimpleNamespace

import pytest

from isolate import HostLacks, IsolateError
from isolate.supervise import freezer as module
from isolate.supervise.freezer import Freezer, is_killed, kill_leaf, members, wait_frozen


@pytest.fixture
def leaf(tmp_path):
    """A v2 leaf whose kernel answers at once."""
    (tmp_path / "cgroup.freeze").write_text("0")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "cgroup.kill").write_text("")
    return SimpleNamespace(directories={"unified": str(tmp_path)}, path=tmp_path)


def test_without_a_cgroup_it_is_refused():
    for nothing in (None, SimpleNamespace(directories={})):
        with pytest.raises(HostLacks, match="freeze"):
            Freezer().freeze(nothing)


def test_v2_is_one_file(leaf):
    freezer = Freezer()
    freezer.freeze(leaf)
    assert freezer.frozen
    assert (leaf.path / "cgroup.freeze").read_text() == "1"
    (leaf.path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    freezer.thaw()
    assert not freezer.frozen
    assert (leaf.path / "cgroup.freeze").read_text() == "0"


def test_nothing_starts_while_frozen(leaf):
    freezer = Freezer()
    freezer.freeze(leaf)
    with pytest.raises(IsolateError, match="thaw"), freezer.launch():
        raise AssertionError("it started")


def test_freezing_waits_for_a_start_that_is_under_way(leaf):
    freezer = Freezer()
    with freezer.launch():
        thread = threading.Thread(target=freezer.freeze, args=(leaf,))
        thread.start()
        time.sleep(0.1)
        assert (leaf.path / "cgroup.freeze").read_text() == "0"  # not yet
    thread.join(20)
    assert freezer.frozen
    assert (leaf.path / "cgroup.freeze").read_text() == "1"


def test_a_start_that_never_ends_stops_the_freeze_and_leaves_the_box_open(leaf, monkeypatch):
    monkeypatch.setattr(module, "FREEZE_SECONDS", 0.1)
    freezer = Freezer()
    with freezer.launch():
        with pytest.raises(IsolateError, match="still starting"):
            freezer.freeze(leaf)
        assert not freezer.frozen
    with freezer.launch():
        pass


def test_a_kernel_that_does_not_freeze_is_told_and_thawed(leaf, monkeypatch):
    monkeypatch.setattr(module, "FREEZE_SECONDS", 0.1)
    (leaf.path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    freezer = Freezer()
    with pytest.raises(IsolateError, match="frozen 1"):
        freezer.freeze(leaf)
    assert not freezer.frozen
    assert (leaf.path / "cgroup.freeze").read_text() == "0"


def test_a_key_that_only_begins_alike_is_not_it(tmp_path):
    (tmp_path / "cgroup.events").write_text("frozen 10\nunfrozen 1\n")
    with pytest.raises(IsolateError):
        wait_frozen(str(tmp_path), True, time.monotonic() + 0.05)


def test_kill_is_one_file_on_v2_and_a_leaf_that_is_gone_is_dead(leaf):
    kill_leaf(leaf, Freezer())
    assert (leaf.path / "cgroup.kill").read_text() == "1"
    gone = SimpleNamespace(directories={"unified": str(leaf.path / "gone")})
    kill_leaf(gone, Freezer())


def test_members_are_those_below_too(leaf):
    (leaf.path / "cgroup.procs").write_text("5\n")
    (leaf.path / "a/b").mkdir(parents=True)
    (leaf.path / "a/b/cgroup.procs").write_text("6\n7\n")
    assert members(str(leaf.path)) == {5, 6, 7}


def test_a_process_that_lives_is_not_killed():
    import os

    assert not is_killed(os.getpid())
    assert not is_killed(1 << 30)
