"""The counters of a leaf: what is kept open, for how long, and that it is never an old number."""

import errno
import os
import signal
import threading
import time

import pytest

from isolate.supervise import counterfiles
from isolate.supervise.cgroup_files import UNLIMITED, value_of, whole
from isolate.supervise.cgroupfs import Leaf
from isolate.supervise.counterfiles import CounterFiles, kept


@pytest.fixture
def files():
    found = CounterFiles()
    yield found
    found.close()
    assert found.fds == {}


def open_paths():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # the listing's own
            continue
    return found


def test_a_file_that_is_read_once_is_not_kept(files, tmp_path):
    path = tmp_path / "pids.peak"
    path.write_text("3\n")
    assert files.read(str(path)) == b"3\n"
    assert str(path) not in open_paths() and kept() == 0


def test_a_file_that_is_read_again_stays_open_until_the_end(files, tmp_path):
    path = tmp_path / "pids.peak"
    path.write_text("3\n")
    for _ in range(5):
        assert files.read(str(path)) == b"3\n"
    assert open_paths().count(str(path)) == 1 and kept() == 1
    files.close()
    assert str(path) not in open_paths() and kept() == 0


def test_what_is_read_is_never_an_old_number(files, tmp_path):
    path = tmp_path / "cpuacct.usage"
    for value in (0, 5, 5, 12345678901, 7):
        path.write_text(f"{value}\n")
        assert files.parsed(str(path), "", whole) == value


def test_the_same_text_is_parsed_once_for_a_key(files, tmp_path):
    path, asked = tmp_path / "memory.events", []
    path.write_text("oom 1\noom_kill 2\n")

    def parse(text):
        asked.append(text)
        return value_of("oom_kill", text)

    assert [files.parsed(str(path), "oom_kill", parse) for _ in range(4)] == [2] * 4
    assert len(asked) == 1
    assert files.parsed(str(path), "oom", lambda text: value_of("oom", text)) == 1
    path.write_text("oom 1\noom_kill 3\n")
    assert files.parsed(str(path), "oom_kill", parse) == 3 and len(asked) == 2


def test_keys_of_one_file_are_kept_apart(files, tmp_path):
    path = tmp_path / "cpu.stat"
    path.write_text("usage_usec 10\nthrottled_usec 20\n")
    for _ in range(2):
        for key, value in (("usage_usec", 10), ("throttled_usec", 20), ("no_such", 0)):
            assert files.parsed(str(path), key, lambda text, k=key: value_of(k, text)) == value


def test_a_long_file_comes_whole(files, tmp_path):
    path = tmp_path / "io.stat"
    data = os.urandom(200_000).hex().encode()
    path.write_bytes(data)
    assert files.read(str(path)) == data == files.read(str(path))


def test_a_file_of_just_the_buffer_comes_whole(files, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"1" * counterfiles.SIZE)
    assert len(files.read(str(path))) == counterfiles.SIZE


def test_a_file_that_is_not_there_is_told_by_its_name(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"memory\.peak"):
        files.read(str(tmp_path / "memory.peak"))


def test_a_link_is_not_followed(files, tmp_path):
    (tmp_path / "pids.peak").symlink_to("/etc/passwd")
    with pytest.raises(OSError) as caught:
        files.read(str(tmp_path / "pids.peak"))
    assert caught.value.errno == errno.ELOOP


def test_a_cgroup_that_is_gone_is_no_file(files, tmp_path, monkeypatch):
    path = tmp_path / "pids.peak"
    path.write_text("3\n")
    files.read(str(path))
    files.read(str(path))

    def gone(*_):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(counterfiles.os, "pread", gone)
    with pytest.raises(FileNotFoundError, match="its cgroup is gone"):
        files.read(str(path))


def test_another_error_stays_what_it_is(files, tmp_path, monkeypatch):
    path = tmp_path / "pids.peak"
    path.write_text("3\n")

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(counterfiles.os, "pread", broken)
    before = len(open_paths())
    with pytest.raises(OSError, match="Input/output") as caught:
        files.read(str(path))
    assert not isinstance(caught.value, FileNotFoundError)
    assert len(open_paths()) == before


def test_one_process_keeps_a_bounded_number(files, tmp_path, monkeypatch):
    monkeypatch.setattr(counterfiles, "MOST_KEPT", 3)
    paths = [tmp_path / f"file{i}" for i in range(6)]
    for path in paths:
        path.write_text("1\n")
    for _ in range(3):
        assert [files.read(str(path)) for path in paths] == [b"1\n"] * 6
    assert kept() == 3
    other = CounterFiles()
    for _ in range(2):
        other.read(str(paths[0]))
    assert other.fds == {} and kept() == 3
    files.close()
    other.read(str(paths[0]))
    assert len(other.fds) == 1
    other.close()
    assert kept() == 0


