"""Samples over time: bounded in number, from the first to the last."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import PolicyError
from isolate.supervise.leafstats import Moment
from isolate.supervise.timeline import MOST_SAMPLES, Timeline, timeline_interval


def run(count, step=1.0, interval=1.0):
    """A run that is looked at `count` times."""
    number = iter(range(10 * count + 10))

    def read():
        n = next(number)
        return Moment(1000 + n, 5.0 + n)

    line = Timeline(read, interval, began=100.0)
    for n in range(count):
        line.look(100.0 + n * step)
    return line


@settings(deadline=None, max_examples=60)
@given(st.integers(min_value=1, max_value=5000))
def test_there_are_never_too_many_and_the_first_and_the_order_stay(count):
    samples = run(count).samples
    assert 1 <= len(samples) < MOST_SAMPLES
    assert samples[0].at == 0.0
    times = [sample.at for sample in samples]
    assert times == sorted(set(times))
    assert count < MOST_SAMPLES // 2 or len(samples) >= MOST_SAMPLES // 4


def test_processor_time_counts_from_the_start():
    samples = run(3).samples
    assert [sample.cpu for sample in samples] == [0.0, 1.0, 2.0]
    assert [sample.memory for sample in samples] == [1000, 1001, 1002]


def test_a_look_too_early_takes_nothing():
    line = run(10, step=0.1)
    assert len(line.samples) == 1
    assert line.patience(100.4) == pytest.approx(0.6)


def test_the_interval_doubles_when_samples_are_dropped():
    line = run(MOST_SAMPLES + 5)
    assert line.interval == 2.0


def test_what_is_not_counted_leaves_no_sample():
    line = Timeline(lambda: Moment(None, None), 1.0, began=0.0)
    line.look(5.0)
    assert line.samples == []
    cpu_only = Timeline(lambda: Moment(None, 1.0), 1.0, began=0.0)
    cpu_only.look(5.0)
    assert cpu_only.samples[0].memory is None


def test_an_interval_is_true_or_a_duration():
    assert timeline_interval(None) is timeline_interval(False) is None
    assert timeline_interval(True) == 0.05
    assert timeline_interval("20ms") == 0.02
    for wrong in (0.001, -1, "soon"):
        with pytest.raises(PolicyError):
            timeline_interval(wrong)
