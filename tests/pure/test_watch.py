"""`Watch` by itself: a pipe stands for the box's pidfd."""

import asyncio
import os
import threading
import time

import pytest

from isolate import IsolateError, PolicyError
from isolate.supervise.stats import Stats
from isolate.supervise.watch import Watch

NOW = Stats(at=1.0, monotonic=1.0, source="cgroup v1")


class Fake:
    """A box: its end closes the pipe's write end, which makes the read end readable."""

    def __init__(self):
        self.read_fd, self.write_fd = os.pipe()
        self.reads = 0

    def read(self):
        self.reads += 1
        return NOW

    def end_fd(self):
        if self.read_fd < 0:
            raise IsolateError("the box has ended")
        return os.dup(self.read_fd)

    def end(self):
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self):
        self.end()
        os.close(self.read_fd)
        self.read_fd = -1


@pytest.fixture
def box():
    before = set(os.listdir("/proc/self/fd"))
    fake = Fake()
    yield fake
    if fake.read_fd >= 0:
        fake.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == 1


def test_it_ends_with_the_box_and_not_at_the_next_interval(box):
    watch = Watch(box.read, box.end_fd, 60)
    assert next(watch) is NOW
    box.end()
    assert list(watch) == []
    assert box.reads == 1


def test_a_box_that_is_gone_gives_nothing(box):
    watch = Watch(box.read, box.end_fd, 1)
    box.close()
    assert list(watch) == []


def test_a_slow_reader_gets_no_backlog(box):
    watch = Watch(box.read, box.end_fd, 0.02)
    next(watch)
    time.sleep(0.2)
    began = box.reads
    next(watch)
    assert box.reads == began + 1


def test_a_read_that_fails_while_the_box_lives_is_told(box):
    def broken():
        raise IsolateError("memory.stat holds 'x'")

    with pytest.raises(IsolateError, match=r"memory\.stat"):
        next(Watch(broken, box.end_fd, 1))


def test_a_read_that_fails_because_the_box_ended_is_the_end(box):
    def ended():
        box.close()
        raise IsolateError("the box has ended")

    assert list(Watch(ended, box.end_fd, 1)) == []


def test_asyncio_goes_on_meanwhile(box):
    async def main():
        seen = []
        turns = 0

        async def other():
            nonlocal turns
            while len(seen) < 3:
                turns += 1
                await asyncio.sleep(0.001)
            box.end()

        task = asyncio.create_task(other())
        async for stats in Watch(box.read, box.end_fd, 0.02):
            seen.append(stats)
        await task
        return seen, turns

    seen, turns = asyncio.run(main())
    assert len(seen) >= 3
    assert turns > 3


def test_a_cancelled_wait_leaves_nothing(box):
    async def main():
        watch = Watch(box.read, box.end_fd, 60)
        await watch.__anext__()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(watch.__anext__(), 0.05)

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [0, 0.001, -1, "never", float("nan")])
def test_an_interval_that_would_be_a_busy_loop_is_refused(box, wrong):
    with pytest.raises(PolicyError):
        Watch(box.read, box.end_fd, wrong)