def test_closing_twice_counts_once(tmp_path):
    files = CounterFiles()
    path = tmp_path / "x"
    path.write_text("1\n")
    for _ in range(2):
        files.read(str(path))
    files.close()
    files.close()
    assert kept() == 0


def test_after_the_end_nothing_is_kept_any_more(tmp_path):
    files = CounterFiles()
    path = tmp_path / "x"
    path.write_text("1\n")
    files.close()
    for _ in range(3):
        assert files.read(str(path)) == b"1\n"
    assert files.fds == {} and kept() == 0


def test_threads_and_an_end_in_their_midst(tmp_path):
    """A number that is closed may be somebody else's: nobody reads it after that."""
    path, files, wrong = tmp_path / "x", CounterFiles(), []
    path.write_text("7\n")
    other = tmp_path / "other"
    other.write_text("8\n")

    def reader():
        for _ in range(300):
            if files.read(str(path)) != b"7\n":
                wrong.append(1)

    threads = [threading.Thread(target=reader) for _ in range(4)]
    for thread in threads:
        thread.start()
    files.close()
    held = [os.open(other, os.O_RDONLY) for _ in range(20)]
    for thread in threads:
        thread.join()
    for fd in held:
        os.close(fd)
    assert wrong == [] and kept() == 0


@pytest.mark.parametrize(
    ("text", "value"), [("0\n", 0), ("max\n", UNLIMITED), (" 12 \n", 12), (str(1 << 70), 1 << 70)]
)
def test_a_file_of_one_number(text, value):
    assert whole(text) == value


@pytest.mark.parametrize("text", ["", "\n", "1 2\n", "-\n", "nan\n"])
def test_what_is_no_number_is_a_mistake(text):
    with pytest.raises(ValueError, match="invalid literal"):
        whole(text)


@pytest.mark.parametrize(
    ("key", "value"), [("oom", 4), ("oom_kill", 2), ("kill", 0), ("oom_", 0), ("o.m", 0)]
)
def test_a_key_is_a_whole_word(key, value):
    assert value_of(key, "low 0\noom 4\noom_kill 2\noom_group_kill 9\n") == value


def leaf_of(tmp_path, **texts):
    for name, text in texts.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    path = str(tmp_path)
    return Leaf(version=2, directories={"unified": path, "memory": path, "pids": path})


def test_a_leaf_counts_from_its_files(tmp_path):
    leaf = leaf_of(
        tmp_path,
        memory__events="low 0\nhigh 0\nmax 3\noom 1\noom_kill 0\n",
        memory__peak="4096\n",
        pids__peak="5\n",
        pids__events="max 2\n",
        cpu__stat="usage_usec 1500000\nuser_usec 1\n",
    )
    seen = leaf.counters()
    assert (seen.memory_peak, seen.pids_peak, seen.pids_refused) == (4096, 5, 2)
    assert (seen.cpu, seen.oom_kills, seen.oom) == (1.5, 0, None)
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\n")
    (tmp_path / "pids.events").write_text("max 3\n")
    again = leaf.counters()
    assert (again.cpu, again.pids_refused, again.memory_peak) == (2.5, 3, 4096)
    assert kept() == 5
    leaf.files.close()
    assert kept() == 0


def test_what_a_kernel_does_not_have_is_none_or_zero(tmp_path):
    leaf = leaf_of(tmp_path, cpu__stat="usage_usec 7\n")
    for _ in range(3):
        seen = leaf.counters()
        assert (seen.memory_peak, seen.pids_peak, seen.pids_refused) == (None, None, 0)
        assert (seen.oom_kills, seen.cpu) == (0, 7e-6)
    leaf.files.close()


def test_a_fork_does_not_wait_for_a_thread_that_it_has_not(tmp_path):
    path = tmp_path / "x"
    path.write_text("1\n")
    with counterfiles.LOCKS[0]:
        pid = os.fork()
        if pid == 0:
            files = CounterFiles()
            read = [files.read(str(path)) for _ in range(2)]
            os._exit(0 if read == [b"1\n"] * 2 and len(files.fds) == 1 else 1)
    for _ in range(1000):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail("the child waits for a lock")
