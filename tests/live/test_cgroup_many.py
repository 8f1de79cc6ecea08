# SPDX-License-Identifier: Apache-2.0
"""Boxes at once with different limits, and one after another: no leaf left, the cost flat.

ISOLATE_CGROUP_AT_ONCE and ISOLATE_CGROUP_IN_TURN set the numbers; a full run is 500 and 10000.
"""

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from isolate import CgroupLimit, Sandbox
from tests.conftest import leaves
from tests.live.cgroups import SECONDS, control

pytestmark = pytest.mark.needs("cgroup")
AT_ONCE = int(os.environ.get("ISOLATE_CGROUP_AT_ONCE", "20"))
IN_TURN = int(os.environ.get("ISOLATE_CGROUP_IN_TURN", "60"))


@pytest.fixture(autouse=True)
def in_time():
    """Takes its time: the numbers are what was asked for."""


def test_boxes_at_once_each_hold_their_own_limit():
    def limit(number):
        return CgroupLimit(memory=(16 + number) << 20, pids=3 + number % 50)

    boxes = []
    try:
        with ThreadPoolExecutor(4) as pool:
            made = [pool.submit(Sandbox(limit(n), timeout=SECONDS).open) for n in range(AT_ONCE)]
            boxes = [each.result() for each in made]
        for number, box in enumerate(boxes):
            assert int(control(box, "memory.limit_in_bytes", "memory.max")) == (16 + number) << 20
            assert int(control(box, "pids.max", "pids.max")) == 3 + number % 50
        for box in boxes[:: max(1, AT_ONCE // 20)]:
            assert box.run(["true"]).returncode == 0
    finally:
        for box in boxes:
            box.close()
    assert not leaves()


def test_boxes_in_turn_leave_nothing_and_cost_the_same(capsys):
    sandbox = Sandbox(mem="64M", pids=20)
    times = []
    for _ in range(IN_TURN):
        began = time.perf_counter()
        assert sandbox.run(["true"]).returncode == 0
        times.append(time.perf_counter() - began)
    assert not leaves()
    part = min(100, IN_TURN // 3)
    first, last = statistics.median(times[:part]), statistics.median(times[-part:])
    with capsys.disabled():
        text = f"{IN_TURN} boxes: first {part} {first * 1e3:.2f} ms, last {last * 1e3:.2f} ms"
        print(f"\n{text}, ratio {last / first:.2f}")
