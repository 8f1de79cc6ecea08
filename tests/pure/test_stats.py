"""From the texts of a cgroup's files to numbers: by samples, and under anything at all."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import IsolateError
from isolate.supervise.statfiles import V1_FILES, V2_FILES, parse_v1, parse_v2
from isolate.supervise.stats import CpuStats, IoStats, PressureStats, Stall, Stats

MUSEUM = Path(__file__).with_name("museum")
V1 = [file for files in V1_FILES.values() for file in files]


def sample(name):
    """A museum file: "== FILE" and its text, over and over."""
    parts = (MUSEUM / name).read_text().split("== ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def test_a_recorded_v1_leaf_has_these_numbers():
    stats = parse_v1(sample("cgroup-v1-6.18.txt"), 10.0, 20.0)
    assert (stats.at, stats.monotonic, stats.source) == (10.0, 20.0, "cgroup v1")
    memory = stats.memory
    assert memory.current == memory.peak == 29458432
    assert (memory.anon, memory.file, memory.kernel) == (25821184, 3145728, 233472)
    assert (memory.limit, memory.swap, memory.limit_hits, memory.oom_kills) == (64 << 20, 0, 0, 0)
    assert memory.slab is None
    assert stats.cpu.limit == 0.5
    assert (stats.cpu.periods, stats.cpu.throttled_periods) == (11, 4)
    assert stats.cpu.throttled == pytest.approx(0.068228487)
    assert stats.cpu.usage == pytest.approx(stats.cpu.user + stats.cpu.system, abs=0.02)
    assert (stats.pids.current, stats.pids.limit, stats.pids.refused) == (1, 256, 0)
    assert stats.io == ()
    assert stats.pressure == PressureStats()


def test_hits_of_memory_and_swap_together_count_on_v1():
    assert parse_v1({"memory.failcnt": "2\n"}, 0, 0).memory.limit_hits == 2
    both = {"memory.failcnt": "2\n", "memory.memsw.failcnt": "5\n"}
    assert parse_v1(both, 0, 0).memory.limit_hits == 7


def test_a_v2_leaf_has_these_numbers():
    stats = parse_v2(sample("cgroup-v2-by-hand.txt"), 0.0, 0.0)
    memory = stats.memory
    assert (memory.current, memory.peak, memory.limit) == (30146560, 30408704, 64 << 20)
    assert (memory.anon, memory.file, memory.shmem, memory.mapped) == (
        25821184, 3145728, 1048576, 40960,
    )  # fmt: skip
    assert (memory.kernel, memory.slab, memory.sock) == (1093632, 722944, 4096)
    assert (memory.kernel_stack, memory.pagetables) == (49152, 249856)
    assert (memory.swap, memory.swap_peak) == (8192, None)
    assert (memory.limit_hits, memory.oom_kills) == (17, 1)
    assert stats.cpu == CpuStats(
        usage=0.521744, user=0.5001, system=0.021644, limit=0.5,
        periods=11, throttled_periods=4, throttled=0.068228,
    )  # fmt: skip
    assert (stats.pids.current, stats.pids.peak, stats.pids.refused) == (3, None, 5)
    assert stats.io == (
        IoStats(device="7:0", read=4096, reads=1),
        IoStats(device="8:0", read=1459200, written=314773504, reads=192, writes=353),
    )
    assert (stats.read, stats.written) == (1463296, 314773504)
    some = stats.pressure.cpu.some
    assert some == Stall(avg10=9.38, avg60=46.64, avg300=49.38, total=400.297459)
    assert stats.pressure.io.full.avg10 == 0.42
    assert not stats.frozen


def test_a_recorded_v2_leaf_has_these_numbers():
    """Of Debian's 6.1 in the VM leg."""
    stats = parse_v2(sample("cgroup-v2-6.1.txt"), 0.0, 0.0)
    memory = stats.memory
    assert memory.current == memory.peak == 27291648
    assert (memory.anon, memory.file, memory.kernel) == (23748608, 3145728, 245760)
    assert memory.current == pytest.approx(memory.anon + memory.file + memory.kernel, abs=1 << 20)
    assert stats.cpu.usage == pytest.approx(stats.cpu.user + stats.cpu.system, abs=1e-5)
    assert (stats.cpu.throttled_periods, stats.cpu.throttled) == (30, 1.463621)
    assert (stats.pids.current, stats.pids.limit, stats.pids.refused) == (1, 256, 0)
    assert stats.io == (IoStats(device="254:16", written=3153920, writes=7),)
    assert stats.pressure.cpu.some.avg10 == 7.96


def test_lines_of_v1_block_devices_are_summed_by_device():
    texts = {
        "blkio.throttle.io_service_bytes_recursive": "8:16 Read 4096\n8:16 Write 512\n"
        "8:16 Sync 4608\n8:16 Total 4608\n8:0 Read 1\nTotal 4609\n",
        "blkio.throttle.io_serviced_recursive": "8:16 Read 1\n8:16 Write 2\nTotal 3\n",
    }
    assert parse_v1(texts, 0, 0).io == (
        IoStats(device="8:0", read=1),
        IoStats(device="8:16", read=4096, written=512, reads=1, writes=2),
    )


@pytest.mark.parametrize(
    ("texts", "limit"),
    [
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}, 1.5),
        ({"cpu.cfs_quota_us": "150000\n"}, None),
    ],
)
def test_a_v1_quota_is_processors(texts, limit):
    assert parse_v1(texts, 0, 0).cpu.limit == limit


def test_no_ceiling_is_none_in_both_versions():
    assert parse_v2({"memory.max": "max\n", "cpu.max": "max 100000\n"}, 0, 0).memory.limit is None
    assert parse_v2({"cpu.max": "max 100000\n", "pids.max": "max\n"}, 0, 0).cpu.limit is None
    v1 = parse_v1({"memory.limit_in_bytes": "9223372036854771712\n", "pids.max": "max\n"}, 0, 0)
    assert (v1.memory.limit, v1.pids.limit) == (None, None)


def test_a_frozen_v2_leaf_is_frozen():
    assert parse_v2({"cgroup.events": "populated 1\nfrozen 1\n"}, 0, 0).frozen


@pytest.mark.parametrize("parse", [parse_v1, parse_v2])
def test_absent_files_are_none_not_zero(parse):
    stats = parse({}, 0.0, 0.0)
    assert stats.memory.current is None
    assert stats.cpu.usage is None
    assert stats.pids.current is None
    assert stats.io == ()


@pytest.mark.parametrize(
    ("parse", "file", "text"),
    [
        (parse_v1, "memory.usage_in_bytes", "many\n"),
        (parse_v1, "cpuacct.usage", "-5\n"),
        (parse_v1, "pids.events", "max ٣\n"),
        (parse_v2, "memory.current", "9" * 5000),
        (parse_v2, "memory.stat", "anon 0x10\n"),
        (parse_v2, "io.stat", "8:0 rbytes=1e9\n"),
        (parse_v2, "cpu.pressure", "some avg10=nan avg60=0 avg300=0 total=0\n"),
        (parse_v2, "cpu.pressure", "some avg10=0.00\n"),
        (parse_v2, "cpu.max", "50000\n"),
        (parse_v2, "cpu.max", "50000 0\n"),
    ],
)
def test_what_the_kernel_never_writes_is_an_error_that_names_the_file(parse, file, text):
    with pytest.raises(IsolateError, match=file.replace(".", r"\.")):
        parse({file: text}, 0.0, 0.0)


WORDS = "max anon 8:0 rbytes=1 some avg10=0.00 total=5 -1 Read 99999999999999999999 = \0 frozen"
hostile = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*WORDS.split(" "), "\n"])).map(" ".join),
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(V1), hostile))
def test_anything_in_v1_files_is_stats_or_an_isolate_error(texts):
    check(parse_v1, texts)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(V2_FILES), hostile))
def test_anything_in_v2_files_is_stats_or_an_isolate_error(texts):
    check(parse_v2, texts)


def check(parse, texts):
    try:
        stats = parse(texts, 0.0, 0.0)
    except IsolateError as told:
        error = str(told)
    else:
        assert isinstance(stats, Stats)
        assert json.dumps(stats.to_dict())
        return
    assert any(file in error for file in texts)


def test_processors_are_told_from_two_moments():
    early = Stats(at=0, monotonic=10.0, source="cgroup v1", cpu=CpuStats(usage=1.0))
    late = Stats(at=0, monotonic=12.0, source="cgroup v1", cpu=CpuStats(usage=4.0))
    assert late.cores_since(early) == 1.5
    assert early.cores_since(late) is None
    assert late.cores_since(Stats(at=0, monotonic=1.0, source="cgroup v1")) is None
